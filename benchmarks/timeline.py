"""Cost of timelines and streams: seconds of computing for a second of audio, and the memory for three hours.

The recording consists of clips of RAVDESS (without it, of the synthetic corpus) with pauses, so that about half of it
is speech. Each microphone is a copy with a delay of its own and noise. Steps are one second; the sample rate is 48
kHz.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

import farfeel
from farfeel.corpora.synthetic import generate
from farfeel.media.audio import read_audio
from farfeel.recognise.recognizer import Recognizer

DATA = Path(os.environ.get("FARFEEL_DATA", "../shared/data"))
RATE, PAUSE_S, BLOCK_S = 48000, 2.5, 0.02
SECONDS, LONG_S = 60, 3 * 3600


def run() -> None:
    recognizer = farfeel.load()
    print("| what | microphones | computing / audio | slowest answer, ms |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        speech = voices(Path(folder))
        for mics in (1, 3, 7):
            audio = recording(speech, mics, SECONDS)
            path = Path(folder) / f"{mics}.wav"
            soundfile.write(path, audio.T, RATE)
            recognizer.timeline(path)
            started = time.process_time()
            recognizer.timeline(path)
            print(f"| timeline | {mics} | {(time.process_time() - started) / SECONDS:.3f} | |", flush=True)
            slowest, total = stream(recognizer, audio)
            print(f"| stream, blocks of 20 ms | {mics} | {total / SECONDS:.3f} | {1000 * slowest:.0f} |", flush=True)
        path = Path(folder) / "long.wav"
        with soundfile.SoundFile(path, "w", 16000, 1) as file:
            minute = recording(speech, 1, 60)[:, ::3].T
            for _ in range(LONG_S // 60):
                file.write(minute)
        command = [sys.executable, "-m", "benchmarks.timeline", str(path)]
        print("\n" + subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def stream(recognizer: Recognizer, audio: np.ndarray) -> tuple[float, float]:
    """Seconds of computing for the slowest block, and for all blocks."""
    live = recognizer.stream(RATE, len(audio))
    times = []
    for block in np.split(audio, range(round(BLOCK_S * RATE), audio.shape[1], round(BLOCK_S * RATE)), axis=1):
        started = time.process_time()
        live.push(block)
        times.append(time.process_time() - started)
    return max(times), sum(times)


def voices(folder: Path) -> list[np.ndarray]:
    """Clips (T,) at RATE."""
    paths = sorted((DATA / "ravdess").rglob("*.wav"))[::40] or sorted((DATA / "ravdess").rglob("*.flac"))[::40]
    paths = paths or sorted(generate(folder / "voices", 2, 2, 1).rglob("*.flac"))
    return [read_audio(path, RATE)[0] for path in paths[:16]]


def recording(speech: list[np.ndarray], mics: int, seconds: int) -> np.ndarray:
    """(M, T): clips and pauses in turn."""
    rng = np.random.default_rng(1)

    def line() -> Iterator[np.ndarray]:
        while True:
            for clip in speech:
                yield from (clip, np.zeros(round(PAUSE_S * RATE), np.float32))

    parts, length = [], 0
    for part in line():
        parts.append(part)
        length += len(part)
        if length >= seconds * RATE:
            break
    whole = np.concatenate(parts)[: seconds * RATE]
    heard = np.stack([np.roll(whole, 7 * mic) for mic in range(mics)])
    return (heard + rng.normal(0, 1e-4, heard.shape)).astype(np.float32)


def peak_mb() -> float:
    """Peak memory of this process in MB. The value of `resource` would be inherited from the parent process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":  # in a process of its own, so that its memory is that of the timeline
    recognizer = farfeel.load()
    before = peak_mb()
    started = time.perf_counter()
    found = recognizer.timeline(sys.argv[1])
    took = time.perf_counter() - started
    spoken = sum(end - start for start, end in found.speech)
    print(
        f"{found.seconds / 3600:.1f} hours, one microphone, {len(found.predictions)} windows, speech in "
        f"{spoken / found.seconds:.0%}: {took:.0f} s, peak memory {peak_mb():.0f} MB ({before:.0f} MB before)"
    )
