"""SpecAugment (Park et al., 2019): masks of time and of frequency on log-mels, in training only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from farfeel.recipe import Augment


class SpecAugment(nn.Module):
    """(B, M, Q, F) → same shape, with stretches of time and of bands set to each spectrogram's mean.

    One mask for all microphones of a clip: else the fusion would fill one microphone's gap from another's.
    """

    def __init__(self, augment: Augment) -> None:
        super().__init__()
        self.augment = augment

    def forward(self, mels: Tensor) -> Tensor:
        augment = self.augment
        if not self.training or not (augment.time_masks or augment.band_masks):
            return mels
        clips, _, bands, frames = mels.shape
        hidden = torch.zeros(clips, 1, bands, frames, dtype=torch.bool, device=mels.device)
        for _ in range(augment.time_masks):
            hidden |= _stretch(clips, frames, augment.time_mask_share, mels.device)[:, None, None, :]
        for _ in range(augment.band_masks):
            hidden |= _stretch(clips, bands, augment.band_mask_share, mels.device)[:, None, :, None]
        return mels.where(~hidden, mels.mean(dim=(2, 3), keepdim=True))


def _stretch(clips: int, length: int, widest: float, device: torch.device) -> Tensor:
    """(clips, length) bool: one stretch per clip, of uniform width up to widest x length, anywhere."""
    width = torch.rand(clips, 1, device=device) * widest * length
    start = torch.rand(clips, 1, device=device) * (length - width)
    place = torch.arange(length, device=device)
    return (place >= start) & (place < start + width)
