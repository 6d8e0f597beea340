"""Prepared corpora: clips as microphones recorded them, in tar shards with an index.

    shard-00000.tar …   WebDataset's convention: <key>.flac (M channels), <key>.face.npy (N, S, S, 3) uint8 where there
                        is video, <key>.json (clip, room, position, gain, the times of the frames)
    index.parquet       one row per example, with the offsets of its parts in the shard; shard names, sizes and SHA-256
    parameters.json     what they were made from

The index makes a shard readable at any example, from a disk or from a bucket (any URL that fsspec knows), so that
training draws its order as from files, and resumes likewise. It is written last: a folder without it is unfinished.
Nothing here is pickled. Other software reads the shards without the index, one after the other.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from fsspec.core import url_to_fs

from farfeel.support.files import replacing_file
from farfeel.support.reading import damage, npy_array, read_json, read_parquet, require_fields
from farfeel.support.text import one_line
from farfeel.types import EMOTIONS, FarfeelError

VERSION = 1
INDEX, PARAMETERS, PATTERN = "index.parquet", "parameters.json", "shard-*.tar"
METADATA = b"farfeel"
PEAK = 0.9  # of full scale: FLAC holds integers
MOST_CHANNELS = 8  # of FLAC
HIGHEST_RATE = 1_000_000  # Hz
LONGEST_S = 24 * 3600.0  # of an example
MOST_ROWS, MOST_BYTES = 20_000_000, 1 << 33  # of an index that is read
ALWAYS = ("key", "clip", "corpus", "speaker", "emotion", "room", "rendering", "shard", "json_at")  # never empty
AGAIN = "prepare it again"
READ_BYTES = 1 << 22
CONNECTIONS = 8
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("clip", pa.string()),
        ("corpus", pa.string()),
        ("speaker", pa.string()),
        ("emotion", pa.string()),
        ("sentence", pa.string()),
        ("intensity", pa.string()),
        ("room", pa.string()),
        ("position", pa.string()),
        ("rendering", pa.int32()),
        ("seconds", pa.float64()),
        ("shard", pa.string()),
        *[
            (f"{part}_{what}", kind)
            for part in ("audio", "face", "json")
            for what, kind in (("at", pa.int64()), ("bytes", pa.int64()), ("crc", pa.int64()))
        ],
    ]
)
SUFFIXES = {".flac": "audio", ".face.npy": "face", ".json": "json"}


@dataclass(frozen=True)
class Example:
    """A clip as it was recorded: audio (M, T) float32, None where there is no audio; and the video's frames
    (N, S, S, 3) uint8 at `at_s`, which show the span from begin_s to end_s, None where there is no video."""

    audio: np.ndarray | None
    frames: np.ndarray | None = None
    at_s: np.ndarray | None = None
    begin_s: float = 0.0
    end_s: float = 0.0


def is_prepared(address: str) -> bool:
    """Whether shards are at `address`: a URL, or a folder with an index or with shards."""
    return "://" in address or (Path(address) / INDEX).exists() or any(Path(address).glob(PATTERN))


class Shards:
    """A prepared corpus. rows: one per example, with the columns of SCHEMA. facts: what the index holds about all."""

    def __init__(self, address: str, files: fsspec.AbstractFileSystem, folder: str, table: pa.Table) -> None:
        self.address, self._files, self._folder = address, files, folder
        with damage(lambda reason: f"{address}/{INDEX} is damaged or no index ({reason}); {AGAIN}"):
            self.facts: dict[str, Any] = _facts(table)
            self.rows: list[dict[str, Any]] = table.to_pylist()
            for row in self.rows:
                _require_whole(row)
        self.sample_rate, self.mics = int(self.facts["sample_rate"]), int(self.facts["mics"])

    @classmethod
    def open(cls, address: str | Path) -> Shards:
        """A folder or a URL (s3://…, gs://…, hf://…) → Shards. Raises FarfeelError with one line where it is none, is
        unfinished, of another version, or cannot be reached."""
        address = str(address)
        with _reaching(address):
            files, folder = url_to_fs(address)
            if not files.exists(f"{folder}/{INDEX}"):
                started = files.exists(f"{folder}/{PARAMETERS}")
                found = "is not finished: it has no index" if started else f"has no {INDEX}"
                remedy = "run the same farfeel prepare again" if started else "make one with farfeel prepare"
                raise FarfeelError(f"{address} {found}; expected a prepared corpus; {remedy}")
            held = files.cat_file(f"{folder}/{INDEX}")
        with damage(lambda reason: f"{address}/{INDEX} is damaged or no index ({reason}); {AGAIN}"):
            table = read_parquet(io.BytesIO(held), MOST_ROWS, MOST_BYTES)
            facts = require_fields(read_json((table.schema.metadata or {})[METADATA]), {})
        if facts.get("version") != VERSION:
            raise FarfeelError(f"{address} has version {facts.get('version')}, expected {VERSION}; {AGAIN}")
        if table.schema.remove_metadata() != SCHEMA:
            raise FarfeelError(f"{address}/{INDEX} has other columns than version {VERSION}; {AGAIN}")
        if unknown := sorted({str(emotion) for emotion in table["emotion"].unique().to_pylist()} - set(EMOTIONS)):
            raise FarfeelError(f"{address} holds the emotions {', '.join(unknown[:8])}; expected farfeel's; {AGAIN}")
        return cls(address, files, folder, table)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        """The example, decoded. Raises FarfeelError that names the shard where its bytes are not those written."""
        row = self.rows[index]
        with damage(lambda reason: str(self._damaged(row, f"{row['key']}: {reason}"))):
            about = require_fields(read_json(self._part(row, "json")), {})
            audio = None
            if row["audio_at"] is not None:
                gain = require_fields(about, {"gain": (int, float)})["gain"]
                if not 0 < gain < math.inf:
                    raise ValueError(f"gain {gain}")
                audio = _decoded(self._part(row, "audio"), row["seconds"]) / np.float32(gain)
            if row["face_at"] is None:
                return Example(audio)
            require_fields(about, {"face_at_s": list, "face_begin_s": (int, float), "face_end_s": (int, float)})
            frames, at_s = npy_array(self._part(row, "face")), np.array(about["face_at_s"], dtype=float)
            if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or len(frames) != len(at_s):
                raise ValueError(f"frames of {frames.dtype} and shape {frames.shape} at {at_s.size} times")
            if not np.isfinite([about["face_begin_s"], about["face_end_s"], *at_s]).all():
                raise ValueError("a time that is not finite")
            return Example(audio, frames, at_s, about["face_begin_s"], about["face_end_s"])

    def verify(self, on_progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Read every shard whole; a line for each that is not what was written. Empty: all are."""
        faults: list[str] = []
        shards = self.facts["shards"]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for done, fault in enumerate(pool.map(self._fault, shards), start=1):
                faults += [fault] if fault else []
                if on_progress:
                    on_progress(done, len(shards))
        return faults

    def _fault(self, shard: dict[str, Any]) -> str | None:
        path = f"{self._folder}/{shard['name']}"
        digest, size = hashlib.sha256(), 0
        try:
            with _reaching(f"{self.address}/{shard['name']}"), self._files.open(path, "rb") as stream:
                while block := stream.read(READ_BYTES):
                    digest.update(block)
                    size += len(block)
        except FarfeelError as error:
            return str(error)
        if size != shard["bytes"]:
            return f"{self.address}/{shard['name']} has {size} bytes, expected {shard['bytes']}; {AGAIN}"
        if digest.hexdigest() != shard["sha256"]:
            return f"{self.address}/{shard['name']} has other bytes than were written; delete it and {AGAIN}"
        return None

    def _part(self, row: dict[str, Any], part: str) -> bytes:
        start, size = row[f"{part}_at"], row[f"{part}_bytes"]
        with _reaching(f"{self.address}/{row['shard']}"):
            held: bytes = self._files.cat_file(f"{self._folder}/{row['shard']}", start=start, end=start + size)
        if len(held) != size or zlib.crc32(held) != row[f"{part}_crc"]:
            raise self._damaged(row, f"{part} of {row['key']}")
        return held

    def _damaged(self, row: dict[str, Any], what: str) -> FarfeelError:
        return FarfeelError(
            f"{self.address}/{row['shard']} is damaged ({what}); farfeel prepare --verify lists all damage; {AGAIN}"
        )


def write_shard(path: Path, examples: Iterator[tuple[dict[str, Any], Example]], sample_rate: int) -> None:
    """Examples, each with what its JSON says (`key` and the clip's columns of SCHEMA), → a tar, whole or not at all.
    The same examples give the same bytes."""
    with replacing_file(path) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for about, example in examples:
            facts = about
            if example.audio is not None:
                flac, gain = _flac(example.audio, sample_rate)
                facts = facts | {"gain": gain, "seconds": example.audio.shape[1] / sample_rate}
                _add(tar, about["key"] + ".flac", flac)
            if example.frames is not None and example.at_s is not None:
                pixels = io.BytesIO()
                np.lib.format.write_array(pixels, example.frames, allow_pickle=False)
                _add(tar, about["key"] + ".face.npy", pixels.getvalue())
                facts = facts | {"face_at_s": example.at_s.tolist()}
                facts = facts | {"face_begin_s": example.begin_s, "face_end_s": example.end_s}
            _add(tar, about["key"] + ".json", json.dumps(facts, sort_keys=True).encode())


def write_index(folder: Path, shards: Sequence[Path], facts: dict[str, Any]) -> None:
    """Read what the shards hold and where; put the index beside them."""
    rows: list[dict[str, Any]] = []
    written = []
    for shard in shards:
        held = shard.read_bytes()
        written.append({"name": shard.name, "bytes": len(held), "sha256": hashlib.sha256(held).hexdigest()})
        rows += _rows(shard.name, held)
    keys = [row.get("key") for row in rows]
    if len(set(keys)) < len(keys):
        raise ValueError("two examples have one key")
    facts_json = json.dumps({"version": VERSION, **facts, "shards": written}, sort_keys=True)
    with damage(lambda reason: f"{folder} holds a shard that is damaged ({reason}); delete its shards and {AGAIN}"):
        table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({METADATA: facts_json.encode()}))
    with replacing_file(folder / INDEX) as partial:
        pq.write_table(table, partial)


def _rows(name: str, held: bytes) -> list[dict[str, Any]]:
    """The members of a tar as rows, one for each example. Raises FarfeelError where the tar is damaged."""
    rows: dict[str, dict[str, Any]] = {}
    with (
        damage(lambda reason: f"{name} is damaged ({reason}), expected a shard; delete it and {AGAIN}"),
        tarfile.open(fileobj=io.BytesIO(held), mode="r:") as tar,
    ):
        for member in tar:
            key, _, suffix = member.name.partition(".")
            part, payload = SUFFIXES[f".{suffix}"], held[member.offset_data : member.offset_data + member.size]
            if len(payload) != member.size:
                raise ValueError(f"{member.name} is cut off")
            row = rows.setdefault(key, {"shard": name})
            row |= {f"{part}_at": member.offset_data, f"{part}_bytes": member.size, f"{part}_crc": zlib.crc32(payload)}
            if part == "json":
                about = require_fields(read_json(payload), {"key": str})
                row |= {column: value for column, value in about.items() if column in SCHEMA.names}
        for key, row in rows.items():
            if row.get("key") != key:
                raise ValueError(f"{key} has no description")
    return list(rows.values())


def _facts(table: pa.Table) -> dict[str, Any]:
    """What an index says of all its examples. Raises ValueError or KeyError where it does not say it."""
    facts = require_fields(
        read_json(table.schema.metadata[METADATA]), {"sample_rate": int, "mics": int, "shards": list}
    )
    if not 1 <= facts["sample_rate"] <= HIGHEST_RATE or not 1 <= facts["mics"] <= MOST_CHANNELS:
        raise ValueError(f"{facts['sample_rate']} Hz, {facts['mics']} microphones")
    if facts["video"] is not None:
        require_fields(facts["video"], dict.fromkeys(("size", "frames", "crop", "margin"), object))
    for shard in facts["shards"]:
        require_fields(shard, {"name": str, "bytes": int, "sha256": str})
        _require_shard(shard["name"])
    return facts


def _require_whole(row: dict[str, Any]) -> None:
    """Raise ValueError where a row of the index lacks what every example has."""
    if lacking := [name for name in ALWAYS if row[name] is None]:
        raise ValueError(f"an example without {', '.join(lacking)}")
    _require_shard(row["shard"])
    for part in ("audio", "face", "json"):
        where = [row[f"{part}_{what}"] for what in ("at", "bytes", "crc")]
        if (None in where and where != [None] * 3) or any(value is not None and value < 0 for value in where):
            raise ValueError(f"{row['key']} without a position of its {part}")
    if row["audio_at"] is not None and not 0 < (row["seconds"] or 0.0) <= LONGEST_S:
        raise ValueError(f"{row['key']} of {row['seconds']} s")


def _require_shard(name: str) -> None:
    """Raise ValueError where a name would lead out of the folder."""
    if not fnmatch(name, PATTERN) or "/" in name or "\\" in name:
        raise ValueError(f"a shard with the name {name[:60]!r}")


def _decoded(flac: bytes, seconds: float) -> np.ndarray:
    """(M, T) float32. At most so many seconds are decoded: a few bytes of FLAC can stand for hours of silence."""
    with soundfile.SoundFile(io.BytesIO(flac)) as file:
        samples = round(seconds * file.samplerate)
        sound = file.read(samples + 1, dtype="float32", always_2d=True)
    if len(sound) != samples:
        raise ValueError(f"{len(sound)} samples, expected {samples}")
    return np.ascontiguousarray(sound.T)


def _flac(audio: np.ndarray, sample_rate: int) -> tuple[bytes, float]:
    """(M, T) → FLAC of 16 bits, and the gain that made its peak PEAK."""
    peak = float(np.abs(audio).max())
    gain = PEAK / peak if peak > 0 else 1.0
    stream = io.BytesIO()
    soundfile.write(stream, audio.T * np.float32(gain), sample_rate, format="FLAC", subtype="PCM_16")
    return stream.getvalue(), gain


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time, no owner: the same examples give the same bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """Errors of a disk or a bucket become FarfeelError with one line."""
    try:
        yield
    except FarfeelError:
        raise
    except ImportError as error:
        raise FarfeelError(f"{address} needs a package that is not installed ({error}); install it") from None
    except PermissionError as error:
        raise FarfeelError(f"{address} may not be read ({one_line(error, 120)}); check the access rights") from None
    except FileNotFoundError:
        raise FarfeelError(f"{address} does not exist; expected a prepared corpus; correct the address") from None
    except Exception as error:  # Each file system has its own errors.
        raise FarfeelError(
            f"{address} cannot be read ({type(error).__name__}: {one_line(error, 120)}); try again, or correct the "
            "address"
        ) from None
