"""Archives and the record of a download; prepared corpora: shards, their examples and their index."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from farfeel.download.archives import unpack, unpacked_bytes
from farfeel.download.record import RECORD, Record
from farfeel.shards.reading import clips_of, examples_of, require_prepared_for
from farfeel.shards.store import INDEX, Example, Shards, write_index, write_shard
from farfeel.types import EMOTIONS

from .checkpoints import small
from .damaging import Reader, damaged, damaged_table, damaged_tree

TOKENS = [
    b"../", b"PK\x01\x02", b"PK\x05\x06", b"\xff" * 8, b"path=" + b"x" * 300, b"0000000", b"77777777777", b"ustar",
    b"L", b"x", b"2", b"S",
]  # fmt: skip
RATE = 16000


def readers(folder: Path) -> list[Reader]:
    """All readers of this group; `folder` is for what they need."""
    archives = {".zip": _zipped(), **{f".tar{suffix}": _tarred(mode) for suffix, mode in TARS.items()}}
    record = _record()
    shard, index, facts = _shards(folder)
    held = pq.read_table(io.BytesIO(index))
    parts = _members(shard)

    def record_of(rng: random.Random) -> bytes:
        return json.dumps(damaged_tree(rng, record)).encode("utf-8", "replace")

    def members(rng: random.Random) -> bytes:
        """A shard of which one part is another: its checksums are right."""
        changed = dict(parts)
        name = rng.choice(sorted(parts))
        if name.endswith(".json") and rng.random() < 0.8:
            changed[name] = json.dumps(damaged_tree(rng, json.loads(parts[name]))).encode("utf-8", "replace")
        else:
            changed[name] = damaged(rng, [parts[name]], [b"fLaC", b"(99999999, 9999, 3)", b"|O", b"<f8"])
        return _tar_of(changed)

    return [
        *[
            Reader(
                f"archive {suffix}",
                lambda rng, content=content: damaged(rng, [content], TOKENS),
                lambda c, f, suffix=suffix: _unpack(c, suffix, f),
            )
            for suffix, content in archives.items()
        ],
        Reader(
            "record of a download", lambda rng: damaged(rng, [json.dumps(record).encode()], [b"[" * 2000]), _read_record
        ),
        Reader("record with other values", record_of, _read_record),
        Reader("index of shards", lambda rng: damaged(rng, [index]), lambda c, f: _open(shard, c, f)),
        Reader("index with other values", lambda rng: damaged_table(rng, held), lambda c, f: _open(shard, c, f)),
        Reader("shard", lambda rng: damaged(rng, [shard], TOKENS), lambda c, f: _open(c, index, f)),
        Reader(
            "shard that is indexed again", lambda rng: damaged(rng, [shard], TOKENS), lambda c, f: _index(c, facts, f)
        ),
        Reader("shard with other parts", members, lambda c, f: _index(c, facts, f)),
    ]


TARS = {"": "w", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}


def _files() -> dict[str, bytes]:
    noise = random.Random(1).randbytes(3000)
    return {"a/one.wav": noise, "a/two.wav": bytes(2000), "a/ä" + "long" * 40 + ".wav": noise[:100], "b.txt": b"text"}


def _zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in _files().items():
            archive.writestr(name, content)
    return stream.getvalue()


def _tarred(mode: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in _files().items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _unpack(content: bytes, suffix: str, folder: Path) -> None:
    (folder / f"archive{suffix}").write_bytes(content)
    unpacked_bytes(folder / f"archive{suffix}")
    (folder / "out" / "inside").mkdir(parents=True)
    unpack(folder / f"archive{suffix}", folder / "out" / "inside")
    assert {entry.name for entry in folder.iterdir()} == {f"archive{suffix}", "out"}
    assert {entry.name for entry in (folder / "out").iterdir()} == {"inside"}


def _record() -> dict[str, Any]:
    files = {"a.wav": [3, 12345], "b.wav": [4, None]}
    return {
        "version": 1,
        "source": "ravdess",
        "complete": {"all": ["x.zip"]},
        "pointers": {"0" * 40: ["0" * 64, 3]},
        "held": {"x.zip": {"checksum": "md5:" + "0" * 32, "etag": '"e"', "files": files}},
    }


def _read_record(content: bytes, folder: Path) -> None:
    (folder / RECORD).write_bytes(content)
    record = Record.read(folder, "ravdess")
    for name in record.held:
        record.is_intact(name)
    record.verify(lambda done, total: None)


def _shards(folder: Path) -> tuple[bytes, bytes, dict[str, Any]]:
    rng = np.random.default_rng(1)
    place = folder / "shards"
    place.mkdir()

    def examples() -> Any:
        for k in range(3):
            about = {"key": f"clip-{k}", "clip": f"clip {k}", "corpus": "synthetic", "speaker": f"s{k}", "rendering": 0}
            about |= {"emotion": EMOTIONS[k], "sentence": "", "intensity": "", "room": "", "position": ""}
            frames = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
            audio = rng.standard_normal((2, 800)).astype(np.float32)
            yield about, Example(audio, frames, np.arange(4) / 10, 0.0, 0.4) if k else Example(audio)

    video = small().video.model_dump(mode="json")
    facts = {"sample_rate": RATE, "mics": 2, "seconds": 1.28, "video": {name: video[name] for name in video}}
    write_shard(place / "shard-00000.tar", examples(), RATE)
    write_index(place, [place / "shard-00000.tar"], facts)
    return (place / "shard-00000.tar").read_bytes(), (place / INDEX).read_bytes(), facts


def _members(shard: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(shard)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def _tar_of(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _open(shard: bytes, index: bytes, folder: Path) -> None:
    (folder / "shard-00000.tar").write_bytes(shard)
    (folder / INDEX).write_bytes(index)
    shards = Shards.open(folder)
    require_prepared_for(shards, small().model_copy(update={"modalities": "both"}), to_train=False)
    examples_of(shards, clips_of(shards))
    shards.verify()
    for number in range(min(len(shards), 8)):
        shards[number]


def _index(shard: bytes, facts: dict[str, Any], folder: Path) -> None:
    (folder / "written").mkdir()
    (folder / "written" / "shard-00000.tar").write_bytes(shard)
    write_index(folder / "written", [folder / "written" / "shard-00000.tar"], facts)
    (folder / "read").mkdir()
    _open(shard, (folder / "written" / INDEX).read_bytes(), folder / "read")
    shutil.rmtree(folder / "written")
