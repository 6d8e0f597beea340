"""Fusion of embeddings, for any number of microphones."""

from __future__ import annotations

from torch import Tensor

from farfeel.models.microphones import Embed, MicFusion, embed_each


class NormalisedSum(MicFusion):
    """The sum of sum-patches, divided by the number of working microphones: any number gives the same scale."""

    def forward(self, mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
        working = mic_mask.sum(dim=1).view(-1, 1, 1, 1)
        return embed_each(mels, mic_mask, embed).sum(dim=1) / working
