"""Late fusion: from the embeddings of audio and of video to logits. One file for each fusion.

Where a clip has no audio, or no video, a learned vector stands in for the missing embedding. So one checkpoint serves
both modalities and each of them alone, mixed in any way within a batch.

With `fusion.experts`, each modality's own logits are added to the fused ones. If audio and video were independent given
the emotion, their log-probabilities would add, and the fusion need only learn the rest. One modality alone is then as
good as its own network.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from farfeel import recipe


class LateFusion(nn.Module):
    """The base class of all late fusions. A subclass makes its layers in its constructor and defines `fuse`.

    audio_dim: Da, width of the audio embedding. video_dim: Dv, width of the video embedding. classes: K. fusion: the
    recipe's section. `fusion.options` come as further keyword arguments, for fusions that have some.

    What is known of one modality travels as one tensor of features: its embedding, and with experts its own logits.
    """

    def __init__(self, audio_dim: int, video_dim: int, classes: int, fusion: recipe.Fusion) -> None:
        super().__init__()
        self.absent_audio = nn.Parameter(torch.zeros(audio_dim))
        self.absent_video = nn.Parameter(torch.zeros(video_dim))
        self.video_head: nn.Linear | None = None
        self.logits = 0  # how many of its own each modality brings

    def add_experts(self, classes: int, fusion: recipe.Fusion) -> None:
        """Let each modality's own logits be added, if the recipe has `fusion.experts`. Call it last in a constructor: a
        seed's random draws follow this order."""
        if fusion.experts:
            self.video_head = nn.Linear(len(self.absent_video), classes)
            self.logits = classes

    def audio_features(self, latent: Tensor, logits: Tensor) -> Tensor:
        """The audio network's embedding (B, Da) and logits (B, K) → features (B, Da or Da + K)."""
        return torch.cat([latent, logits], dim=1) if self.logits else latent

    def video_features(self, latent: Tensor) -> Tensor:
        """The video network's embedding (B, Dv) → features (B, Dv or Dv + K)."""
        return latent if self.video_head is None else torch.cat([latent, self.video_head(torch.relu(latent))], dim=1)

    def without_audio(self) -> Tensor:
        """The features (Da or Da + K,) of a clip without audio; their logits are 0."""
        return F.pad(self.absent_audio, (0, self.logits))

    def without_video(self) -> Tensor:
        """The features (Dv or Dv + K,) of a clip without video; their logits are 0."""
        return F.pad(self.absent_video, (0, self.logits))

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        """Features of both → logits (B, K)."""
        audio, own_audio = audio.split([len(self.absent_audio), self.logits], dim=1)
        video, own_video = video.split([len(self.absent_video), self.logits], dim=1)
        fused = self.fuse(audio, video)
        return fused + own_audio + own_video if self.logits else fused

    def fuse(self, audio: Tensor, video: Tensor) -> Tensor:
        """Embeddings (B, Da) and (B, Dv), of which each may be a stand-in → logits (B, K)."""
        raise NotImplementedError


def where_present(present: Tensor, stand_in: Tensor, embed: Callable[[Tensor | slice], Tensor]) -> Tensor:
    """Features (B, D): `embed(rows)` of the rows (R,) that `present` (B,) names, `stand_in` (D,) for the others.

    The others are not computed at all: silence or a dark picture would shift the batch norm for the whole batch.
    """
    if torch.compiler.is_exporting():  # An exported graph computes every row; its batch norm is fixed.
        return torch.where(present[:, None], embed(slice(None)), stand_in)
    rows = present.nonzero()[:, 0]
    absent = stand_in.expand(len(present), -1)
    if not len(rows):
        return absent
    latent = embed(rows)
    return latent if len(rows) == len(present) else absent.to(latent.dtype).index_copy(0, rows, latent)
