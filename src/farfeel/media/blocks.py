"""A long recording in blocks that overlap, each treated by itself: people and things move."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BLOCK_S = 8.0


def in_blocks(audio: np.ndarray, sample_rate: int, treat: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(M, T) → (M, T) float32: `treat` on blocks that overlap by half, faded into each other; on the whole where it is
    no longer than a block."""
    block = round(BLOCK_S * sample_rate)
    if audio.shape[1] <= block:
        return treat(audio)
    step = block // 2
    starts = range(0, audio.shape[1] - step, step)
    rise = (np.arange(step, dtype=np.float32) + 0.5) / step
    found = np.zeros(audio.shape, np.float32)
    for start in starts:
        piece = treat(audio[:, start : start + block]).copy()
        if start != starts[0]:
            piece[:, :step] *= rise
        if start != starts[-1]:
            piece[:, step:] *= 1 - rise
        found[:, start : start + block] += piece
    return found
