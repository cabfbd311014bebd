"""Clips that cannot be read during training: what takes their place, and the ledger of them.

The audit has read every file, so that one fails later means a damaged place that only a jump
reaches, or a disk that begins to fail. One such file must not end a run, or stop it at the same
step for ever; many of them must.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avnb.data.batch import Batch
from avnb.data.clips import VideoClips
from avnb.data.readers import Reading, tensors
from avnb.data.video_frames import DecodeError
from avnb.files import appending, json_lines

LEDGER = "unreadable.jsonl"  # in the folder of a run
MOST_VIDEOS = 0.01  # of all; more are an error


class Replacements:
    """Replaces clips that could not be read by the next clip of their batch that could.

    A clip fails every time, so a run that is resumed replaces the same ones by the same ones. Each
    replacement is a line of the ledger.

    Args:
        file: the ledger, which is made with the first line.
        clips: that are read.
    """

    def __init__(self, file: Path, clips: VideoClips):
        self.file, self.manifest = file, clips.manifest
        self.most = max(1, int(MOST_VIDEOS * len(clips)))
        self.failed: dict[int, DecodeError] = {}  # by video
        self.rows: dict[int, tuple[Reading, int]] = {}  # of the store -> the reading, and its clip

    def note(self, reading: Reading, error: DecodeError) -> None:
        """A reading has failed.

        Raises:
            DecodeError: when more videos have failed than may.
        """
        self.failed[reading.video] = error
        if len(self.failed) > self.most:
            raise DecodeError(
                error.path,
                f"{error.reason}. It is number {len(self.failed)} of {len(self.manifest)} videos "
                f"that the audit could read and that now cannot be ({self.most} may be); "
                f"{self.file} names the others. Is the disk failing? `avnb audit` looks again",
            )
        for clip, row in zip(reading.clips, reading.rows, strict=True):
            self.rows[row] = reading, clip

    def fill(self, store: Batch, begin: int, size: int) -> None:
        """Replace what has failed of the batch in `size` rows from `begin` on.

        Raises:
            DecodeError: when nothing in it could be read.
        """
        lost = [row for row in range(begin, begin + size) if row in self.rows]
        for row in lost:
            around = [begin + (row - begin + i) % size for i in range(1, size)]
            donor = next((other for other in around if other not in self.rows), None)
            if donor is None:
                raise self.failed[self.rows[row][0].video]
            for tensor in tensors(store):
                tensor[row] = tensor[donor]
            self.record(row, int(store.video_index[donor]))
        for row in lost:
            del self.rows[row]

    def record(self, row: int, instead: int) -> None:
        """Write a replacement into the ledger."""
        reading, clip = self.rows[row]
        videos = self.manifest.videos
        line = {
            "epoch": reading.epoch,
            "video": videos[reading.video].path,
            "clip": clip,
            "reason": self.failed[reading.video].reason,
            "replaced_by": videos[instead].path,
        }
        with appending(self.file) as add:
            add(json.dumps(line))


def read_ledger(folder: Path) -> Iterator[dict[str, Any]]:
    """The replacements of a run, each once, however often it was resumed."""
    known = set()
    for line in json_lines(folder / LEDGER):
        if (key := json.dumps(line, sort_keys=True)) not in known:
            known.add(key)
            yield line
