"""The late fusion of the paper (Cohen, Hazan and Gannot, arXiv 2409.09545).

video (B, 768) | audio (B, 768) -- concatenation --> 1536 --> ReLU --> K
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from farfeel import recipe
from farfeel.models.fusion import LateFusion


class Concatenation(LateFusion):
    """Both embeddings side by side, one hidden layer with ReLU, logits."""

    def __init__(self, audio_dim: int, video_dim: int, classes: int, fusion: recipe.Fusion) -> None:
        super().__init__(audio_dim, video_dim, classes, fusion)
        self.linear1 = nn.Linear(audio_dim + video_dim, fusion.hidden)
        self.dropout = nn.Dropout(fusion.dropout)
        self.linear2 = nn.Linear(fusion.hidden, classes)
        self.add_experts(classes, fusion)
        if fusion.experts:  # Each modality's own network is the start: training adds to it, and need not undo noise.
            nn.init.zeros_(self.linear2.weight)
            nn.init.zeros_(self.linear2.bias)

    def fuse(self, audio: Tensor, video: Tensor) -> Tensor:
        """→ logits (B, K). The video comes first in the concatenation, as in the reference's weights."""
        return self.linear2(self.dropout(torch.relu(self.linear1(torch.cat([video, audio], dim=1)))))
