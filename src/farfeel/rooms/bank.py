"""The RIR bank: a folder of room impulse responses that training and evaluation draw from.

    taps.npy         (N, M, L) float32, read through a memory map
    rirs.parquet     N rows: room, position, sample_rate, t60_s and drr_db (measured on the taps), origin; and the
                     geometry, where it is known: size_m, source_m, mics_m, asked_t60_s
    parameters.json  what a simulated bank was drawn from

Shorter responses are padded with zeros to the longest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow
from pyarrow import parquet

from farfeel.support.files import replacing_folder, require_folder, require_replaceable
from farfeel.support.reading import damage, npy_layout, read_parquet
from farfeel.types import FarfeelError, Rir, Room

TAPS, TABLE, PARAMETERS = "taps.npy", "rirs.parquet", "parameters.json"
LEAST_LIMIT = 10_000  # rows that are read of any table, so that an error can state its number of rows
MOST_TABLE_BYTES = 1 << 30
HIGHEST_RATE = 1_000_000  # Hz
REMEDY = "make one with farfeel rooms simulate or farfeel rooms import"
SCHEMA = pyarrow.schema(
    [
        ("room", pyarrow.string()),
        ("position", pyarrow.string()),
        ("sample_rate", pyarrow.int32()),
        ("t60_s", pyarrow.float64()),
        ("drr_db", pyarrow.float64()),
        ("origin", pyarrow.string()),
        ("size_m", pyarrow.list_(pyarrow.float64())),
        ("source_m", pyarrow.list_(pyarrow.float64())),
        ("mics_m", pyarrow.list_(pyarrow.list_(pyarrow.float64()))),
        ("asked_t60_s", pyarrow.float64()),
    ]
)


class Bank:
    """Responses on disk, by index. `rooms` has the names of the rooms in the order of their first response."""

    def __init__(self, path: Path, taps: np.ndarray, rows: list[dict[str, Any]]) -> None:
        self.path, self._taps, self._rows = path, taps, rows
        self._indices: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            self._indices.setdefault(row["room"], []).append(index)
        self.rooms = tuple(self._indices)
        self.mics = int(taps.shape[1])
        self.sample_rate = int(rows[0]["sample_rate"])

    @classmethod
    def open(cls, path: Path, sample_rate: int | None = None, min_mics: int | None = None) -> Self:
        """A folder → its bank.

        Raises FarfeelError where the folder is no bank, is damaged, has another sample rate (Hz) than the one
        requested, or fewer microphones than min_mics.
        """
        path = require_folder(path, "an RIR bank", REMEDY)
        if not is_bank(path):
            found = ", ".join(sorted(entry.name for entry in path.iterdir())[:3]) or "nothing"
            raise FarfeelError(f"{path} holds {found}; expected an RIR bank ({TAPS} and {TABLE}); {REMEDY}")
        taps = _map_taps(path / TAPS)
        rows = _read_table(path / TABLE, len(taps))
        if len(taps) != len(rows):
            raise FarfeelError(
                f"{path} has {len(taps)} responses in {TAPS} and {len(rows)} rows in {TABLE}, expected the same; "
                "make the bank again"
            )
        bank = cls(path, taps, rows)
        if sample_rate is not None and bank.sample_rate != sample_rate:
            raise FarfeelError(
                f"{path} holds responses at {bank.sample_rate} Hz, {sample_rate} Hz were requested; "
                "make the bank again at that rate or set audio.sample_rate"
            )
        if min_mics is not None and bank.mics < min_mics:
            raise FarfeelError(
                f"{path} has {bank.mics} microphones, {min_mics} were requested; choose fewer or a bank with more"
            )
        return bank

    def __reduce__(self) -> tuple[Any, ...]:
        return Bank.open, (self.path,)  # Another process gets the path: a pickled memory map is a copy of its data.

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Rir:
        row = self._rows[index]
        return Rir(
            taps=self.taps(index),
            sample_rate=self.sample_rate,
            room=row["room"],
            position=row["position"],
            t60_s=row["t60_s"],
            drr_db=row["drr_db"],
            origin=row["origin"],
            geometry=_geometry(row),
        )

    def indices(self, room: str) -> np.ndarray:
        """Indices of the responses of a room: its source positions."""
        if room not in self._indices:
            raise FarfeelError(f"{self.path} has no room {room}; it has {', '.join(self.rooms)}; choose one of them")
        return np.array(self._indices[room])

    def taps(self, index: int, mics: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """(M, L) float32 of one response, at all microphones or at those requested, in that order."""
        response = self._taps[index] if mics is None else self._taps[index][np.asarray(mics)]
        found = np.array(response, dtype=np.float32)
        if not np.isfinite(found).all():
            raise FarfeelError(
                f"{self.path / TAPS}: response {index} has numbers that are not finite, expected finite ones; make the "
                "bank again"
            )
        return found


def is_bank(path: Path) -> bool:
    """Whether a folder has the files of a bank."""
    return (path / TAPS).is_file() and (path / TABLE).is_file()


def write_bank(
    path: Path,
    rirs: Iterable[Rir],
    shape: tuple[int, int, int] | None = None,
    parameters: dict[str, Any] | None = None,
) -> Bank:
    """Responses → the folder of a bank. It appears when it is complete, and replaces another bank.

    shape: (N, M, L), needed where `rirs` is an iterator over more responses than fit into memory. parameters: what a
    simulated bank was drawn from. Raises FarfeelError where there is no response, where responses differ in sample rate
    or number of microphones, or where the folder has other files.
    """
    path = Path(path)
    check_replaceable(path)
    if shape is None:
        rirs = list(rirs)
        shape = (len(rirs), len(rirs[0].taps), max(rir.taps.shape[1] for rir in rirs)) if rirs else (0, 0, 0)
    if shape[0] == 0:
        raise FarfeelError(f"no response to write to {path}, expected at least one; {REMEDY}")
    rows: list[dict[str, Any]] = []
    with replacing_folder(path) as partial:
        with (partial / TAPS).open("wb") as taps:  # no memory map: writing to one on a full disk kills the process
            np.lib.format.write_array_header_1_0(taps, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for rir in islice(rirs, shape[0]):
                rows.append(_row(rir))
                if len(rir.taps) != shape[1] or rir.sample_rate != rows[0]["sample_rate"]:
                    raise FarfeelError(
                        f"{_name(rows[0])} has {shape[1]} microphones at {rows[0]['sample_rate']} Hz, "
                        f"{_name(rows[-1])} {len(rir.taps)} at {rir.sample_rate} Hz, a bank has one kind; "
                        "put them in two banks"
                    )
                padded = np.pad(rir.taps, ((0, 0), (0, shape[2] - rir.taps.shape[1])))
                taps.write(padded.astype("<f4").tobytes())
        if len(rows) != shape[0]:
            raise ValueError(f"{shape[0]} responses were announced, {len(rows)} came")
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema=SCHEMA), partial / TABLE)
        if parameters is not None:
            (partial / PARAMETERS).write_text(json.dumps(parameters, indent=1, sort_keys=True), encoding="utf-8")
    return Bank.open(path)


def check_replaceable(path: Path) -> None:
    """Raise FarfeelError unless `path` is free, an empty folder, or a bank with nothing else in it."""
    require_replaceable(path, (TAPS, TABLE, PARAMETERS), "an RIR bank")


def _map_taps(path: Path) -> np.ndarray:
    with damage(lambda reason: f"{path} is not a NumPy array ({reason}); make the bank again"), path.open("rb") as file:
        shape, dtype, in_columns = npy_layout(file)
        begin = file.tell()
    if len(shape) != 3 or dtype != np.float32 or 0 in shape:
        raise FarfeelError(f"{path} holds {dtype} of shape {shape}, expected float32 (N, M, L); make the bank again")
    found, expected = path.stat().st_size, begin + math.prod(shape) * dtype.itemsize
    if found < expected:
        raise FarfeelError(f"{path} is cut off: {found} of {expected} bytes; copy or make the bank again")
    return np.memmap(path, dtype=dtype, mode="r", offset=begin, shape=shape, order="F" if in_columns else "C")


def _read_table(path: Path, count: int) -> list[dict[str, Any]]:
    with damage(lambda reason: f"{path} is not a table of responses ({reason}); make the bank again"):
        table = read_parquet(path, max(count, LEAST_LIMIT), MOST_TABLE_BYTES)
        if lacking := [name for name in SCHEMA.names if name not in table.column_names]:
            raise ValueError(f"no column {', '.join(lacking)}")
        rows: list[dict[str, Any]] = table.select(SCHEMA.names).cast(SCHEMA).to_pylist()
        for number, row in enumerate(rows):
            if fault := _fault(row):
                raise ValueError(f"row {number}: {fault}")
    return rows


def _fault(row: dict[str, Any]) -> str:
    """What is wrong with a row of the table; "" where nothing is."""
    if any(row[name] is None for name in ("room", "position", "sample_rate", "t60_s", "drr_db", "origin")):
        return "an empty cell"
    if not 1 <= row["sample_rate"] <= HIGHEST_RATE:
        return f"{row['sample_rate']} Hz"
    if row["mics_m"] is None:
        return ""
    places = [row["size_m"], row["source_m"], *row["mics_m"]]
    if row["asked_t60_s"] is None or any(place is None or len(place) != 3 or None in place for place in places):
        return "a position without three coordinates"
    return ""


def _row(rir: Rir) -> dict[str, Any]:
    room = rir.geometry
    return {
        "room": rir.room,
        "position": rir.position,
        "sample_rate": rir.sample_rate,
        "t60_s": rir.t60_s,
        "drr_db": rir.drr_db,
        "origin": rir.origin,
        "size_m": room and list(room.size_m),
        "source_m": room and list(room.source_m),
        "mics_m": room and [list(mic) for mic in room.mics_m],
        "asked_t60_s": room and room.t60_s,
    }


def _geometry(row: dict[str, Any]) -> Room | None:
    if row["mics_m"] is None:
        return None
    return Room(
        size_m=tuple(row["size_m"]),
        source_m=tuple(row["source_m"]),
        mics_m=tuple(tuple(mic) for mic in row["mics_m"]),
        t60_s=row["asked_t60_s"],
    )


def _name(row: dict[str, Any]) -> str:
    return f"{row['room']}/{row['position']}" if row["position"] else str(row["room"])
