"""What microphones record: dry speech convolved with the room's responses, and noise at a given level.

In PyTorch, in batches, on the device of the model. Letters: B batch, M microphones, T samples, L taps.
"""

from __future__ import annotations

import torch
from scipy.fft import next_fast_len
from torch import Tensor


def convolve(dry: Tensor, taps: Tensor) -> Tensor:
    """dry (B, T), taps (B, M, L) → (B, M, T) float32: the first T samples of their linear convolution."""
    samples = dry.shape[-1]
    taps = taps[..., :samples]  # Later taps do not reach into the output.
    n_fft = int(next_fast_len(samples + taps.shape[-1] - 1, real=True))
    spectrum = torch.fft.rfft(dry.float(), n_fft)[:, None] * torch.fft.rfft(taps.float(), n_fft)
    wet: Tensor = torch.fft.irfft(spectrum, n_fft)[..., :samples]
    return wet


def add_noise(clean: Tensor, noise: Tensor, snr_db: Tensor) -> Tensor:
    """clean (B, M, T), noise (B, M, T), snr_db (B,) → (B, M, T): their sum, with the noise at the given level.

    The energies over all microphones have the ratio snr_db. One gain for all microphones keeps the levels between them.
    No noise is added where snr_db is infinite, or where the noise or the speech is silent.
    """
    energy = noise.square().sum(dim=(1, 2))
    energy = torch.where(energy > 0, energy, 1.0)  # Silence stays silent at any gain.
    gain = 10 ** (-snr_db / 20) * (clean.square().sum(dim=(1, 2)) / energy).sqrt()
    return clean + gain[:, None, None] * noise


def record(wet: Tensor, noise: Tensor, snr_db: Tensor, working: Tensor) -> Tensor:
    """Speech in the room (B, M, T), noise (B, M, T), its level snr_db (B,) → (B, M, T), what is recorded.

    working (B, M) bool: a dead microphone records nothing.
    """
    return add_noise(wet, noise, snr_db) * working[..., None]
