"""Banks of room responses, and the responses that an interrupted simulation keeps."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from farfeel.recipe import Simulation
from farfeel.rooms.bank import TABLE, TAPS, Bank, write_bank
from farfeel.rooms.simulate import _read
from farfeel.types import Rir, Room

from .damaging import Reader, damaged, damaged_table

TOKENS = [
    b"'descr': '|O'",
    b"'>f4'",
    b"(99999999999, 9999999, 3)",
    b"(-1, 2, 3)",
    b"True",
    b"L, ",
    b"((((((",
    b"\x93NUMPY",
]
HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2, 60), }"


def readers(folder: Path) -> list[Reader]:
    """All readers of this group; `folder` is for what they need."""
    rng = np.random.default_rng(1)
    room = Room((3.0, 4.0, 2.5), (1.0, 1.0, 1.2), ((2.0, 2.0, 1.0), (2.1, 2.0, 1.0)), 0.3)
    rirs = [
        Rir(
            rng.standard_normal((2, 60)).astype(np.float32),
            16000,
            f"room {k // 2}",
            str(k),
            0.3,
            1.0,
            "simulated",
            room,
        )
        for k in range(4)
    ]
    bank = write_bank(folder / "bank", rirs).path
    taps, table = (bank / TAPS).read_bytes(), (bank / TABLE).read_bytes()
    held = pq.read_table(io.BytesIO(table))
    kept = io.BytesIO()
    np.savez(kept, taps=rirs[0].taps, t60_s=0.3, drr_db=1.0)

    def header(rng: random.Random) -> bytes:
        begin = taps.index(HEADER)
        changed = damaged(rng, [HEADER], TOKENS)[:117].ljust(117) + b"\n"
        return taps[:begin] + changed + taps[begin + 118 :]

    def npz(rng: random.Random) -> bytes:
        return damaged(rng, [kept.getvalue()], TOKENS)

    return [
        Reader("taps.npy", lambda rng: damaged(rng, [taps], TOKENS), lambda c, f: _bank(c, table, f)),
        Reader("taps.npy, header", header, lambda c, f: _bank(c, table, f)),
        Reader("rirs.parquet", lambda rng: damaged(rng, [table]), lambda c, f: _bank(taps, c, f)),
        Reader("rirs.parquet with other values", lambda rng: damaged_table(rng, held), lambda c, f: _bank(taps, c, f)),
        Reader("kept response", npz, _kept),
    ]


def _bank(taps: bytes, table: bytes, folder: Path) -> None:
    (folder / TAPS).write_bytes(taps)
    (folder / TABLE).write_bytes(table)
    bank = Bank.open(folder)
    for index in range(min(len(bank), 20)):
        assert bank[index].taps.dtype == np.float32


def _kept(content: bytes, folder: Path) -> None:
    (folder / "000000.npz").write_bytes(content)
    _read(folder / "000000.npz", 0, Simulation(), 2, 1)
