"""Front-ends in quiet rooms: do dereverberation and beamforming help a network that was trained without them?

    pip install 'farfeel[bench]'
    python -m benchmarks.front_ends CHECKPOINT RAVDESS TEST_ROOMS OUT

Each recording of the checkpoint's test speakers in the measured rooms is recognised with 1, 3 and 7 microphones after
each of these front-ends:

- as-is: none.
- wpe: the WPE of `farfeel.media.dereverberation`.
- nara-wpe: the WPE of nara_wpe (frames of 512 samples, hop 128, delay 3, 10 taps or as many as 70 coefficients allow).
- delay-and-sum: with GCC-PHAT; each microphone is aligned to the last, which is the centre of R3VIVAL's array.
- mvdr: the blind MVDR beamformer of `farfeel.media.beamforming`.

OUT/NAME is an evaluation for `farfeel compare`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from nara_wpe.utils import istft, stft
from nara_wpe.wpe import wpe_v8
from scipy.fft import irfft, rfft

from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import split_clips
from farfeel.evaluate.report import write_evaluation
from farfeel.evaluate.run import prediction_table
from farfeel.evaluate.test_set import EvaluationItem, EvaluationSet
from farfeel.media.beamforming import beamform
from farfeel.media.dereverberation import dereverberate
from farfeel.recognise.recognizer import Recognizer
from farfeel.recognise.windows import Recording
from farfeel.rooms.bank import Bank
from farfeel.support.console import progress

SAMPLE_RATE = 16000
FRAME, HOP, DELAY, COEFFICIENTS, ITERATIONS = 512, 128, 3, 70, 2
LARGEST_LAG = 12  # samples: 0.75 ms, 26 cm


def by_nara_wpe(audio: np.ndarray) -> np.ndarray:
    """(M, T) → (M, T) without late reverberation."""
    spectrum = stft(audio, size=FRAME, shift=HOP).transpose(2, 0, 1)
    taps = min(10, COEFFICIENTS // len(audio))
    clean = wpe_v8(spectrum, taps=taps, delay=DELAY, iterations=ITERATIONS)
    heard = np.asarray(istft(clean.transpose(1, 2, 0), size=FRAME, shift=HOP), dtype=np.float32)
    return heard[:, : audio.shape[1]]


def aligned_sum(audio: np.ndarray) -> np.ndarray:
    """(M, T) → (1, T): microphones aligned to the last one and averaged."""
    samples = audio.shape[1]
    spectrum = np.asarray(rfft(audio, 2 * samples))
    cross = spectrum[-1] * spectrum.conj()
    correlation = irfft(cross / (np.abs(cross) + 1e-9), 2 * samples)
    near = np.concatenate([correlation[:, -LARGEST_LAG:], correlation[:, : LARGEST_LAG + 1]], axis=1)
    lags = near.argmax(axis=1) - LARGEST_LAG
    moved = [np.roll(microphone, lag) for microphone, lag in zip(audio, lags, strict=True)]
    return np.stack(moved).mean(axis=0, keepdims=True)


FRONT_ENDS = {
    "as-is": lambda audio: audio,
    "nara-wpe": by_nara_wpe,
    "wpe": lambda audio: dereverberate(audio, SAMPLE_RATE),
    "delay-and-sum": aligned_sum,
    "mvdr": lambda audio: beamform(audio, SAMPLE_RATE),
    "wpe-delay-and-sum": lambda audio: aligned_sum(dereverberate(audio, SAMPLE_RATE)),
}


class Heard(EvaluationSet):
    """Recordings after a front-end."""

    front_end = "as-is"

    def __getitem__(self, index: int) -> EvaluationItem:  # type: ignore[override]
        item = super().__getitem__(index)
        assert item.recording.audio is not None
        return replace(item, recording=Recording(FRONT_ENDS[self.front_end](item.recording.audio)))


def main(checkpoint: Path, ravdess: Path, rooms: Path, out: Path) -> None:
    recognizer = Recognizer.load(checkpoint, front_end="none")
    (recipe,) = recognizer.recipes
    clips = split_clips(load_clips("ravdess", ravdess), recipe.data.split).part("test")
    for mics in ([0], [0, 1, 2], [0, 1, 2, 3, 4, 5, 6]):
        for name in FRONT_ENDS:
            if len(mics) == 1 and name not in ("as-is", "nara-wpe", "wpe"):
                continue
            items = Heard(clips, recipe, [Bank.open(rooms)], mics)
            items.front_end = name
            with progress(f"{name}, {len(mics)}", "recordings") as advance:
                table = prediction_table(recognizer, items, advance)
            found = write_evaluation(table, out / f"{name}-{len(mics)}", f"{name}, {len(mics)} microphones", {})
            print(f"{name}, {len(mics)} microphones: {found.overall.accuracy}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*(Path(word) for word in sys.argv[1:]))
