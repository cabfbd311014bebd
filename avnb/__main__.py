"""Audio-visual self-supervised learning: the book, one notebook, a data set's audit, speed."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import avnb
from avnb.processes import die_with_parent

if "TORCHELASTIC_RUN_ID" in os.environ:
    die_with_parent()  # first of all: a worker must not outlive a torchrun that was killed

from avnb.config import unknown_name
from avnb.profiles import PROFILES


def book_command(args: argparse.Namespace) -> None:
    """Run all notebooks and build the book; print it, where that is asked for."""
    from avnb.book import book, pdf
    from avnb.profiles import Workspace

    if args.pdf:
        pdf.chromium()  # rather missed now than after all notebooks
    page = book.make(args.profile)
    print(f"the book is ready: {page}")
    if args.pdf:
        out = Workspace.open(args.profile).folder / "book.pdf"
        print(f"the book is printed: {pdf.write_pdf(page, out, args.profile)}")


def run_command(args: argparse.Namespace) -> None:
    """Run one notebook strictly."""
    from avnb.book import execution, notebook_parameters

    known = notebook_parameters.notebook_parameters(args.notebook)
    given = {name: convert(name, text, known) for name, text in args.parameter}
    print(f"executed: {execution.run_notebook(args.notebook, args.out, given)}")


def convert(name: str, text: str, known: dict[str, tuple[str, Any]]) -> Any:
    """The text of a parameter as the type that the notebook declares."""
    if name not in known:
        raise TypeError(unknown_name("notebook parameter", name, known))
    kind = known[name][0]
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError(f"parameter {name!r} must be true or false, got {text!r}")
        return text.lower() == "true"
    if kind == "str":
        return text
    try:
        return int(text) if kind == "int" else float(text)
    except ValueError as error:
        raise ValueError(f"parameter {name!r} must be {kind}, got {text!r}") from error


def audit_command(args: argparse.Namespace) -> None:
    """Decode every file of a data set and say what is there."""
    from avnb.data import catalogue
    from avnb.profiles import Workspace

    work = Workspace.open(args.profile)
    listing, manifest, bad = catalogue.audited(
        work,
        args.dataset,
        str(args.folder),
        fold=args.fold,
        allow_missing=args.allow_missing,
        subset=work.pretraining().subset if args.subset else None,
        max_damaged=args.max_damaged,
        out=args.out,
    )
    out = manifest.where
    print(
        f"{len(listing.entries)} of {listing.listed} listed files are there, and "
        f"{len(listing.unlisted)} that no list names; {out / 'mismatches.csv'} names all"
    )
    silent = len(manifest) - len(manifest.with_audio())
    print(
        f"{len(manifest)} usable videos of {len(manifest.classes)} classes, {silent} without sound"
    )
    if flawed := [video for video in manifest.videos if video.damaged]:
        print(f"{len(flawed)} of them are damaged in places; the column `damaged` gives the share")
    print(f"{len(bad)} cannot be decoded; {out / 'ledger.csv'} gives the reasons")


def cache_command(args: argparse.Namespace) -> None:
    """Write a data set in a form that costs little to read, and have the chapters use it."""
    from avnb.data import catalogue
    from avnb.profiles import Workspace

    work, folder = Workspace.open(args.profile), str(args.folder)
    subset = work.pretraining().subset if args.subset else None
    made = catalogue.make_cache(
        work,
        args.dataset,
        folder,
        args.form,
        fold=args.fold,
        allow_missing=args.allow_missing,
        subset=subset,
        limit_gb=args.limit_gb,
    )
    size = sum(made.path(video).stat().st_size for video in made.videos) / 1e9
    print(
        f"{len(made)} videos of {made.name} take {size:.2f} GB in {made.cache}; the chapters of "
        f"the profile {args.profile!r} read them there"
    )


def train_command(args: argparse.Namespace) -> None:
    """One process of a training job."""
    from avnb.training import runs

    runs.main(*args.folders)


def figures_command(args: argparse.Namespace) -> None:
    """Draw figures and tables again, as files."""
    from avnb.book import figures
    from avnb.profiles import Workspace

    split = {name: getattr(args, name).split(",") for name in ("format", "only")}
    formats, only = ([item.strip() for item in v if item.strip()] for v in split.values())
    options = {"style": args.style, "formats": formats, "only": only, "out": args.out}
    print(f"figures and tables are in {figures.draw(Workspace.open(args.profile), **options)}")


def bench_command(args: argparse.Namespace) -> None:
    """Measure stages, and print them as a table."""
    from avnb.bench import rows, stages
    from avnb.bench.workload import Workload
    from avnb.profiles import build_folder

    folder = build_folder() / "bench"
    videos = folder / ("videos-quick" if args.quick else "videos")
    work = Workload(videos, args.rounds, quick=args.quick, gpu=args.gpu)
    out = args.out or folder / "rows.jsonl"
    print(rows.table(stages.run(args.stage, work, out)))
    print(f"the rows are in {out}")


def study_command(args: argparse.Namespace) -> None:
    """Train and measure the studies, and say how far the stored rows come out again."""
    import torch

    from avnb.evaluation import studies
    from avnb.profiles import Workspace

    # A second thread helps small networks little, and sums in another order.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    work = Workspace.open(args.profile)
    out = args.out or work.folder / "studies.jsonl"
    names = args.studies or list(studies.STUDIES)
    rows = studies.measure(work, names, out, seeds=range(args.seeds), part=args.part)
    print(f"{len(rows)} rows are in {out}")
    both = studies.compared(rows)
    if both.empty:
        print(f"none of the stored rows is of the profile {args.profile!r}: nothing is compared")
        return
    print(studies.agreement(both))


def part(text: str) -> tuple[int, int]:
    """`2/3` as the second of three."""
    k, _, n = text.partition("/")
    if not (k.isdigit() and n.isdigit() and 1 <= int(k) <= int(n)):
        raise argparse.ArgumentTypeError(f"{text!r} is no part: give 1/2, then 2/2")
    return int(k), int(n)


def positive(text: str) -> int:
    """A number above 0 of the command line."""
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """All commands."""
    from avnb.data.audit import MAX_DAMAGED
    from avnb.data.cache import FORMS, LIMIT_GB
    from avnb.data.datasets import DATA_SETS

    top = argparse.ArgumentParser(prog="avnb", description=__doc__)
    top.add_argument("--version", action="version", version=f"avnb {avnb.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("book", help="run all notebooks and build the book")
    one.add_argument("--profile", choices=["demo", "smoke"], default="demo")
    one.add_argument("--pdf", action="store_true", help="also print it as one PDF, by Chromium")
    one.set_defaults(run=book_command)

    one = commands.add_parser("run", help="run one notebook; unknown parameters are errors")
    one.add_argument("notebook", type=Path)
    one.add_argument("out", type=Path, help="where the executed copy goes")
    one.add_argument(
        "-p", "--parameter", nargs=2, metavar=("NAME", "VALUE"), action="append", default=[]
    )
    one.set_defaults(run=run_command)

    one = commands.add_parser("audit", help="decode every file of a data set; write its manifest")
    one.add_argument("dataset", choices=[*DATA_SETS], help="folder: videos of your own")
    one.add_argument("folder", type=Path, help="the data set's folder, in its official layout")
    one.add_argument(
        "out", type=Path, nargs="?", help="folder for the tables; by default that of the chapters"
    )
    one.add_argument("--profile", choices=[*PROFILES], default="thesis", help="whose chapters")
    one.add_argument("--subset", action="store_true", help="the videos of pre-training alone")
    one.add_argument("--fold", type=int, default=1, help="official split, or seed of a draw")
    one.add_argument("--allow-missing", action="store_true", help="go on without missing files")
    one.add_argument(
        "--max-damaged",
        type=float,
        default=MAX_DAMAGED,
        metavar="SHARE",
        help="of a file's packets that may fail to be decoded, from 0 to 1",
    )
    one.set_defaults(run=audit_command)

    one = commands.add_parser(
        "bench",
        help="how fast everything is here, beside the recipe of 2022; needs no data",
        description="Times each stage in turn with the 2022 recipe, on videos made here. "
        "Rows are appended to the file as they come, so an interrupted run loses none.",
    )
    one.add_argument(
        "--stage",
        nargs="+",
        default=[],
        metavar="NAME",
        help="clip, parts, augmentation, spectrogram, loader, bank, vicreg, retrieval, "
        "probe, soak or step-METHOD; by default all, but soak, and step-METHOD with --gpu only",
    )
    one.add_argument(
        "--rounds", type=positive, default=8, help="measured rounds of each comparison"
    )
    one.add_argument("--out", type=Path, help="file of the rows; build/bench/rows.jsonl by default")
    one.add_argument("--gpu", action="store_true", help="steps at the thesis's size, on a GPU")
    one.add_argument("--quick", action="store_true", help="small, to see whether it works")
    one.set_defaults(run=bench_command)

    one = commands.add_parser("cache", help="write a data set in a form that costs little to read")
    one.add_argument("dataset", choices=[*DATA_SETS], help="folder: videos of your own")
    one.add_argument("folder", type=Path, help="the data set's folder, in its official layout")
    one.add_argument("--form", choices=[*FORMS], default="mpeg2", help="h264 is half as large")
    one.add_argument("--profile", choices=[*PROFILES], default="thesis", help="whose chapters")
    one.add_argument("--fold", type=int, default=1, help="official split, or seed of a draw")
    one.add_argument("--allow-missing", action="store_true", help="go on without missing files")
    one.add_argument("--subset", action="store_true", help="the videos of pre-training alone")
    one.add_argument("--limit-gb", type=float, default=LIMIT_GB, help="of disk, at most")
    one.set_defaults(run=cache_command)

    one = commands.add_parser(
        "figures", help="figures and tables of the book as files; no training"
    )
    one.add_argument("--profile", choices=[*PROFILES], default="demo", help="whose results")
    one.add_argument("--style", default="paper", help="book, paper or slides")
    one.add_argument("--format", default="pdf,png,svg", help="separated by commas")
    one.add_argument("--only", default="", help="numbers, labels or chapters: 12.3,maps,7")
    one.add_argument("--out", type=Path, help="folder; by default build/PROFILE/figures/STYLE")
    one.set_defaults(run=figures_command)

    one = commands.add_parser(
        "study",
        help="the experiments behind the chapter of studies; over an hour on two cores",
        description="Trains and measures each variant. Rows are appended as they come, and what "
        "is there is not made again. At the end they are compared with the stored ones.",
    )
    one.add_argument("studies", nargs="*", metavar="NAME", help="all by default")
    one.add_argument("--profile", choices=[p for p in PROFILES if p != "thesis"], default="study")
    one.add_argument(
        "--seeds", type=int, choices=(1, 2, 3), default=3, help="how many, of the study of methods"
    )
    one.add_argument("--part", type=part, default=(1, 1), metavar="K/N", help="to make N at once")
    one.add_argument("--out", type=Path, help="file of the rows; build/study/studies.jsonl")
    one.set_defaults(run=study_command)

    one = commands.add_parser("train", help="one process of a training job (torchrun starts it)")
    one.add_argument(
        "folders", type=Path, nargs="+", help="the run's folder, which holds job.json; or several"
    )
    one.set_defaults(run=train_command)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; what a person got wrong is one message, not a traceback."""
    args = parser().parse_args(argv)
    if args.run is train_command:
        train_command(args)  # its traceback is for the launcher
        return 0
    from avnb.book.parts import BookError

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
