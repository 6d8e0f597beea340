"""Accuracy of speech detection, and of emotions in a timeline.

    python -m benchmarks.speech [CHECKPOINT]

FARFEEL_DATA must hold the clips of RAVDESS and the rooms of R3VIVAL. A scene is six clips with gaps of 1.2 to 3 s.
Eight scenes are dry and eight are in each room, each with several kinds of steady noise. Levels are relative to the
speech of a clip. A frame of the clean signal above -30 dB is speech. A frame is in a gap if it is at least 60 ms
before and 0.6 s after anything above -60 dB. webrtcvad is measured if it is installed; it runs on each microphone, and
a frame is speech if one of them detects speech.

With a checkpoint, the timeline of clips of its test speakers, one after the other, is measured too.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import fftconvolve

import farfeel
from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import split_clips
from farfeel.media.audio import read_audio, speech_span
from farfeel.media.speech import FRAME_S, SpeechActivity
from farfeel.rooms.importers.r3vival import r3vival
from farfeel.show.intervals import intervals

DATA = Path(os.environ.get("FARFEEL_DATA", "../shared/data"))
RATE = 16000
FRAME = round(FRAME_S * RATE)
MICS = [0, 3, 6]  # of R3VIVAL's
CLIPS, SCENES = 6, 8  # in a scene; in each room
GAP_S, END_S = (1.2, 3.0), 2.0
SPEECH_DB, QUIET_DB = -30.0, -60.0
BEFORE, AFTER = 2, 20  # frames around speech that are neither speech nor gap
MODES = (0, 2, 3)  # webrtcvad's
CONDITIONS = [  # noise, its SNR in dB, the level of speech in dBFS
    ("none", 0, -20),
    *((kind, snr_db, -20) for kind, snr_db in product(("white", "pink", "fan"), (10, 20))),
    ("hum", 10, -20),
    ("white", 40, -20),
    ("white", 20, -45),
    ("pink", 40, -45),
]
EVERY, PAUSE_S, STEP_S, NOISE_DB = 3, 1.0, 0.5, -70.0

Detector = Callable[[np.ndarray], np.ndarray]  # (M, T) → (N,) bool, one for each frame
Scene = tuple[np.ndarray, np.ndarray, np.ndarray]  # (M, T) whose speech has RMS 1, which frames are speech, are gaps


def activity() -> None:
    detectors = {
        "ours, 1 microphone": ours(1),
        f"ours, {len(MICS)}": ours(len(MICS)),
        **({f"webrtcvad, mode {mode}": webrtc(mode) for mode in MODES} if find_spec("webrtcvad") else {}),
    }
    print(f"missed speech / false alarms in the gaps, %\n\n| noise | {' | '.join(detectors)} |")
    print("|---|" + "---|" * len(detectors), flush=True)
    made = list(scenes(np.random.default_rng(1)))
    means = []
    for kind, snr_db, level_db in CONDITIONS:
        rates = np.zeros((len(detectors), 2))
        for number, (clean, spoken, gap) in enumerate(made):
            heard = under_noise(clean, kind, snr_db, level_db, np.random.default_rng(number))
            for rate, detect in zip(rates, detectors.values(), strict=True):
                flags = detect(heard)[: len(spoken)]
                rate += 100 * np.array([1 - flags[spoken].mean(), flags[gap].mean()]) / len(made)
        means.append(rates)
        level = f", speech at {level_db} dBFS" * (level_db != CONDITIONS[0][2])
        what = kind if kind == "none" else f"{kind}, {snr_db} dB{level}"
        print(f"| {what} | " + " | ".join(f"{missed:.0f} / {false:.0f}" for missed, false in rates) + " |", flush=True)
    print("| mean | " + " | ".join(f"{missed:.1f} / {false:.1f}" for missed, false in np.mean(means, axis=0)) + " |")


def ours(mics: int) -> Detector:
    return lambda audio: SpeechActivity(RATE, mics).push(audio[:mics])


def webrtc(mode: int) -> Detector:
    import webrtcvad

    def detect(audio: np.ndarray) -> np.ndarray:
        found = []
        for channel in (np.clip(audio, -1, 1) * 32767).astype("<i2"):
            vad, frames = webrtcvad.Vad(mode), channel[: len(channel) // FRAME * FRAME].reshape(-1, FRAME)
            found.append([vad.is_speech(frame.tobytes(), RATE) for frame in frames])
        return np.any(found, axis=0)

    return detect


def scenes(rng: np.random.Generator) -> Iterator[Scene]:
    paths = sorted((DATA / "ravdess").glob("Actor_*/*.flac"))
    rirs = r3vival(DATA / "rirs/r3vival", RATE)
    for room in (None, *dict.fromkeys(rir.room for rir in rirs)):
        places = [rir.taps[MICS] for rir in rirs if rir.room == room]
        for _ in range(SCENES):
            dry = line(rng, paths)
            heard = np.tile(dry, (len(MICS), 1))
            if places:
                taps = places[rng.integers(len(places))]
                direct = np.abs(taps).argmax(axis=1).min()
                heard = fftconvolve(heard, taps[:, max(0, direct - 16) :], axes=1)[:, : len(dry)]
            level_db = levels_db(dry)
            loud = np.repeat(level_db > SPEECH_DB, FRAME)
            heard /= np.sqrt(np.mean(heard[:, : len(loud)][:, loud] ** 2))
            audible = np.convolve(level_db > QUIET_DB, np.ones(BEFORE + 1 + AFTER))[BEFORE:][: len(level_db)]
            yield heard, level_db > SPEECH_DB, audible < 0.5


def line(rng: np.random.Generator, paths: list[Path]) -> np.ndarray:
    """(T,) gaps and clips in turn, the clips at levels of -5 to 5 dB."""
    parts = []
    for _ in range(CLIPS):
        clip = read_audio(paths[rng.integers(len(paths))], RATE)[:1].astype(float)
        clip = clip[0, slice(*speech_span(clip, RATE))]
        level_db = levels_db(clip)
        rms = np.sqrt(np.mean(10 ** (level_db[level_db > level_db.max() - 25] / 10)))
        gap = np.zeros(round(rng.uniform(*GAP_S) * RATE))
        parts += [gap, clip / rms * 10 ** (rng.uniform(-5, 5) / 20)]
    return np.concatenate([*parts, np.zeros(round(END_S * RATE))])


def levels_db(samples: np.ndarray) -> np.ndarray:
    """(T,) → (N,) mean power of each frame."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)


def under_noise(clean: np.ndarray, kind: str, snr_db: float, level_db: float, rng: np.random.Generator) -> np.ndarray:
    """(M, T) → (M, T) with noise that is independent for each microphone."""
    heard = clean
    if kind != "none":
        heard = clean + 10 ** (-snr_db / 20) * np.stack([noise(kind, clean.shape[1], rng) for _ in clean])
    return (10 ** (level_db / 20) * heard).astype(np.float32)


def noise(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """(T,) with RMS 1.

    fan: the spectrum falls by 6 dB an octave, with tones of the blades. hum: 50 Hz and its harmonics.
    """
    time_s, found = np.arange(count) / RATE, rng.standard_normal(count)
    if kind in ("pink", "fan"):
        hz = np.fft.rfftfreq(count, 1 / RATE)
        falling = np.sqrt(np.maximum(hz, 20)) if kind == "pink" else np.maximum(hz, 60)
        found = np.fft.irfft(np.fft.rfft(found) / falling, count)
        found /= found.std()
    if kind == "fan":
        blades = sum(np.sin(2 * np.pi * 90 * k * time_s) for k in (1, 2, 3))
        found += 0.3 * blades * (1 + 0.2 * np.sin(2 * np.pi * 1.3 * time_s))
    if kind == "hum":
        hum = sum(np.sin(2 * np.pi * 50 * k * time_s + rng.uniform(0, 2 * np.pi)) / k for k in (1, 2, 3, 5, 7))
        found = hum + 0.02 * found
    return found / found.std()


def timeline(checkpoint: Path) -> None:
    recognizer = farfeel.load(checkpoint)
    test = split_clips(load_clips("ravdess", DATA / "ravdess"), recognizer.recipes[0].data.split).part("test")
    clips = [(clip.audio, clip.emotion) for clip in test if clip.audio][::EVERY]
    parts: list[np.ndarray] = []
    truth = []
    begin = 0
    for path, emotion in clips:
        audio = read_audio(path, RATE)[0]
        truth.append((begin / RATE, (begin + len(audio)) / RATE, emotion))
        parts += [audio, np.zeros(round(PAUSE_S * RATE), np.float32)]
        begin += len(audio) + len(parts[-1])
    whole = np.concatenate(parts)
    whole += np.random.default_rng(1).normal(0, 10 ** (NOISE_DB / 20), len(whole)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        soundfile.write(Path(folder) / "line.wav", whole, RATE)
        found = recognizer.timeline(Path(folder) / "line.wav", STEP_S)
    right = []
    for each in intervals(found):
        middle_s = (each.start_s + each.end_s) / 2
        emotions = [emotion for start_s, end_s, emotion in truth if start_s <= middle_s < end_s]
        if each.prediction and emotions and any(start_s <= middle_s < end_s for start_s, end_s in found.speech):
            right.append(each.prediction.label == emotions[0])
    alone = [recognizer.predict(path).label == emotion for path, emotion in clips]
    print(
        f"\n{len(clips)} clips of the test speakers in one recording: {np.mean(right):.0%} of {len(right)} "
        f"intervals with speech have the emotion of their clip; predict on single clips: {np.mean(alone):.0%}"
    )


if __name__ == "__main__":
    for folder in (DATA / "ravdess", DATA / "rirs/r3vival"):
        if not folder.is_dir():
            sys.exit(f"{folder} does not exist; set FARFEEL_DATA to the folder that holds it")
    activity()
    if len(sys.argv) > 1:
        timeline(Path(sys.argv[1]))
