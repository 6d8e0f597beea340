"""The tables that FER2013 is published as → a folder of stills, for `farfeel.corpora.readers.stills`.

`unpack` reads either of

- Parquet with the columns jpeg (bytes), emotion (name) and split;
- FER2013's CSV: emotion (0 angry, 1 disgust, 2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral), pixels (2304 greys, row by
  row) and Usage (Training, PublicTest or PrivateTest).
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq

from farfeel.corpora.readers.stills import EMOTION_OF, SPLIT_OF, SPLITS
from farfeel.support.console import quiet_libraries
from farfeel.support.files import replacing_folder, require_replaceable
from farfeel.support.reading import damage, read_json, require_fields
from farfeel.types import EMOTIONS, FarfeelError

SIDE = 48  # pixels, of FER2013
_MARKER = "stills.json"  # what a folder was unpacked from
_CSV_EMOTIONS = ("angry", "disgust", "fearful", "happy", "sad", "surprised", "neutral")
_CSV_CODES = tuple(str(code) for code in range(len(_CSV_EMOTIONS)))
_ROWS = 1000  # read at once
_MOST_BYTES = 1 << 30  # of so many rows


@dataclass(frozen=True)
class Unpacked:
    """What a table held.

    stills: split → emotion → number of pictures. bad: rows left out, and why. copies: split → number of pictures that
    are, byte for byte, also training pictures.
    """

    stills: dict[str, dict[str, int]]
    bad: tuple[str, ...]
    copies: dict[str, int]


def unpack(table: Path, out: Path, progress: Callable[[int, int], None] | None = None) -> Unpacked:
    """A table of stills → the folder `out`, split / emotion / row number. Pictures are written byte for byte.

    The folder appears when it is complete. A folder that was made from the same table is kept. progress: called with
    the number of rows done and of all rows. Rows that are not usable are left out and named in the result. Raises
    FarfeelError where `table` has neither of the two forms, or where `out` holds other files.
    """
    table, out = Path(table), Path(out)
    if not table.is_file():
        raise FarfeelError(f"{table} does not exist; expected FER2013's Parquet or CSV table; check the path")
    with table.open("rb") as file:
        made_from = {"version": 1, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    if kept := _read_marker(out, made_from):
        return kept
    # Without the marker, train/ may be the user's own folder.
    ours = (_MARKER, *SPLITS) if (out / _MARKER).exists() else ()
    require_replaceable(out, ours, "an unpacked table of stills")
    count, rows = _rows(table)
    stills: dict[str, Counter[str]] = defaultdict(Counter)
    digests: dict[str, list[bytes]] = defaultdict(list)
    bad: list[str] = []
    with replacing_folder(out) as partial:
        for number, (split, emotion, picture, suffix) in enumerate(rows):
            fault = _fault(split, emotion, picture)
            if fault:
                bad.append(f"row {number} ({fault})")
            else:
                folder, emotion = SPLIT_OF[split.lower()], EMOTION_OF[emotion.lower()]
                still = partial / folder / emotion / f"{number:06d}{suffix}"
                still.parent.mkdir(parents=True, exist_ok=True)
                still.write_bytes(picture)
                stills[folder][emotion] += 1
                digests[folder].append(hashlib.sha256(picture).digest())
            if progress and (number % 100 == 99 or number + 1 == count):
                progress(number + 1, count)
        if not stills:
            raise FarfeelError(f"{table} holds no usable still ({count} rows: {', '.join(bad[:3])}); check the table")
        of_training = set(digests["train"])
        copies = {split: sum(digest in of_training for digest in digests[split]) for split in SPLITS[1:]}
        unpacked = Unpacked(
            {
                split: {name: stills[split][name] for name in EMOTIONS if name in stills[split]}
                for split in SPLITS
                if split in stills
            },
            tuple(bad),
            {split: number for split, number in copies.items() if number},
        )
        (partial / _MARKER).write_text(json.dumps(made_from | asdict(unpacked)), encoding="utf-8")
    return unpacked


def _read_marker(out: Path, made_from: dict[str, object]) -> Unpacked | None:
    """What a folder holds, where it was made from the same table and is still complete; else None."""
    try:
        facts = require_fields(
            read_json((out / _MARKER).read_text(encoding="utf-8")), {"stills": dict, "bad": list, "copies": dict}
        )
        counts = {
            split: {emotion: int(count) for emotion, count in emotions.items()}
            for split, emotions in facts["stills"].items()
        }
        copies = {split: int(count) for split, count in facts["copies"].items()}
    except (OSError, ValueError, TypeError, AttributeError):  # Another program's file: the folder is not ours.
        return None
    if any(facts.get(name) != value for name, value in made_from.items()):
        return None
    if set(counts) - set(SPLITS) or any(set(emotions) - set(EMOTIONS) for emotions in counts.values()):
        return None
    for split, emotions in counts.items():
        for emotion, count in emotions.items():
            if len(list((out / split / emotion).glob("*.*"))) != count:
                return None
    return Unpacked(counts, tuple(map(str, facts["bad"])), copies)


Row = tuple[str, str, bytes, str]
"""Split, emotion, the picture's bytes, the suffix of its file."""


def _rows(table: Path) -> tuple[int, Iterator[Row]]:
    """Number of rows, and the rows. A part of a row that cannot be read is empty."""
    with table.open("rb") as beginning:
        is_parquet = beginning.read(4) == b"PAR1"
    with _damage(table):
        if is_parquet:
            parquet = pq.ParquetFile(table)
            _require_columns(table, parquet.schema_arrow.names, ("jpeg", "emotion", "split"))
            return parquet.metadata.num_rows, _parquet_rows(table, parquet)
        with table.open(encoding="utf-8", newline="") as file:
            columns = next(csv.reader(file), [])
        _require_columns(table, columns, ("emotion", "pixels", "Usage"))
    with table.open("rb") as lines:
        count = sum(bool(line.strip()) for line in lines) - 1
    return count, _csv_rows(table)


def _require_columns(table: Path, columns: list[str], expected: tuple[str, ...]) -> None:
    if lacking := [name for name in expected if name not in columns]:
        raise FarfeelError(
            f"{table} lacks the columns {', '.join(lacking)}; expected {', '.join(expected)}; found "
            f"{', '.join(columns[:5]) or 'nothing'}; rename them or choose another table"
        )


def _damage(table: Path) -> AbstractContextManager[None]:
    message = f"{table} cannot be read as Parquet or CSV"
    return damage(lambda reason: f"{message} ({reason}); expected FER2013's table; copy it again")


def _parquet_rows(table: Path, parquet: pq.ParquetFile) -> Iterator[Row]:
    batches = parquet.iter_batches(_ROWS, columns=["split", "emotion", "jpeg"], use_threads=False)
    while True:
        with _damage(table):
            batch = next(batches, None)
            if batch is None:
                return
            batch.validate(full=True)
            if batch.nbytes > _MOST_BYTES:
                raise ValueError(f"{_ROWS} rows of {batch.nbytes} bytes")
            rows = batch.to_pylist()
        for row in rows:
            picture = row["jpeg"] if isinstance(row["jpeg"], bytes) else b""
            yield str(row["split"]), str(row["emotion"]), picture, ".png" if picture[1:4] == b"PNG" else ".jpg"


def _csv_rows(table: Path) -> Iterator[Row]:
    with table.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        while True:
            with _damage(table):
                row = next(rows, None)
            if row is None:
                return
            usage, code, pixels = (row[name] or "" for name in ("Usage", "emotion", "pixels"))
            emotion = _CSV_EMOTIONS[int(code)] if code in _CSV_CODES else code
            yield usage, emotion, _png(pixels), ".png"


def _png(pixels: str) -> bytes:
    """Space-separated grey values → PNG; no bytes where they are not 48×48 values from 0 to 255."""
    try:
        greys = np.array(pixels.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        return b""
    if greys.size != SIDE * SIDE or greys.min() < 0 or greys.max() > 255:
        return b""
    return cv2.imencode(".png", greys.reshape(SIDE, SIDE).astype(np.uint8))[1].tobytes()


def _fault(split: str, emotion: str, picture: bytes) -> str:
    """Why a row is left out; "" where it is usable."""
    if split.lower() not in SPLIT_OF:
        return f"unknown split {split!r}"
    if emotion.lower() not in EMOTION_OF:
        return f"unknown emotion {emotion!r}"
    if not picture or not _decodes(picture):
        return "undecodable picture"
    return ""


def _decodes(picture: bytes) -> bool:
    try:
        with quiet_libraries():
            return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE) is not None
    except cv2.error:  # of a picture whose header states more than OpenCV decodes
        return False
