"""One microphone."""

from __future__ import annotations

from torch import Tensor

from farfeel.models.microphones import Embed, MicFusion, pick


class Single(MicFusion):
    """The first working microphone alone."""

    takes = "one"

    def forward(self, mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
        return embed(pick(mels, mic_mask.int().argmax(dim=1)))
