"""Audio networks: from log-mels to logits and an embedding. One file for each network."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from farfeel import recipe


class AudioOutput(NamedTuple):
    """What an audio network makes of tokens: logits (B, K), latent (B, D), its embedding, and framewise (B, T', K), the
    logits of each time token, where the network has them."""

    logits: Tensor
    latent: Tensor
    framewise: Tensor | None = None


class AudioNetwork(nn.Module):
    """The base class of all audio networks. Two steps, so that a microphone strategy can fuse between them.

    model: the recipe's section. mel_bands: Q. classes: K. member: the index of this network in an ensemble, from 0.
    `model.options` come as further keyword arguments, for networks that have some.
    """

    sharded: ClassVar[tuple[type[nn.Module], ...]] = ()
    """Its blocks that FSDP gathers one at a time. A network that names none is gathered as a whole."""

    latent_dim: int
    """D, the width of the embedding. A constructor sets it."""

    def __init__(self, model: recipe.Model, mel_bands: int, classes: int, member: int = 0) -> None:
        super().__init__()

    def embed(self, mels: Tensor) -> Tensor:
        """(N, Q, F) log-mels in dB → (N, H', W', D0) tokens."""
        raise NotImplementedError

    def forward(self, tokens: Tensor) -> AudioOutput:
        """(B, H', W', D0) tokens, after the microphone strategy → AudioOutput."""
        raise NotImplementedError


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm around a strided shortcut (He et al., 2016).

    (N, C, H, W) → (N, C', H/s, W/s), with stride s.
    """

    def __init__(self, channels_in: int, channels: int, stride: int | tuple[int, int]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(stride, ceil_mode=True),
            nn.Conv2d(channels_in, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.body(x) + self.shortcut(x))
