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
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from fsspec.core import url_to_fs

from farfeel.support.files import replacing_file
from farfeel.support.text import one_line
from farfeel.types import EMOTIONS, FarfeelError

VERSION = 1
INDEX, PARAMETERS, PATTERN = "index.parquet", "parameters.json", "shard-*.tar"
METADATA = b"farfeel"
PEAK = 0.9  # of full scale: FLAC holds integers
MOST_CHANNELS = 8  # of FLAC
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
        self.facts: dict[str, Any] = json.loads(table.schema.metadata[METADATA])
        self.rows: list[dict[str, Any]] = table.to_pylist()
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
        try:
            table = pq.read_table(io.BytesIO(held))
            facts = json.loads((table.schema.metadata or {})[METADATA])
        except (pa.ArrowException, KeyError, ValueError) as error:
            reason = one_line(error, 80)
            raise FarfeelError(f"{address}/{INDEX} is damaged or no index ({reason}); {AGAIN}") from None
        if facts.get("version") != VERSION:
            raise FarfeelError(f"{address} has version {facts.get('version')}, expected {VERSION}; {AGAIN}")
        if table.schema.remove_metadata() != SCHEMA:
            raise FarfeelError(f"{address}/{INDEX} has other columns than version {VERSION}; {AGAIN}")
        if unknown := sorted(set(table["emotion"].to_pylist()) - set(EMOTIONS)):
            raise FarfeelError(f"{address} holds the emotions {', '.join(unknown)}; expected farfeel's; {AGAIN}")
        return cls(address, files, folder, table)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        """The example, decoded. Raises FarfeelError that names the shard where its bytes are not those written."""
        row = self.rows[index]
        about = json.loads(self._part(row, "json"))
        audio = None
        if row["audio_at"] is not None:
            samples, _ = soundfile.read(io.BytesIO(self._part(row, "audio")), dtype="float32", always_2d=True)
            audio = np.ascontiguousarray(samples.T) / np.float32(about["gain"])
        if row["face_at"] is None:
            return Example(audio)
        frames = np.load(io.BytesIO(self._part(row, "face")), allow_pickle=False)
        return Example(audio, frames, np.array(about["face_at_s"]), about["face_begin_s"], about["face_end_s"])

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
    keys = [row["key"] for row in rows]
    if len(set(keys)) < len(keys):
        raise ValueError("two examples have one key")
    facts_json = json.dumps({"version": VERSION, **facts, "shards": written}, sort_keys=True)
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({METADATA: facts_json.encode()}))
    with replacing_file(folder / INDEX) as partial:
        pq.write_table(table, partial)


def _rows(name: str, held: bytes) -> list[dict[str, Any]]:
    """The members of a tar as rows, one for each example."""
    rows: dict[str, dict[str, Any]] = {}
    with tarfile.open(fileobj=io.BytesIO(held)) as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            part, payload = SUFFIXES[f".{suffix}"], held[member.offset_data : member.offset_data + member.size]
            row = rows.setdefault(key, {"shard": name})
            row |= {f"{part}_at": member.offset_data, f"{part}_bytes": member.size, f"{part}_crc": zlib.crc32(payload)}
            if part == "json":
                row |= {column: value for column, value in json.loads(payload).items() if column in SCHEMA.names}
    return list(rows.values())


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
