"""Long recordings are processed in overlapping blocks, because people and things move."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BLOCK_S = 8.0


def in_blocks(audio: np.ndarray, sample_rate: int, process: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply a function to a recording, block by block. The blocks overlap by half and are cross-faded.

    A recording that is no longer than one block is processed at once.

    Args:
        audio: (M, T) samples of M microphones.
        sample_rate: In hertz.
        process: Maps (M, n) samples to (M, n) samples.

    Returns:
        (M, T) float32.
    """
    block = round(BLOCK_S * sample_rate)
    if audio.shape[1] <= block:
        return process(audio)
    step = block // 2
    starts = range(0, audio.shape[1] - step, step)
    fade_in = (np.arange(step, dtype=np.float32) + 0.5) / step
    processed = np.zeros(audio.shape, np.float32)
    for start in starts:
        piece = process(audio[:, start : start + block]).copy()
        if start != starts[0]:
            piece[:, :step] *= fade_in
        if start != starts[-1]:
            piece[:, step:] *= 1 - fade_in
        processed[:, start : start + block] += piece
    return processed
