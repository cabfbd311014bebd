"""Hostile input by kind: each case is a name, the word its message must hold, and a call.

A case is *clear* when the call succeeds, or ends in an error of ours or of the operating system
whose message names the thing at fault.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch

from avnb.config import Pretrain
from avnb.data import datasets, mel_statistics, subsets
from avnb.data.audit import audit
from avnb.data.decoding import read
from avnb.data.manifest import Manifest
from avnb.data.media import inspect
from avnb.evaluation import feature_store, results
from avnb.evaluation.encoder_source import untrained_source
from avnb.profiles import PROFILES
from avnb.training import checkpoint
from avnb.training.resources import Slurm
from tests.conftest import ROOT

load, listed, asked = checkpoint.load_encoders, datasets.listing, Slurm.from_text


class Case(NamedTuple):
    """One attempt."""

    kind: str
    name: str
    names: str  # what a message must hold
    call: Callable[[], object]


# ---- videos -----------------------------------------------------------------------------------


def small_video(path: Path, *, codec: str = "libx264", seconds: float = 1.0, px: int = 64) -> Path:
    """A file with a picture and a sound."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=20)
        video.width = video.height = px
        video.pix_fmt = "yuv420p"
        audio = out.add_stream("libmp3lame" if path.suffix == ".avi" else "aac", rate=22_050)
        audio.layout = "mono"
        for i in range(int(20 * seconds)):
            image = np.full((px, px, 3), 8 * i % 256, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(video.encode())
        wave = np.sin(np.arange(int(22_050 * seconds)) / 9).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 22_050, 0, Fraction(1, 22_050)
        out.mux(audio.encode(frame))
        out.mux(audio.encode())
    return path


def look(path: Path) -> None:
    """What the audit and training do with a file."""
    found = inspect(path)
    times = np.linspace(0, max(found.seconds - 1e-3, 0), 4)
    read(
        path,
        times,
        lambda i, image: None,
        seconds=found.seconds,
        start=found.start,
        audio_starts=times[:2],
        samples=8000,
    )


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flipped, overwritten, repeated or reordered in places."""
    data, size = bytearray(content), len(content)
    at, length = int(rng.integers(size)), int(rng.integers(1, 2 ** rng.integers(1, 12)))
    kind = rng.integers(6)
    if kind == 0:
        del data[at:]
    elif kind == 1:
        for place in rng.integers(size, size=rng.integers(1, 20)):
            data[place] ^= 1 << rng.integers(8)
    elif kind == 2:
        data[at : at + length] = rng.bytes(length)
    elif kind == 3:
        data[at : at + length] = b""
    elif kind == 4:
        data[at:at] = data[at : at + length]
    else:  # a number in the header
        place = int(rng.integers(max(1, min(size, 2000) - 4)))
        data[place : place + 4] = struct.pack(">I", int(rng.choice([0, 1, 2**31 - 1, 2**32 - 1])))
    return bytes(data)


def damaged_videos(folder: Path, count: int) -> Iterator[Case]:
    """Files with random damage, in three containers."""
    kinds = {"a.mp4": "libx264", "b.avi": "mpeg4", "c.mkv": "libx264"}
    originals = [small_video(folder / name, codec=codec) for name, codec in kinds.items()]
    for i in range(count):
        original, rng = originals[i % 3], np.random.default_rng(i)
        path = folder / f"mutated{i}{original.suffix}"
        path.write_bytes(mutated(original.read_bytes(), rng))
        yield Case("damaged videos", path.name, path.name, lambda path=path: look(path))


def late(path: Path, seconds: float, *, moved: str) -> Path:
    """A file whose later packets, of one stream or of both, are stamped far in the future."""
    source = small_video(path.with_name("source.mp4"))
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        copies = {s.index: out.add_stream_from_template(s) for s in container.streams}
        for packet in container.demux():
            if packet.size:
                far = int(seconds / packet.time_base)
                if packet.stream.type in moved and packet.dts > 0.5 / packet.time_base:
                    packet.pts, packet.dts = packet.pts + far, packet.dts + far
                packet.stream = copies[packet.stream_index]
                out.mux(packet)
    return path


def large_frame(path: Path, px: int) -> Path:
    """One grey frame."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width = stream.height = px
        stream.pix_fmt, stream.options = "yuv420p", {"preset": "ultrafast"}
        out.mux(stream.encode(av.VideoFrame(px, px, "yuv420p")))
        out.mux(stream.encode())
    return path


def lying_videos(folder: Path, count: int) -> Iterator[Case]:
    """Time stamps, lengths and sizes that no file of its size can have."""
    far = [1e4, 1e6, 1e7][: max(1, count)]
    for seconds, moved in ((s, m) for s in far for m in ("video", "audio", "video audio")):
        path = late(
            folder / f"late-{moved.replace(' ', '-')}-{seconds:g}.mkv", seconds, moved=moved
        )
        yield Case("videos that lie", path.name, path.name, lambda path=path: look(path))
    for px in (4800, 9000)[: max(1, count)]:
        path = large_frame(folder / f"large-{px}.mp4", px)
        yield Case("videos that lie", path.name, path.name, lambda path=path: look(path))


def no_media(folder: Path, count: int) -> Iterator[Case]:
    """Play lists, pipes, sockets, devices and folders in a video's place."""
    victim = small_video(folder / "victim.mp4")
    texts = {
        "concat.mp4": f"ffconcat version 1.0\nfile '{victim.name}'\n",
        "above.mp4": "ffconcat version 1.0\nfile '../victim.mp4'\n",
        "itself.mp4": "ffconcat version 1.0\nfile 'itself.mp4'\n",
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{victim.name}\n",
        "page.mp4": "<html>gone</html>",
        "empty.mp4": "",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "device.mp4").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.mp4"))
    others = ("pipe.mp4", "folder.mp4", "loop.mp4", "device.mp4", "socket.mp4")
    for name in (*texts, *others):
        path = folder / name
        yield Case("not a video", name, name, lambda path=path: refused(lambda: look(path)))


def refused(call: Callable[[], object]) -> None:
    """What must not succeed."""
    call()
    raise AssertionError("it was accepted")


# ---- checkpoints ------------------------------------------------------------------------------


def checkpoints(folder: Path, count: int) -> Iterator[Case]:
    """Cut files, tensors that do not fit, lying metadata, code, pipes."""
    tiny = Pretrain.from_flat(**{**PROFILES["smoke"]["pretrain"], "width": 4})
    file = untrained_source(tiny, folder).checkpoint
    assert file is not None
    content, whole = torch.load(file, weights_only=True), file.read_bytes()
    names = [name for name in content["model"] if name.startswith("video_encoder")]
    floats = [name for name in names if content["model"][name].is_floating_point()]
    rng = np.random.default_rng(0)

    def changed(name: str, **model: object) -> Path:
        kept = {k: v for k, v in {**content["model"], **model}.items() if v is not None}
        torch.save({**content, "model": kept}, folder / name)
        return folder / name

    made = []
    for i in range(count):
        some = str(rng.choice(floats))
        value = content["model"][some]
        hurt = value.clone()
        hurt.view(-1)[0] = float(("nan", "inf")[i % 2])
        made += [
            changed(f"missing{i}.pt", **{some: None}),
            changed(f"extra{i}.pt", **{f"{some}.more": value}),
            changed(f"shape{i}.pt", **{some: value[None]}),
            changed(f"sparse{i}.pt", **{some: value.to_sparse()}),
            changed(f"whole{i}.pt", **{some: value.long()}),
            changed(f"finite{i}.pt", **{some: hurt}),
            changed(f"text{i}.pt", **{some: "a text"}),
        ]
        (folder / f"cut{i}.pt").write_bytes(whole[: int(rng.integers(len(whole)))])
        (folder / f"noise{i}.pt").write_bytes(mutated(whole[:4000], rng))
        made += [folder / f"cut{i}.pt", folder / f"noise{i}.pt"]
    metadata = content["metadata"]
    lies = {
        "nothing.pt": {},
        "width.pt": {**metadata, "config": {**metadata["config"], "width": 10**9}},
        "wide.pt": {**metadata, "config": {**metadata["config"], "width": 4096}},
        "words.pt": {**metadata, "config": "values"},
        "more.pt": {**metadata, "surprise": 1},
    }
    for name, lie in lies.items():
        torch.save({**content, "metadata": lie}, folder / name)
        made.append(folder / name)
    os.mkfifo(folder / "pipe.pt")
    (folder / "loop.pt").symlink_to("loop.pt")
    made += [folder / "pipe.pt", folder / "loop.pt", folder / "none.pt"]
    for path in made:
        yield Case(
            "checkpoints", path.name, path.name, lambda path=path: refused(lambda: load(path))
        )


# ---- files that were cut ----------------------------------------------------------------------


def cut_state(folder: Path, count: int) -> Iterator[Case]:
    """What runs keep on disk, cut somewhere: made again, healed, or named."""
    rng = np.random.default_rng(0)
    row = results.Row(task="probe", metric="top1", value=1.0, method="xid", dataset="ucf101")

    def append_after_cut(file: Path, at: int) -> None:
        results.append(file, [replace(row, seed=i) for i in range(3)])
        file.write_bytes(file.read_bytes()[:at])
        results.append(file, [replace(row, seed=9)])
        table = results.read(file)
        assert 9 in set(table["seed"]) and len(table) >= 1

    for i in range(count):
        file = folder / f"results{i}.jsonl"
        at = int(rng.integers(1, 900))
        yield Case("cut files", file.name, file.name, lambda f=file, at=at: append_after_cut(f, at))
    own = folder / "ucf-own"
    for label, i in itertools.product(("run", "swim"), range(8)):
        (own / label).mkdir(parents=True, exist_ok=True)
        small_video(own / label / f"{i}.mp4")
    listing = datasets.listing("folder", own)
    out = folder / "manifest"
    manifest, _ = audit(listing, out, workers=1)
    table = (out / "manifest.csv").read_bytes()

    def after_cut(name: str, at: int) -> None:
        whole = (out / name).read_bytes()
        (out / name).write_bytes(whole[:at])
        again, _ = audit(listing, out, workers=1)
        assert again.videos == manifest.videos

    for i in range(count):
        name = ("manifest.csv", "audit.json", "dataset.json")[i % 3]
        at = int(rng.integers((out / name).stat().st_size))
        yield Case("cut files", f"{name} at {at}", "", lambda n=name, at=at: after_cut(n, at))

    def loaded_cut(at: int) -> None:
        own = folder / "cut-manifest"
        replace(manifest, where=own).save()
        (own / "manifest.csv").write_bytes(table[:-at])
        refused(lambda: Manifest.load(own))

    yield Case("cut files", "a manifest by three bytes", "manifest.csv", lambda: loaded_cut(3))
    smoke = Pretrain.from_flat(**PROFILES["smoke"]["pretrain"])
    ids, _ = subsets.subset_files(manifest, smoke.subset)

    def cut_ids() -> None:
        ids.write_text("".join(ids.read_text().splitlines(keepends=True)[:-1]))
        refused(lambda: subsets.load_subset(manifest, ids))

    yield Case("cut files", "training ids by a line", ids.name, cut_ids)

    def cut_statistics() -> None:
        audible = manifest.split("train").only(manifest.with_audio().split("train").videos[:3])
        mel_statistics.mel_statistics(audible, smoke, workers=0)
        (file,) = audible.where.glob("bands-*.json")
        file.write_text(file.read_text()[:-20])
        refused(lambda: mel_statistics.mel_statistics(audible, smoke, workers=0))

    yield Case("cut files", "statistics", "bands-", cut_statistics)

    def cut_features() -> None:
        own = folder / "features"
        with feature_store.FeatureWriter(own, 4, {"video": (2, 3)}, 2) as writer:
            writer.add({"video": torch.ones(4, 2, 3)})
            writer.finish({})
        assert feature_store.whole(own)
        file = own / "video.npy"
        file.write_bytes(file.read_bytes()[:-7])
        assert not feature_store.whole(own)

    yield Case("cut files", "features", "", cut_features)


# ---- lists and names --------------------------------------------------------------------------


def lists(folder: Path, count: int) -> Iterator[Case]:
    """Lists in other encodings, with other things in their place, and names nobody can write."""
    good = "abc,1,dog barking,train\nabd,2,cat,test\n"
    contents = {
        "latin1": "abc,1,chien qui aboie \xe0 c\xf4t\xe9,train\n".encode("latin-1"),
        "utf16": good.encode("utf-16"),
        "binary": bytes(range(256)),
        "NUL": good.replace("dog", "d\0og").encode(),
        "newline": b'abc,1,"dog\nbarking",train\n',
        "long": b"abc,1," + 200_000 * b"x" + b",train\n",
        "label": b"abc,1,,train\nabd,2,cat,test\n",
        "cases": b"abc,1,Dog,train\nabd,2,dog,test\n",
        "parent": b"../../abc,1,dog,train\n",
        "start": "abc,\u00b2,dog,train\n".encode(),
        "columns": b"abc,1,dog\n",
    }
    for name, content in contents.items():
        own = folder / name
        own.mkdir()
        (own / "vggsound.csv").write_bytes(content)
        small_video(own / "abc_000001.mp4")
        yield Case(
            "lists and names", name, name, lambda own=own: refused(lambda: listed("vggsound", own))
        )
    own = folder / "a folder"
    (own / "vggsound.csv").mkdir(parents=True)
    yield Case(
        "lists and names", "a folder", "vggsound.csv",
        lambda own=own: refused(lambda: datasets.listing("vggsound", own)),
    )  # fmt: skip
    stray = folder / "stray"
    stray.mkdir()
    (stray / "vggsound.csv").write_text(good)
    small_video(stray / "abc_000001.mp4")
    os.link(stray / "abc_000001.mp4", os.fsencode(stray) + b"/\xff\xfe.mp4")
    found = datasets.listing
    yield Case(
        "lists and names", "a stray name", "",
        lambda: audit(found("vggsound", stray), folder / "out", workers=1),
    )  # fmt: skip
    for i, pair in enumerate((("A", "a"), ("run", "run "), ("", "b"))[: max(1, count)]):
        own = folder / f"ucf{i}"
        (own / "ucfTrainTestlist").mkdir(parents=True)
        index = own / "ucfTrainTestlist/classInd.txt"
        index.write_text("".join(f"{n} {name}\n" for n, name in enumerate(pair, 1)))
        for name in ("trainlist01.txt", "testlist01.txt"):
            (index.parent / name).write_text("")
        yield Case(
            "lists and names", f"classes {pair}", own.name,
            lambda own=own: refused(lambda: datasets.listing("ucf101", own)),
        )  # fmt: skip


def options(folder: Path, count: int) -> Iterator[Case]:
    """Options of sbatch that change what is run, or where it writes."""
    named = ("wrap", "export", "chdir", "output", "error", "input", "array", "get-user-env", "wra")
    for name in named:
        text = f"partition=gpu --{name}=x"
        yield Case("options of sbatch", name, name, lambda text=text: refused(lambda: asked(text)))


# ---- processes --------------------------------------------------------------------------------

AUDIT = """
import sys
from pathlib import Path
from avnb.data.audit import audit
from avnb.data.datasets import listing
if __name__ == "__main__":
    audit(listing("folder", Path(sys.argv[1])), Path(sys.argv[2]), workers=2)
"""


def of_session(leader: int) -> list[int]:
    """Living processes of the session that a process began."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[3]) == leader and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def killed(folder: Path, count: int) -> Iterator[Case]:
    """An audit killed while it starts its workers leaves nobody."""
    own = folder / "videos"
    for label, i in itertools.product(("run", "swim"), range(20)):
        (own / label).mkdir(parents=True, exist_ok=True)
        small_video(own / label / f"{i}.mp4")

    def kill(after: float, number: int, out: Path) -> None:
        command = [sys.executable, "-c", AUDIT, str(own), str(out)]
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
        process = subprocess.Popen(command, start_new_session=True, **options)
        begin = time.monotonic()
        while len(of_session(process.pid)) < 2 and time.monotonic() < begin + 8:
            time.sleep(0.005)  # until the first child is there
        time.sleep(after)
        process.send_signal(number)
        process.wait()
        end = time.monotonic() + 5
        while (left := of_session(process.pid)) and time.monotonic() < end:
            time.sleep(0.02)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"{len(left)} processes were left"

    for i in range(count):
        after, number = 0.2 * i / max(count - 1, 1), (signal.SIGKILL, signal.SIGTERM)[i % 2]
        out = folder / f"out{i}"
        yield Case(
            "killed at the start", f"{number.name} after {after:.2f} s", "",
            lambda a=after, n=number, out=out: kill(a, n, out),
        )  # fmt: skip


KINDS: dict[str, Callable[..., Iterator[Case]]] = {
    "damaged videos": damaged_videos,
    "videos that lie": lying_videos,
    "not a video": no_media,
    "checkpoints": checkpoints,
    "cut files": cut_state,
    "lists and names": lists,
    "options of sbatch": options,
    "killed at the start": killed,
}


def is_clear(case: Case) -> str:
    """'' when a case ends as it should; what is wrong with it otherwise."""
    try:
        case.call()
    except AssertionError as error:
        return str(error) or "it did not end as it should"
    except (ValueError, OSError) as error:  # ours are ValueErrors
        text = str(error)
        if isinstance(error, json.JSONDecodeError) or case.names not in text or "\n\n" in text:
            return f"{type(error).__name__}: {text}"
    return ""
