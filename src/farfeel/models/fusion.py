"""Late fusion: the embeddings of sound and film side by side, a hidden layer, logits (Cohen, Hazan and Gannot,
arXiv 2409.09545).

    seen (B, 768) | heard (B, 768) -- concatenation --> 1536 --> ReLU --> K

Beyond the paper: where a clip has no sound, or no film, a learned vector stands in for the missing embedding, so that
one checkpoint serves both modalities and each of them alone, mixed in any way within a batch. With `experts`, each
modality's own logits are added: were sound and face independent given the emotion, their log-probabilities would add,
and the hidden layer need only learn what they are not. A modality alone is then as good as its own network.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from farfeel import recipe


class LateFusion(nn.Module):
    """What is known of a modality travels as one tensor: its embedding (B, D), and with `experts` its logits (B, K)."""

    def __init__(self, audio_dim: int, video_dim: int, classes: int, fusion: recipe.Fusion) -> None:
        super().__init__()
        self.linear1 = nn.Linear(audio_dim + video_dim, fusion.hidden)
        self.dropout = nn.Dropout(fusion.dropout)
        self.linear2 = nn.Linear(fusion.hidden, classes)
        self.absent_audio = nn.Parameter(torch.zeros(audio_dim))
        self.absent_video = nn.Parameter(torch.zeros(video_dim))
        self.video_head = nn.Linear(video_dim, classes) if fusion.experts else None
        self.logits = classes if fusion.experts else 0
        if fusion.experts:  # Each modality's own network is the start: training adds to it, and need not undo noise.
            nn.init.zeros_(self.linear2.weight)
            nn.init.zeros_(self.linear2.bias)

    def heard(self, latent: Tensor, logits: Tensor) -> Tensor:
        """HTS-AT's embedding (B, Da) and logits (B, K)."""
        return torch.cat([latent, logits], dim=1) if self.logits else latent

    def seen(self, latent: Tensor) -> Tensor:
        """R(2+1)D's embedding (B, Dv)."""
        return latent if self.video_head is None else torch.cat([latent, self.video_head(torch.relu(latent))], dim=1)

    def no_sound(self) -> Tensor:
        """What stands in for `heard`; it has no opinion of its own."""
        return F.pad(self.absent_audio, (0, self.logits))

    def no_film(self) -> Tensor:
        return F.pad(self.absent_video, (0, self.logits))

    def forward(self, heard: Tensor, seen: Tensor) -> Tensor:
        """→ logits (B, K). The film comes first in the concatenation, as in the reference's weights."""
        audio, own_audio = heard.split([len(self.absent_audio), self.logits], dim=1)
        video, own_video = seen.split([len(self.absent_video), self.logits], dim=1)
        fused = self.linear2(self.dropout(torch.relu(self.linear1(torch.cat([video, audio], dim=1)))))
        return fused + own_audio + own_video if self.logits else fused


def where_present(present: Tensor, stand_in: Tensor, embed: Callable[[Tensor | slice], Tensor]) -> Tensor:
    """Embeddings (B, D): `embed(rows)` of the rows (R,) that `present` (B,) names, `stand_in` (D,) for the others.

    The others are not computed at all: fed silence or darkness, they would shift the batch norm of everyone.
    """
    if torch.compiler.is_exporting():  # An exported graph computes every row; its batch norm is fixed.
        return torch.where(present[:, None], embed(slice(None)), stand_in)
    rows = present.nonzero()[:, 0]
    absent = stand_in.expand(len(present), -1)
    if not len(rows):
        return absent
    latent = embed(rows)
    return latent if len(rows) == len(present) else absent.to(latent.dtype).index_copy(0, rows, latent)
