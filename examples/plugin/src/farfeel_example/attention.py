"""A late fusion: one class here, and one line in pyproject.toml."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from farfeel import recipe
from farfeel.models.fusion import LateFusion


class Attention(LateFusion):
    """Attention over modalities: each clip weighs its audio and its video.

    Both embeddings are projected to the width `fusion.hidden`. A small network scores each of them, and the softmax of
    the two scores is the weights of their sum. A modality that a clip lacks is replaced by a learned vector of the base
    class, so that the fusion can learn to give it no weight.

    units: width of the scoring network.
    """

    def __init__(self, audio_dim: int, video_dim: int, classes: int, fusion: recipe.Fusion, units: int = 64) -> None:
        super().__init__(audio_dim, video_dim, classes, fusion)
        self.audio = nn.Sequential(nn.LayerNorm(audio_dim), nn.Linear(audio_dim, fusion.hidden))
        self.video = nn.Sequential(nn.LayerNorm(video_dim), nn.Linear(video_dim, fusion.hidden))
        self.score = nn.Sequential(nn.Linear(fusion.hidden, units), nn.Tanh(), nn.Linear(units, 1))
        self.dropout = nn.Dropout(fusion.dropout)
        self.output = nn.Linear(fusion.hidden, classes)
        self.add_experts(classes, fusion)

    def weights(self, audio: Tensor, video: Tensor) -> Tensor:
        """Embeddings (B, Da) and (B, Dv) → the weights of both (B, 2), which sum to 1."""
        return self._weighed(audio, video)[1]

    def fuse(self, audio: Tensor, video: Tensor) -> Tensor:
        """Embeddings (B, Da) and (B, Dv), of which each may be a stand-in → logits (B, K)."""
        both, weights = self._weighed(audio, video)
        return self.output(self.dropout((both * weights[..., None]).sum(dim=1)))

    def _weighed(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.relu(torch.stack([self.audio(audio), self.video(video)], dim=1))  # (B, 2, hidden)
        return both, torch.softmax(self.score(both).squeeze(2).float(), dim=1)
