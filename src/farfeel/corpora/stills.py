"""Stills: folders of pictures of faces with their emotions, and the tables that FER2013 is published as.

FER2013 (https://www.kaggle.com/competitions/challenges-in-representation-learning-facial-expression-recognition-challenge)
is 48×48 grey faces found by an image search: 28,709 for training, 3,589 "public test" (validation) and 3,589 "private
test" (test), 7 emotions. Licence: research use. Citation: Goodfellow et al. (2013), Challenges in Representation
Learning: A Report on Three Machine Learning Contests, ICONIP.

A folder holds split / emotion / name: train/happy/000123.jpg. Splits and emotions may have FER2013's own names, or
those of the many copies of it. `unpack` makes such a folder of a table, which is either of

- Parquet with the columns jpeg (bytes), emotion (name) and split;
- FER2013's CSV: emotion (0 angry, 1 disgust, 2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral), pixels (2304 greys, row by
  row) and Usage (Training, PublicTest or PrivateTest).

Who is seen is not known. Every still counts as a speaker of its own, and the split is the published one (`published`):
the same person, even the same picture, can be on both sides of it. `unpack` counts the latter.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from farfeel.corpora.corpus import Corpus
from farfeel.support.files import replacing_folder, require_only
from farfeel.support.text import one_line
from farfeel.types import EMOTIONS, Clip, FarfeelError

SPLITS = ("train", "validation", "test")
SIDE = 48  # pixels, of FER2013
_MARKER = "stills.json"  # What a folder was unpacked from.
_SUFFIXES = (".jpg", ".jpeg", ".png")
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "publictest"),
    "test": ("test", "testing", "privatetest"),
}
_EMOTION_NAMES = {
    "happy": ("happiness",),
    "sad": ("sadness",),
    "angry": ("anger",),
    "fearful": ("fear",),
    "disgust": ("disgusted",),
    "surprised": ("surprise",),
}
_SPLIT_OF = {name: split for split, names in _SPLIT_NAMES.items() for name in names}
_EMOTION_OF = {name: emotion for emotion in EMOTIONS for name in (emotion, *_EMOTION_NAMES.get(emotion, ()))}
_CSV_EMOTIONS = ("angry", "disgust", "fearful", "happy", "sad", "surprised", "neutral")
_CSV_CODES = tuple(str(code) for code in range(len(_CSV_EMOTIONS)))
_ROWS = 1000  # read at once


def _decode(path: Path) -> Clip | str | None:
    split = _SPLIT_OF.get(path.parent.parent.name.lower())
    if split is None or path.suffix.lower() not in _SUFFIXES:
        return None
    emotion = _EMOTION_OF.get(path.parent.name.lower())
    if emotion is None:
        return f"stills in a folder {path.parent.name}"
    return Clip(
        id=f"{split}/{emotion}/{path.stem}",
        corpus="stills",
        speaker=f"{split}-{emotion}-{path.stem}",  # A name alone may be there once in each emotion's folder.
        emotion=emotion,
        audio=None,
        video=path,
        face="whole",
    )


STILLS = Corpus(
    name="stills",
    title="stills of faces",
    source="https://www.kaggle.com/datasets/msambare/fer2013",
    citation=(
        "Goodfellow IJ et al. (2013). Challenges in Representation Learning: A Report on Three Machine Learning "
        "Contests. Proc. ICONIP 2013"
    ),
    licence="that of the pictures; FER2013: research use",
    emotions=EMOTIONS,
    example="train/happy/000123.jpg",
    decode=_decode,
)


@dataclass(frozen=True)
class Unpacked:
    """What a table held. stills: split → emotion → pictures. bad: rows left out, and why. copies: split → pictures
    whose bytes are also those of a training picture."""

    stills: dict[str, dict[str, int]]
    bad: tuple[str, ...]
    copies: dict[str, int]


def unpack(table: Path, out: Path, progress: Callable[[int, int], None] | None = None) -> Unpacked:
    """A table of stills → the folder `out`, split / emotion / row number; a picture's bytes are written as they are.

    The folder appears when it is whole; one already made from the same table is kept. `progress` is called with rows
    done and rows in all. Raises FarfeelError where `table` is neither of the two forms, or where `out` holds other
    files. Rows that are not usable are left out and named in the result.
    """
    table, out = Path(table), Path(out)
    if not table.is_file():
        raise FarfeelError(f"{table} does not exist; expected FER2013's Parquet or CSV table; check the path")
    with table.open("rb") as file:
        made_from = {"version": 1, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    if kept := _read_marker(out, made_from):
        return kept
    ours = (_MARKER, *SPLITS) if (out / _MARKER).exists() else ()  # Without it, train/ is someone's own.
    require_only(out, ours, "an unpacked table of stills")
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
                place = partial / _SPLIT_OF[split.lower()] / _EMOTION_OF[emotion.lower()] / f"{number:06d}{suffix}"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(picture)
                stills[place.parts[-3]][place.parts[-2]] += 1
                digests[place.parts[-3]].append(hashlib.sha256(picture).digest())
            if progress and (number % 100 == 99 or number + 1 == count):
                progress(number + 1, count)
        if not stills:
            raise FarfeelError(f"{table} holds no usable still ({count} rows: {', '.join(bad[:3])}); check the table")
        seen = set(digests["train"])
        copies = {split: sum(digest in seen for digest in digests[split]) for split in SPLITS[1:]}
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
    """What a folder was made with, where it was made from the same table and is still whole."""
    try:
        facts = json.loads((out / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if any(facts.get(name) != value for name, value in made_from.items()):
        return None
    unpacked = Unpacked(facts["stills"], tuple(facts["bad"]), facts["copies"])
    for split, emotions in unpacked.stills.items():
        for emotion, count in emotions.items():
            if len(list((out / split / emotion).glob("*.*"))) != count:
                return None
    return unpacked


Row = tuple[str, str, bytes, str]
"""Split, emotion, the picture's bytes, the suffix of its file."""


def _rows(table: Path) -> tuple[int, Iterator[Row]]:
    """Number of rows, and the rows. What cannot be read of a row is empty in it."""
    with table.open("rb") as beginning:
        is_parquet = beginning.read(4) == b"PAR1"
    try:
        if is_parquet:
            parquet = pq.ParquetFile(table)
            _require_columns(table, parquet.schema_arrow.names, ("jpeg", "emotion", "split"))
            return parquet.metadata.num_rows, _parquet_rows(parquet)
        with table.open(encoding="utf-8", newline="") as file:
            columns = next(csv.reader(file), [])
        _require_columns(table, columns, ("emotion", "pixels", "Usage"))
    except (pa.ArrowException, OSError, csv.Error, UnicodeDecodeError) as error:
        reason = one_line(error)
        raise FarfeelError(
            f"{table} cannot be read as Parquet or CSV ({reason}); expected FER2013's table; copy it again"
        ) from None
    with table.open("rb") as lines:
        count = sum(bool(line.strip()) for line in lines) - 1
    return count, _csv_rows(table)


def _require_columns(table: Path, found: list[str], expected: tuple[str, ...]) -> None:
    if lacking := [name for name in expected if name not in found]:
        raise FarfeelError(
            f"{table} lacks the columns {', '.join(lacking)}; expected {', '.join(expected)}; found "
            f"{', '.join(found[:5]) or 'nothing'}; rename them or choose another table"
        )


def _parquet_rows(parquet: pq.ParquetFile) -> Iterator[Row]:
    for batch in parquet.iter_batches(_ROWS, columns=["split", "emotion", "jpeg"]):
        for row in batch.to_pylist():
            picture = row["jpeg"] if isinstance(row["jpeg"], bytes) else b""
            yield str(row["split"]), str(row["emotion"]), picture, ".png" if picture[1:4] == b"PNG" else ".jpg"


def _csv_rows(table: Path) -> Iterator[Row]:
    with table.open(encoding="utf-8", errors="replace", newline="") as file:
        try:
            for row in csv.DictReader(file):
                usage, code, pixels = (row[name] or "" for name in ("Usage", "emotion", "pixels"))
                emotion = _CSV_EMOTIONS[int(code)] if code in _CSV_CODES else code
                yield usage, emotion, _png(pixels), ".png"
        except csv.Error as error:
            raise FarfeelError(
                f"{table} cannot be read as CSV ({error}); expected FER2013's table; copy it again"
            ) from None


def _png(pixels: str) -> bytes:
    """Space-separated greys → PNG; nothing where they are no 48×48 bytes."""
    try:
        greys = np.array(pixels.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        return b""
    if greys.size != SIDE * SIDE or greys.min() < 0 or greys.max() > 255:
        return b""
    return cv2.imencode(".png", greys.reshape(SIDE, SIDE).astype(np.uint8))[1].tobytes()


def _fault(split: str, emotion: str, picture: bytes) -> str:
    """Why a row is left out; empty where it is sound."""
    if split.lower() not in _SPLIT_OF:
        return f"unknown split {split!r}"
    if emotion.lower() not in _EMOTION_OF:
        return f"unknown emotion {emotion!r}"
    if not picture or cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE) is None:
        return "undecodable picture"
    return ""
