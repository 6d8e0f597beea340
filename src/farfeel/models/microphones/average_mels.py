"""Fusion of spectrograms."""

from __future__ import annotations

from torch import Tensor

from farfeel.models.microphones import Embed, MicFusion, mean_of_working


class AverageMels(MicFusion):
    """The mean of the log-mels of the working microphones, embedded once."""

    def forward(self, mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
        return embed(mean_of_working(mels, mic_mask))
