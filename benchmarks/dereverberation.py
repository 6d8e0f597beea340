"""How much dereverberation and more microphones bring the log-mels of reverberant speech closer to those of dry
speech.

    pip install 'farfeel[bench]'
    farfeel rooms simulate --recipe default --count 24 --mics 7 --seed 5 --out ROOMS \\
        simulation.t60_s=[0.4,0.8] simulation.array_radius_m=[0.05,0.05]
    python -m benchmarks.dereverberation RAVDESS ROOMS

Twelve clips are placed in the first rooms of the bank. Each microphone has independent noise 60 dB below the speech.
The log-mels are those of the recipe `default`, averaged over microphones. The table shows their mean distance to the
log-mels of the same speech with only the first 3 ms, or only the first 50 ms, of the responses. nara_wpe is another
implementation with its usual settings (frames of 512 samples, hop 128, 10 taps, delay 3).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from scipy.signal import fftconvolve

from benchmarks.front_ends import by_nara_wpe
from farfeel.corpora.scan import load_clips
from farfeel.media import dereverberation
from farfeel.media.audio import read_audio
from farfeel.media.dereverberation import dereverberate
from farfeel.models.logmel import LogMel, front_end, limit_range, subtract_mean
from farfeel.recipe import load_recipe
from farfeel.rooms.acoustics import onset, remove_common_delay
from farfeel.rooms.bank import Bank

VOICES = 12
NOISE = 1e-3  # amplitude of each microphone's noise, relative to that of the speech
SETTINGS: dict[str, dict[str, float]] = {
    "as it is used": {},
    "delay 3": {"DELAY": 3},
    "delay 6": {"DELAY": 6},
    "10 taps": {"TAPS": 10},
    "35 predictors": {"PREDICTORS": 35},
    "140 predictors": {"PREDICTORS": 140, "FRAMES_EACH": 2},
    "loading 1e-10": {"LOADING": 1e-10},
    "loading 1e-2": {"LOADING": 1e-2},
}
Treatment = Callable[[np.ndarray], np.ndarray]


def main(ravdess: Path, rooms: Path) -> None:
    audio = load_recipe("default").audio
    rate, logmel = audio.sample_rate, LogMel(audio)

    def seen(heard: np.ndarray) -> np.ndarray:
        mels = limit_range(front_end(torch.from_numpy(heard[None]), logmel, audio), audio.range_db or np.inf)
        return subtract_mean(mels, audio.mean_norm).mean(dim=1)[0].numpy()

    bank, clips = Bank.open(rooms), load_clips("ravdess", ravdess)
    scenes = []
    for index, clip in enumerate(clips[:: len(clips) // VOICES][:VOICES]):
        assert clip.audio is not None
        voice = read_audio(clip.audio, rate).mean(axis=0)
        response = remove_common_delay(bank.taps(index))
        heard, near, early = (
            fftconvolve(voice[None], response[:, :end], axes=1)[:, : len(voice)].astype(np.float32)
            for end in (None, *(onset(response) + rate * ms // 1000 for ms in (3, 50)))
        )
        noise = np.random.default_rng(index).standard_normal(heard.shape)
        scenes.append(((heard + NOISE * heard.std() * noise).astype(np.float32), seen(near), seen(early)))

    def row(name: str, mics: int, treat: Treatment) -> None:
        began, distances = time.process_time(), []
        for heard, *wanted in scenes:
            found = seen(treat(heard[:mics]))
            distances.append([np.abs(found - each).mean() for each in wanted])
        near, early = np.mean(distances, axis=0)
        seconds = (time.process_time() - began) / len(scenes)
        print(f"| {name} | {mics} | {near:.2f} | {early:.2f} | {seconds:.2f} |", flush=True)

    print("| | microphones | dB from 3 ms | dB from 50 ms | CPU, s a voice |\n|---|---|---|---|---|")
    for mics in (1, 3, 7):
        row("none", mics, lambda heard: heard)
    for mics in (1, 3, 7):
        row("nara_wpe", mics, by_nara_wpe)
    for name, knobs in SETTINGS.items():
        for mics in (7,) if knobs else (1, 3, 7):
            with mock.patch.dict(vars(dereverberation), knobs):
                row(name, mics, partial(dereverberate, sample_rate=rate))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
