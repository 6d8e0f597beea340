"""Temperature scaling (Guo et al., 2017, arXiv 1706.04599), on probabilities.

The logits are not needed. log p, with p = softmax(logits), differs from the logits by one constant per row, so that
softmax(log p / T) equals softmax(logits / T). A temperature above 1 makes probabilities less sure, one below 1 surer.
The likeliest emotion of a window stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COMBINATIONS = ("audio alone", "video alone", "both")  # of modalities; each has a temperature, in this order
COLDEST, HOTTEST = 0.2, 5.0
SMALLEST = float(np.finfo(np.float32).tiny)  # In float32 the softmax of small logits is 0.


def tempered(probabilities: np.ndarray, temperature: np.ndarray | float) -> np.ndarray:
    """(…, K) at temperature 1, and one temperature or (…,) → (…, K). The inverse temperature reverses it."""
    scaled = np.log(np.maximum(probabilities, SMALLEST)) / np.asarray(temperature)[..., None]
    raised = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def combinations_of(modalities: str, mic_mask: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """A recipe's modalities, mic_mask (W, M), seen (W,) → (W,) index in COMBINATIONS, as in EmotionModel."""
    has_audio = mic_mask.any(axis=1) & (modalities != "video")
    return np.where(has_audio, np.where(seen, 2, 0), 1)


def mean_over_windows(windows: Sequence[np.ndarray], temperature: float) -> np.ndarray:
    """N recordings of (W, K) probabilities at temperature 1 → (N, K) at this one, as the Recognizer has them."""
    counts = [len(recording) for recording in windows]
    starts = np.cumsum([0, *counts[:-1]])
    sums = np.add.reduceat(tempered(np.concatenate(list(windows)), temperature), starts, axis=0)
    return np.asarray(sums / np.array(counts)[:, None])


def negative_log_likelihood(probabilities: np.ndarray, target: np.ndarray) -> float:
    """(N, K), (N,) → mean of -ln p(target)."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(target)), target], 1e-12)).mean())


def fit_temperature(windows: Sequence[np.ndarray], target: np.ndarray) -> float:
    """N recordings of (W, K) probabilities at temperature 1, target (N,) → the likeliest temperature, 0.2 to 5."""
    from scipy.optimize import minimize_scalar  # here: recognising needs only the functions above

    minimum = minimize_scalar(
        lambda log_t: negative_log_likelihood(mean_over_windows(windows, float(np.exp(log_t))), target),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(minimum.x))
