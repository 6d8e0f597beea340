"""When somebody speaks: sound that rises above a room's steady noise, frame by frame, without a look ahead.

In each band of hearing (Zwicker, 1961: critical bands) the noise floor is the least smoothed power of the last
FLOOR_S: minimum statistics (Martin, 2001). A frame is speech where its bands stand above their floors, taken over
all microphones: a fan, a hum or digital silence never does for long, however loud, and a distant voice does, however
quiet. Nothing here knows a voice from a knock, a dog or a radio: it says where there is something to listen to.

A frame belongs to FRAME_S of time at any sample rate; each is computed alone, so that the size of blocks cannot matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

FRAME_S = 0.03
FLOOR_S = 2.1  # Longer than a word, so that a voice is no floor; and a fan that starts is a floor after as long.
EDGES_HZ = (100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700, 3150, 3700, 4400)
SMOOTHING = 0.7  # of power from frame to frame, before the minimum is sought
WARM_UP = 3  # frames before there is a floor to rise above
BIAS = 1.7  # The mean of steady noise over the least of its smoothed powers.
CAP_DB = 20.0  # A band counts up to here: one whistle is no voice.
THRESHOLD_DB = 2.4  # RMS over bands. Chosen, as the four above, on speech in measured rooms with noise.
HANGOVER_S = 0.12  # The weak end of a word is still speech.
SILENCE_DB = -90.0  # RMS below which a microphone is silent in a frame, and to which no floor falls.
BATCH = 1000  # frames at once: bounds the memory of a long block
JOIN_S = 0.3  # Gaps shorter than this lie within a sentence.


class SpeechActivity:
    """Tells speech from background in a stream of M microphones; dead ones (silent, constant, not finite) are passed
    over, frame by frame."""

    def __init__(self, sample_rate: int, mics: int) -> None:
        self.sample_rate = sample_rate
        self._length = self._begin(1)
        self._window = np.hanning(self._length + 2)[1:-1]
        frequencies = np.fft.rfftfreq(self._length, 1 / sample_rate)
        edges = np.searchsorted(frequencies, EDGES_HZ)
        self._edges, self._widths = edges[:-1][np.diff(edges) > 0], np.diff(edges)[np.diff(edges) > 0]
        self._last_bin = edges[-1]
        self._silence = np.mean(self._window**2) * 10 ** (SILENCE_DB / 10)
        self._pending = np.empty((mics, 0), dtype=np.float32)
        self._frames = 0  # complete so far
        self._smoothed = np.full((round(FLOOR_S / FRAME_S) - 1, mics, len(self._edges)), np.inf)  # of the last frames
        self._mean = np.zeros((mics, len(self._edges)))
        self._score = 0.0
        self._hangover = 0  # frames that are still speech

    def push(self, audio: np.ndarray) -> np.ndarray:
        """(M, n) samples, n of any size → bool, one for each frame that is complete with them."""
        audio = np.concatenate([self._pending, audio], axis=1)
        origin = self._begin(self._frames)
        count = 0
        while self._begin(self._frames + count + 1) - origin <= audio.shape[1]:
            count += 1
        begins = [self._begin(self._frames + frame) - origin for frame in range(count + 1)]
        self._pending = audio[:, begins.pop() :].copy()
        flags = [
            self._are_speech(audio[:, np.add.outer(begins[at : at + BATCH], np.arange(self._length))])
            for at in range(0, count, BATCH)
        ]
        return np.concatenate([np.empty(0, dtype=bool), *flags])

    def _begin(self, frame: int) -> int:
        """First sample of a frame: rounded for each, so that frames keep to the clock at every sample rate."""
        return int(frame * FRAME_S * self.sample_rate + 1e-6)

    def _are_speech(self, frames: np.ndarray) -> np.ndarray:
        """(M, N, n) the next N frames → (N,) bool."""
        power = self._band_power(frames)
        alive = power.mean(axis=2) > self._silence
        power = np.maximum(power, self._silence)
        smoothed = np.empty_like(power)
        for at, frame in enumerate(power):
            # At first the mean so far: one frame of noise alone may lie far below the rest.
            share = max(1 - SMOOTHING, 1 / (self._frames + at + 1))
            self._mean = (1 - share) * self._mean + share * frame
            smoothed[at] = self._mean if self._frames + at >= WARM_UP else np.inf
        smoothed = np.concatenate([self._smoothed, smoothed])
        floor = sliding_window_view(smoothed, len(self._smoothed) + 1, axis=0).min(axis=-1)
        self._smoothed = smoothed[len(power) :]
        self._frames += len(power)
        living = np.maximum(alive.sum(axis=1), 1)[:, None]
        ratio = np.where(alive[..., None], power / (BIAS * floor), 0).sum(axis=1) / living
        above_db = np.clip(10 * np.log10(np.maximum(ratio, 1)), 0, CAP_DB)
        scores_db = np.sqrt(np.mean(above_db**2, axis=1))
        heard = alive.any(axis=1)
        return np.array([self._step(*frame) for frame in zip(scores_db.tolist(), heard.tolist(), strict=True)])

    def _step(self, above_db: float, heard: bool) -> bool:
        self._score = (self._score + above_db) / 2
        self._hangover -= 1
        if heard and self._score > THRESHOLD_DB:
            self._hangover = round(HANGOVER_S / FRAME_S)
        return self._hangover >= 0

    def _band_power(self, frames: np.ndarray) -> np.ndarray:
        """(M, N, n) → (N, M, bands) mean power, 0 where a microphone gave anything but finite numbers."""
        heard = np.isfinite(frames).all(axis=2)
        frames = np.where(heard[..., None], frames, 0).astype(np.float64)
        frames -= frames.mean(axis=2, keepdims=True)  # A constant would leak past the window into the lowest band.
        spectrum = np.fft.rfft(frames * self._window)
        power = (spectrum.real**2 + spectrum.imag**2)[..., : self._last_bin] / self._length
        return (np.add.reduceat(power, self._edges, axis=2) / self._widths).swapaxes(0, 1)


def spans(flags: Sequence[bool] | np.ndarray) -> list[tuple[float, float]]:
    """Flags of frames → (start_s, end_s) of speech, where pauses shorter than JOIN_S are part of it."""
    edges = np.diff(np.concatenate([[0], np.asarray(flags, dtype=np.int8), [0]]))
    found: list[tuple[float, float]] = []
    for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        start_s, end_s = round(float(start * FRAME_S), 6), round(float(end * FRAME_S), 6)
        if found and start_s - found[-1][1] < JOIN_S - 1e-6:
            start_s = found.pop()[0]
        found.append((start_s, end_s))
    return found
