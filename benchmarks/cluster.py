"""Ray against this machine's own processes, with one and two workers; the same commands, start-up included.

    python -m benchmarks.cluster RAVDESS ROOMS [ACTORS [FILES]]

`farfeel prepare` of ACTORS' clips (60 each) in ROOMS, then `farfeel predict` of FILES of them. Each line is the quicker
of two runs, the runs of all variants taken in turn, with the machine's load before each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ACTORS, FILES, ROUNDS = 5, 100, 2


def main(ravdess: Path, rooms: Path, actors: int, files: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for actor in sorted(folder for folder in ravdess.iterdir() if folder.is_dir())[:actors]:
            (place / "corpus" / actor.name).parent.mkdir(exist_ok=True)
            (place / "corpus" / actor.name).symlink_to(actor.resolve())
        clips = sorted(place.glob("corpus/*/*.*"))
        chosen = [str(clip) for clip in clips[:: max(1, len(clips) // files)][:files]]
        corpus = ["--corpus", "ravdess", "--root", str(place / "corpus"), "--rirs", str(rooms), "--per-shard", "16"]
        compare("local", ["prepare", *corpus, "--out", str(place / "shards")], len(clips), place / "shards")
        compare("torch", ["predict", *chosen, "--format", "json", "--out", str(place / "out.json")], len(chosen), None)


def compare(own: str, words: list[str], clips: int, made: Path | None) -> None:
    """`own`: the engine of this machine's processes."""
    seconds: dict[tuple[str, int], list[float]] = {(engine, n): [] for engine in (own, "ray") for n in (1, 2)}
    loads = []
    for _ in range(ROUNDS):
        for engine, workers in seconds:
            if made:
                shutil.rmtree(made, ignore_errors=True)
            loads.append(os.getloadavg()[0])
            how = ["--engine", engine, "--workers", str(workers)]
            command = [sys.executable, "-m", "farfeel.cli", *words, *how]
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[engine, workers].append(time.perf_counter() - begun)
    print(f"\n{words[0]}: {clips} clips; load before the runs {min(loads):.1f} to {max(loads):.1f}")
    for (engine, workers), times in seconds.items():
        print(f"{engine}, {workers} worker{'s' * (workers > 1)}: {min(times):.1f} s, {clips / min(times):.1f} clips/s")
    sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    numbers = [int(word) for word in sys.argv[3:]]
    main(Path(sys.argv[1]), Path(sys.argv[2]), *(numbers + [ACTORS, FILES][len(numbers) :]))
