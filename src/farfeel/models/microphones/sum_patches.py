"""Fusion of embeddings, as published."""

from __future__ import annotations

from torch import Tensor

from farfeel.models.microphones import Embed, MicFusion, embed_each


class SumPatches(MicFusion):
    """Each microphone embedded with the same weights, and the embeddings summed, as in the paper.

    The sum grows with M: a checkpoint trained with 3 microphones needs 3. NormalisedSum takes any number.
    """

    takes = "as trained"

    def forward(self, mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
        return embed_each(mels, mic_mask, embed).sum(dim=1)
