"""Speed of Ray and of processes on this machine, with one and two workers, for the same commands with their start.

    python -m benchmarks.cluster RAVDESS ROOMS [ACTORS [FILES]]

Measured are `farfeel prepare` of the clips of ACTORS actors (60 each) in ROOMS, and `farfeel predict` of FILES of them.
Each line shows the load of the machine before the command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ACTORS, FILES = 5, 100


def main(ravdess: Path, rooms: Path, actors: int, files: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for actor in sorted(folder for folder in ravdess.iterdir() if folder.is_dir())[:actors]:
            (place / "corpus" / actor.name).mkdir(parents=True)
            for clip in actor.iterdir():
                (place / "corpus" / actor.name / clip.name).symlink_to(clip.resolve())
        clips = sorted(place.glob("corpus/*/*.*"))
        chosen = [str(clip) for clip in clips[:: max(1, len(clips) // files)][:files]]
        corpus = ["--corpus", "ravdess", "--root", str(place / "corpus"), "--rirs", str(rooms), "--per-shard", "16"]
        compare("local", ["prepare", *corpus, "--out", str(place / "shards")], len(clips), place / "shards")
        compare("torch", ["predict", *chosen, "--format", "json", "--out", str(place / "out.json")], len(chosen), None)


def compare(own: str, words: list[str], clips: int, made: Path | None) -> None:
    """Time one command with each engine. own: the name of the engine that uses processes on this machine."""
    print(f"\n{words[0]}: {clips} clips")
    for engine, workers in [(engine, workers) for engine in (own, "ray") for workers in (1, 2)]:
        if made:
            shutil.rmtree(made, ignore_errors=True)
        load = os.getloadavg()[0]
        how = ["--engine", engine, "--workers", str(workers)]
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "farfeel.cli", *words, *how], check=True, capture_output=True)
        seconds = time.perf_counter() - begun
        print(f"{engine}, {workers}: {seconds:.1f} s, {clips / seconds:.1f} clips/s (load {load:.1f})", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    numbers = [int(word) for word in sys.argv[3:]]
    main(Path(sys.argv[1]), Path(sys.argv[2]), *(numbers + [ACTORS, FILES][len(numbers) :]))
