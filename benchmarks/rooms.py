"""Speed of rooms: simulating responses, importing measured ones, and convolving speech with them."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import torch

from farfeel.recipe import Simulation
from farfeel.rooms.importers.r3vival import r3vival
from farfeel.rooms.reverb import convolve
from farfeel.rooms.simulate import simulate

DATA = Path(os.environ.get("FARFEEL_DATA", "../shared/data"))


def run() -> None:
    print("| rooms | how many | seconds | each, ms |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for mics, count, workers in ((3, 40, 1), (3, 40, 2), (7, 40, 2)):
            started = time.perf_counter()
            simulate(count, mics, Simulation(), 1, Path(folder) / f"{mics}-{workers}", workers=workers)
            row(f"simulate, {mics} microphones, {workers} processes", count, time.perf_counter() - started)
    if (DATA / "rirs/r3vival").is_dir():
        started = time.perf_counter()
        responses = r3vival(DATA / "rirs/r3vival")
        row("import R3VIVAL, 7 microphones, with acoustics", len(responses), time.perf_counter() - started)
    for mics in (1, 3, 7):
        dry, taps = torch.randn(32, 64000), torch.randn(32, mics, 16000)
        convolve(dry, taps)
        started = time.perf_counter()
        convolve(dry, taps)
        row(f"convolve 4 s of speech with 1 s of room, {mics} microphones, batch 32", 32, time.perf_counter() - started)


def row(what: str, count: int, seconds: float) -> None:
    print(f"| {what} | {count} | {seconds:.2f} | {1000 * seconds / count:.1f} |", flush=True)
