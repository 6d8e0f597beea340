"""Augmentation of log-mels, in training only: random equalisers, warps, and masks of time and of frequency.

All microphones of a clip get the same changes. A mask of one microphone alone would be filled from the others. What
colours a voice (a talker who turns away, the absorption of the room) colours it at every microphone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from farfeel.recipe import Augment

FILTER_POINTS = 6  # Between them the equaliser is a straight line in dB. Voices and rooms have no finer colour.


class Equaliser(nn.Module):
    """(B, M, Q, F) log-mels + a curve over the bands, drawn for each clip: each of a few points within ± filter_db.

    FilterAugment (Nam et al., ICASSP 2022), linear form. It imitates loudspeakers, microphones, talkers who look away
    and walls that absorb high frequencies. Simulated rooms have none of these.
    """

    def __init__(self, augment: Augment) -> None:
        super().__init__()
        self.filter_db = augment.filter_db

    def forward(self, mels: Tensor) -> Tensor:
        if not self.training or not self.filter_db:
            return mels
        points_db = self.filter_db * (2 * torch.rand(len(mels), 1, FILTER_POINTS, device=mels.device) - 1)
        curve_db = F.interpolate(points_db, size=mels.shape[2], mode="linear", align_corners=True)
        return mels + curve_db[..., None]


class Warp(nn.Module):
    """(B, M, Q, F) log-mels, stretched along the bands and along the frames by factors drawn for each clip.

    It imitates another vocal tract, and the same voice at another tempo. Playing speed changes both together. Beyond
    the edges the outermost band or frame is repeated.
    """

    def __init__(self, augment: Augment) -> None:
        super().__init__()
        self.vtlp, self.tempo = augment.vtlp, augment.tempo

    def forward(self, mels: Tensor) -> Tensor:
        if not self.training or not (self.vtlp or self.tempo):
            return mels
        clips, _, bands, frames = mels.shape
        by_band, by_frame = (
            1 + widest * (2 * torch.rand(clips, 1, device=mels.device) - 1) for widest in (self.vtlp, self.tempo)
        )
        # Bands are stretched from the lowest, frames from the middle.
        from_band = (torch.linspace(0, 2, bands, device=mels.device) * by_band - 1)[:, :, None]
        from_frame = (torch.linspace(-1, 1, frames, device=mels.device) * by_frame)[:, None, :]
        grid = torch.stack(torch.broadcast_tensors(from_frame, from_band), dim=-1)
        return F.grid_sample(mels, grid, padding_mode="border", align_corners=True)


class SpecAugment(nn.Module):
    """SpecAugment (Park et al., 2019): (B, M, Q, F) → the same shape. Some spans of frames and of bands are set to the
    mean of their spectrogram."""

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
            hidden |= _span(clips, frames, augment.time_mask_share, mels.device)[:, None, None, :]
        for _ in range(augment.band_masks):
            hidden |= _span(clips, bands, augment.band_mask_share, mels.device)[:, None, :, None]
        return mels.where(~hidden, mels.mean(dim=(2, 3), keepdim=True))


def _span(clips: int, length: int, widest: float, device: torch.device) -> Tensor:
    """(clips, length) bool: one span in each clip, at random, with a uniform width up to widest x length."""
    width = torch.rand(clips, 1, device=device) * widest * length
    start = torch.rand(clips, 1, device=device) * (length - width)
    index = torch.arange(length, device=device)
    return (index >= start) & (index < start + width)
