"""Speech activity detection: audio that rises above the steady noise of a room, frame by frame, without look-ahead.

In each critical band the noise floor is the minimum of the smoothed power over the last FLOOR_S seconds. A frame counts
as speech if the power in its bands, averaged over the microphones, is well above the floors. A fan, a hum or digital
silence does not stay above its own floor for long, however loud it is. A distant voice does, however quiet it is. The
detector cannot distinguish a voice from a knock, a dog or a radio.

A frame lasts FRAME_S seconds at any sample rate. Each frame is computed separately, so the result does not depend on
the size of the blocks in which audio arrives.

Sources: critical bands (Zwicker, 1961); minimum statistics (Martin, 2001).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

FRAME_S = 0.03
# Longer than a word, so that a voice does not become the floor. A fan that starts becomes the floor after this time.
FLOOR_S = 2.1
EDGES_HZ = (100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700, 3150, 3700, 4400)
# SMOOTHING to THRESHOLD_DB were chosen on speech in measured rooms with noise.
SMOOTHING = 0.7  # Weight of the previous frame when the power is smoothed, before the minimum is taken.
WARM_UP = 3  # The first frames do not count for the floor.
BIAS = 1.7  # Mean power of steady noise divided by the minimum of its smoothed power.
CAP_DB = 20.0  # Limit of what one band contributes, because a whistle is not a voice.
THRESHOLD_DB = 2.4  # Level above the floor, as an RMS over the bands, from which on a frame is speech.
HANGOVER_S = 0.12  # Speech continues for this time, to include the weak ends of words.
SILENCE_DB = -90.0  # Below this RMS level a microphone is silent in a frame. No floor is lower.
BATCH = 1000  # Frames processed at once. It limits the memory that a long block needs.
JOIN_S = 0.3  # Shorter pauses lie within a sentence.


class SpeechActivity:
    """Detects speech in a stream of M microphones.

    Dead microphones (silent, constant, or with samples that are not finite) are ignored, frame by frame.

    Args:
        sample_rate: In hertz.
        mics: Number of microphones, M.
    """

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
        self._frames = 0  # number of complete frames
        # Smoothed power of the last frames.
        self._smoothed = np.full((round(FLOOR_S / FRAME_S) - 1, mics, len(self._edges)), np.inf)
        self._mean = np.zeros((mics, len(self._edges)))
        self._score = 0.0
        self._hangover = 0  # number of coming frames that are still speech

    def push(self, audio: np.ndarray) -> np.ndarray:
        """Add (M, n) samples, for any n.

        Returns:
            (N,) bool for the N frames that these samples complete: whether each is speech.
        """
        audio = np.concatenate([self._pending, audio], axis=1)
        origin = self._begin(self._frames)
        count = 0
        while self._begin(self._frames + count + 1) - origin <= audio.shape[1]:
            count += 1
        begins = [self._begin(self._frames + frame) - origin for frame in range(count + 1)]
        self._pending = audio[:, begins.pop() :].copy()
        flags = [
            self._classify(audio[:, np.add.outer(begins[at : at + BATCH], np.arange(self._length))])
            for at in range(0, count, BATCH)
        ]
        return np.concatenate([np.empty(0, dtype=bool), *flags])

    def _begin(self, frame: int) -> int:
        """Index of a frame's first sample. It is rounded for each frame, so that no error accumulates."""
        return int(frame * FRAME_S * self.sample_rate + 1e-6)

    def _classify(self, frames: np.ndarray) -> np.ndarray:
        """(M, N, n) the next N frames of n samples → (N,) bool."""
        power = self._band_power(frames)
        is_working = power.mean(axis=2) > self._silence  # (N, M)
        power = np.maximum(power, self._silence)
        smoothed = np.empty_like(power)
        for at, frame in enumerate(power):
            # The first frames are averaged with equal weights: a single frame of noise may be far below the mean.
            share = max(1 - SMOOTHING, 1 / (self._frames + at + 1))
            self._mean = (1 - share) * self._mean + share * frame
            smoothed[at] = self._mean if self._frames + at >= WARM_UP else np.inf
        smoothed = np.concatenate([self._smoothed, smoothed])
        floor = sliding_window_view(smoothed, len(self._smoothed) + 1, axis=0).min(axis=-1)
        self._smoothed = smoothed[len(power) :]
        self._frames += len(power)
        working = np.maximum(is_working.sum(axis=1), 1)[:, None]
        ratio = np.where(is_working[..., None], power / (BIAS * floor), 0).sum(axis=1) / working
        above_db = np.clip(10 * np.log10(np.maximum(ratio, 1)), 0, CAP_DB)
        scores_db = np.sqrt(np.mean(above_db**2, axis=1))
        has_audio = is_working.any(axis=1)
        return np.array([self._step(*frame) for frame in zip(scores_db.tolist(), has_audio.tolist(), strict=True)])

    def _step(self, above_db: float, has_audio: bool) -> bool:
        """Whether the next frame is speech. `above_db` is its level above the floor."""
        self._score = (self._score + above_db) / 2
        self._hangover -= 1
        if has_audio and self._score > THRESHOLD_DB:
            self._hangover = round(HANGOVER_S / FRAME_S)
        return self._hangover >= 0

    def _band_power(self, frames: np.ndarray) -> np.ndarray:
        """(M, N, n) → (N, M, bands) mean power. It is 0 for a microphone with samples that are not finite."""
        is_finite = np.isfinite(frames).all(axis=2)
        frames = np.where(is_finite[..., None], frames, 0).astype(np.float64)
        frames -= frames.mean(axis=2, keepdims=True)  # A constant would leak into the lowest band.
        spectrum = np.fft.rfft(frames * self._window)
        power = (spectrum.real**2 + spectrum.imag**2)[..., : self._last_bin] / self._length
        return (np.add.reduceat(power, self._edges, axis=2) / self._widths).swapaxes(0, 1)


def spans(flags: Sequence[bool] | np.ndarray) -> list[tuple[float, float]]:
    """Spans of speech from the flags of consecutive frames. Spans with a pause shorter than JOIN_S are joined.

    Args:
        flags: (N,) whether each frame is speech.

    Returns:
        (start_s, end_s) of each span, in seconds.
    """
    edges = np.diff(np.concatenate([[0], np.asarray(flags, dtype=np.int8), [0]]))
    joined: list[tuple[float, float]] = []
    for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        start_s, end_s = round(float(start * FRAME_S), 6), round(float(end * FRAME_S), 6)
        if joined and start_s - joined[-1][1] < JOIN_S - 1e-6:
            start_s = joined.pop()[0]
        joined.append((start_s, end_s))
    return joined
