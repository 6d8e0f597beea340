"""The mel scale of the model's spectrograms: Slaney's, with filters of equal area."""

from __future__ import annotations

import numpy as np

POWER_FLOOR = 1e-10  # -100 dB: far below any microphone's noise, and no log of zero.


def hz_to_mel(hz: np.ndarray | float) -> np.ndarray:
    """Slaney's Auditory Toolbox scale (1998): linear below 1 kHz, logarithmic above (27 steps to a factor 6.4)."""
    hz = np.asarray(hz, dtype=np.float64)
    return np.where(hz < 1000.0, 3.0 * hz / 200.0, 15.0 + 27.0 * np.log(np.maximum(hz, 1e-3) / 1000.0) / np.log(6.4))


def mel_to_hz(mel: np.ndarray | float) -> np.ndarray:
    """Inverse of `hz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    return np.where(mel < 15.0, 200.0 * mel / 3.0, 1000.0 * np.exp(np.log(6.4) * (mel - 15.0) / 27.0))


def mel_filters(sample_rate: int, n_fft: int, bands: int, fmin_hz: float, fmax_hz: float) -> np.ndarray:
    """Triangular filters of equal area, (n_fft // 2 + 1, Q) float32. A filter above half the sample rate is empty."""
    bins_hz = np.linspace(0.0, sample_rate / 2.0, n_fft // 2 + 1)
    edges_hz = mel_to_hz(np.linspace(hz_to_mel(fmin_hz), hz_to_mel(fmax_hz), bands + 2))
    lower, centre, upper = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz[:, None] - lower) / (centre - lower)
    falling = (upper - bins_hz[:, None]) / (upper - centre)
    triangles = np.clip(np.minimum(rising, falling), 0.0, None)
    return (triangles * 2.0 / (upper - lower)).astype(np.float32)
