"""Speed of `farfeel prepare` and of a plain loop with soundfile and SciPy, and the effect of `kill -9` on shards.

    python -m benchmarks.prepare RAVDESS ROOMS [CLIPS [KILLS]]

The plain loop reads a clip, convolves it with a response of all microphones, and writes a FLAC file. It has no
manifest, no checksums, and does not resume. Both make the same recordings. Then `farfeel prepare` is killed at KILLS
random moments, and its shards are compared with undisturbed ones, byte by byte.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile
from scipy.signal import fftconvolve

from farfeel.corpora.scan import load_clips
from farfeel.recipe import load_recipe
from farfeel.rooms.acoustics import remove_common_delay
from farfeel.rooms.bank import Bank
from farfeel.shards.prepare import prepare

CLIPS, KILLS, PEAK = 400, 20, 0.9


def main(ravdess: Path, rooms: Path, count: int, kills: int) -> None:
    clips, bank = load_clips("ravdess", ravdess)[:count], Bank.open(rooms)
    mics, recipe = range(bank.mics), load_recipe("default")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        times = {"plain loop, 1 process": timed(lambda: plain_loop(clips, bank, place / "plain"))}
        for workers in (1, 2):
            out = place / f"shards-{workers}"
            made = lambda workers=workers, out=out: prepare(clips, recipe, bank, out, mics, workers=workers)  # noqa: E731
            times[f"farfeel prepare, {workers} process{'es' * (workers > 1)}"] = timed(made)
        sizes = [sum(file.stat().st_size for file in (place / name).iterdir()) for name in ("plain", "shards-1")]
        print(
            f"\n{len(clips)} clips, {bank.mics} microphones; {sizes[0] / 1e6:.0f} MB as files, {sizes[1] / 1e6:.0f} MB"
        )
        for name, seconds in times.items():
            print(f"{name}: {seconds:.1f} s, {len(clips) / seconds:.1f} clips/s")
        own, children = (
            resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        print(f"peak memory: {own:.0f} MB here, {children:.0f} MB in the largest other process", flush=True)
        if kills:
            killed(ravdess, rooms, place, len(clips), kills, times["farfeel prepare, 2 processes"])


def plain_loop(clips: list, bank: Bank, out: Path) -> None:
    out.mkdir()
    for index, clip in enumerate(clips):
        dry, rate = soundfile.read(clip.audio, dtype="float32")
        wet = fftconvolve(dry[None], remove_common_delay(bank.taps(index % len(bank))), axes=1)[:, : len(dry)]
        soundfile.write(out / f"{clip.id}.flac", (wet / abs(wet).max() * PEAK).T, rate, subtype="PCM_16")


def killed(ravdess: Path, rooms: Path, place: Path, count: int, kills: int, whole_s: float) -> None:
    """Prepare the whole corpus with the command, and kill all its processes at random moments."""
    command = [sys.executable, "-m", "farfeel.cli", "prepare", "--corpus", "ravdess", "--root", str(ravdess)]
    command += ["--rirs", str(rooms), "--per-shard", "64", "--workers", "2", "--out"]
    undisturbed = place / "undisturbed"
    begun = time.perf_counter()
    subprocess.run([*command, str(undisturbed)], check=True, capture_output=True)
    whole_s = time.perf_counter() - begun
    expected = {file.name: file.read_bytes() for file in undisturbed.iterdir()}
    seen_half, rng = 0, random.Random(1)
    out = place / "killed"
    for _ in range(kills):
        process = subprocess.Popen(
            [*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(rng.uniform(0.1, whole_s))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shards = list(out.glob("shard-*.tar")) if out.exists() else []
        seen_half += sum(shard.read_bytes() != expected[shard.name] for shard in shards)
        if len(shards) == len(expected) - 2 and (out / "index.parquet").exists():
            shutil.rmtree(out)  # complete: begin again, so that later kills interrupt something
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    same = {file.name: file.read_bytes() for file in out.iterdir()} == expected
    print(f"killed {kills} times: {seen_half} incomplete shards; the same bytes in the end: {same}", flush=True)


def timed(work) -> float:  # type: ignore[no-untyped-def]
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    numbers = [int(word) for word in sys.argv[3:]]
    main(Path(sys.argv[1]), Path(sys.argv[2]), *(numbers + [CLIPS, KILLS][len(numbers) :]))
