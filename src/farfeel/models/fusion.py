"""Late fusion: the embeddings of sound and film side by side, a hidden layer, logits (Cohen, Hazan and Gannot,
arXiv 2409.09545).

    seen (B, 768) | heard (B, 768) -- concatenation --> 1536 --> ReLU --> K

Beyond the paper: where a clip has no sound, or no film, a learned vector stands in for the missing embedding, so that
one checkpoint serves both modalities and each of them alone, mixed in any way within a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from farfeel import recipe


class LateFusion(nn.Module):
    def __init__(self, audio_dim: int, video_dim: int, classes: int, fusion: recipe.Fusion) -> None:
        super().__init__()
        self.linear1 = nn.Linear(audio_dim + video_dim, fusion.hidden)
        self.dropout = nn.Dropout(fusion.dropout)
        self.linear2 = nn.Linear(fusion.hidden, classes)
        self.absent_audio = nn.Parameter(torch.zeros(audio_dim))
        self.absent_video = nn.Parameter(torch.zeros(video_dim))

    def forward(self, heard: Tensor, seen: Tensor) -> Tensor:
        """(B, Da), (B, Dv) → logits (B, K). The film comes first, as in the reference's weights."""
        return self.linear2(self.dropout(torch.relu(self.linear1(torch.cat([seen, heard], dim=1)))))


def where_present(present: Tensor, stand_in: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
    """Embeddings (B, D): `embed(rows)` of the rows (R,) that `present` (B,) names, `stand_in` (D,) for the others.

    The others are not computed at all: fed silence or darkness, they would shift the batch norm of everyone.
    """
    rows = present.nonzero()[:, 0]
    absent = stand_in.expand(len(present), -1)
    if not len(rows):
        return absent
    latent = embed(rows)
    return latent if len(rows) == len(present) else absent.to(latent.dtype).index_copy(0, rows, latent)
