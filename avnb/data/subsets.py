"""The training and validation videos of a run: drawn once from a seed, kept as files of ids.

Thesis 4.1.1.
"""

from pathlib import Path

from avnb.config import Pretrain, Subset, digest
from avnb.data.audit import audited_subset
from avnb.data.listing import draw_subset, draw_values, drawn_files, write_drawn
from avnb.data.manifest import Manifest, file_digest
from avnb.files import locked, read_json


def subset_files(manifest: Manifest, config: Subset) -> tuple[Path, Path]:
    """Files with the ids for training and for validation, one a line, beside the manifest.

    They are drawn from the manifest's videos unless they exist. An audit that was limited to a
    subset has drawn them already, from all videos of the lists. Where every file is usable, both
    draws are the same; otherwise they differ, because the first knows all unusable files
    beforehand and the second has only looked at those that it came across.

    Raises:
        ValueError: when there is no training video, or the audit was limited to another subset.
    """
    key, where = draw_values(config), manifest.where
    if audited := audited_subset(where):
        if audited != key:
            names = "subset_videos, validation_videos, subset_seed"
            raise ValueError(
                f"{where / 'manifest.csv'} holds the videos of the subset {audited} ({names}) "
                f"alone, and cannot give {key}: load_dataset(..., subset=...) gives those"
            )
        return drawn_files(where)
    if not any(video.split == "train" for video in manifest.videos):
        raise ValueError(f"{manifest.name} in {manifest.folder} has no training video")
    folder = where / f"subset-{digest([*key, manifest.digest])}"
    paths = drawn_files(folder)
    with locked(folder):
        if not all(path.exists() for path in paths):
            write_drawn(folder, draw_subset(manifest.videos, config))
    return paths


def check_drawn(ids: Path) -> None:
    """Raise ValueError for a file of ids that is not as it was drawn."""
    hashes = ids.parent / "drawn.json"
    if hashes.exists() and read_json(hashes, "a draw").get(ids.name) != file_digest(ids):
        raise ValueError(
            f"{ids} was cut or changed since it was drawn: delete {ids.parent} to draw again, or "
            "give a list of your own as `subset_ids`"
        )


def load_subset(manifest: Manifest, ids: str | Path) -> Manifest:
    """The videos whose ids are in a file, in its order.

    Raises:
        ValueError: for a file that was cut or changed since it was drawn, or an id that is no
            training video of the manifest.
    """
    check_drawn(Path(ids))
    ids, known = Path(ids), {v.id: v for v in manifest.split("train").videos}
    selected = ids.read_text().split("\n")[:-1]
    unknown = [i for i in selected if i not in known]
    if unknown:
        raise ValueError(
            f"{ids} names {len(unknown)} videos, {unknown[0]!r} first, that are no training "
            f"videos of {manifest.where / 'manifest.csv'}; delete {ids.parent} to draw again"
        )
    return manifest.only(known[i] for i in selected)


def apply_missing_audio(manifest: Manifest, run: Pretrain) -> Manifest:
    """The videos, those without audio kept, dropped or refused as `missing_audio` says.

    Raises:
        ValueError: when there are some and `missing_audio` is `error`.
    """
    silent = len(manifest) - len(manifest.with_audio())
    if silent and run.missing_audio == "error":
        raise ValueError(
            f"{silent} of {len(manifest)} training videos of {manifest.folder} have no audio "
            "stream; `missing_audio` may be 'silence' (zeros instead) or 'drop'"
        )
    return manifest.with_audio() if run.missing_audio == "drop" else manifest


def training_and_validation(manifest: Manifest, run: Pretrain) -> tuple[Manifest, Manifest]:
    """The videos of a run for training and for validation; drawn if they have not been."""
    train, validation = (load_subset(manifest, ids) for ids in subset_files(manifest, run.subset))
    return apply_missing_audio(train, run), apply_missing_audio(validation, run)
