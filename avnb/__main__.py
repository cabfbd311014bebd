"""Audio-visual self-supervised learning: the book, one notebook, the store of a data set."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import avnb
from avnb.processes import die_with_parent

if "TORCHELASTIC_RUN_ID" in os.environ:
    die_with_parent()  # first of all: a worker must not outlive a torchrun that was killed

from avnb.profiles import PROFILES, Workspace


def book_command(args: argparse.Namespace) -> None:
    """Run all notebooks and build the book."""
    from avnb.book import build

    print(f"the book is ready: {build.make(args.profile)}")


def run_command(args: argparse.Namespace) -> None:
    """Run one notebook; a parameter that it does not have is an error."""
    from avnb.book import build, parameters

    declared = parameters.notebook_parameters(args.notebook)
    given = {name: parameters.parse_value(name, text, declared) for name, text in args.parameter}
    print(f"executed: {build.run_notebook(args.notebook, args.out, given)}")


def prepare_command(args: argparse.Namespace) -> None:
    """Read every video of a data set once, and write the store that all chapters read."""
    from avnb.data import prepare

    work = Workspace.open(args.profile)
    options = {"fold": args.fold, "allow_missing": args.allow_missing}
    options |= {"subset": work.pretraining().subset} if args.subset else {}
    options |= {"limit_gb": args.limit_gb} if args.limit_gb else {}
    manifest = prepare.load_dataset(work, args.dataset, str(args.folder), **options)
    silent = len(manifest) - len(manifest.with_audio())
    print(f"{len(manifest)} videos of {len(manifest.classes)} classes, {silent} without audio")
    rejected = manifest.where / "rejected.csv"
    print(f"{len(rejected.read_text().splitlines()) - 1} cannot be used: {rejected} gives reasons")


def train_command(args: argparse.Namespace) -> None:
    """One process of a training job, which torchrun starts."""
    from avnb.training import runs

    runs.main(*args.folders)


def parser() -> argparse.ArgumentParser:
    """All commands."""
    top = argparse.ArgumentParser(prog="avnb", description=__doc__)
    top.add_argument("--version", action="version", version=f"avnb {avnb.__version__}")
    parsers = top.add_subparsers(required=True, metavar="COMMAND")
    commands = (book_command, run_command, prepare_command, train_command)
    book, run, prepare, train = (
        parsers.add_parser(command.__name__.removesuffix("_command"), help=command.__doc__)
        for command in commands
    )
    for one, command in zip((book, run, prepare, train), commands, strict=True):
        one.set_defaults(run=command)
    book.add_argument("--profile", choices=["demo", "smoke"], default="demo")

    run.add_argument("notebook", type=Path)
    run.add_argument("out", type=Path, help="where the executed copy goes")
    pair: dict[str, Any] = {"nargs": 2, "metavar": ("NAME", "VALUE"), "action": "append"}
    run.add_argument("-p", "--parameter", default=[], **pair)

    prepare.add_argument("dataset", help="vggsound, ucf101, hmdb51, or folder: of your own")
    prepare.add_argument("folder", type=Path, help="the data set's folder, in its official layout")
    prepare.add_argument("--profile", choices=[*PROFILES], default="thesis", help="whose chapters")
    prepare.add_argument("--subset", action="store_true", help="the videos of pre-training alone")
    prepare.add_argument("--fold", type=int, default=1, help="official split, or seed of a draw")
    prepare.add_argument("--allow-missing", action="store_true", help="go on without missing files")
    prepare.add_argument("--limit-gb", type=float, help="of disk, at most")

    train.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="they hold a job.json")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; what a person got wrong is one message, not a traceback."""
    args = parser().parse_args(argv)
    if args.run is train_command:
        train_command(args)  # its traceback is for the launcher
        return 0
    from avnb.book.build import BookError

    try:
        args.run(args)
    except (ValueError, TypeError, OSError, BookError) as error:
        print(f"error: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
