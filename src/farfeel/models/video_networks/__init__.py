"""Video networks: from the frames of a face to an embedding. One file for each network.

    frames (B, 3, N, H, W) in [0, 1] -- Kinetics normalisation --> network --> embedding (B, 768)

Both networks here are R(2+1)D (Tran et al., CVPR 2018, arXiv 1711.11248): convolutions in space, then in time. Their
layers have the same names.
"""

from __future__ import annotations

from typing import ClassVar
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models.video import R2Plus1D_18_Weights

from farfeel import recipe
from farfeel.support.text import one_line
from farfeel.types import FarfeelError
from farfeel.variants import VIDEO_NETWORKS

EMBEDDING = 768  # As wide as HTS-AT's embedding: neither modality outnumbers the other in the concatenation.
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)  # of RGB in [0, 1], as torchvision's weights expect
KINETICS_STD = (0.22803, 0.22145, 0.216989)


class VideoNetwork(nn.Module):
    """The base class of all video networks. It need not be used: a network needs a constructor and `forward` alone.

    video: the recipe's section. `video.options` come as further keyword arguments, for networks that have some.
    """

    sharded: ClassVar[tuple[type[nn.Module], ...]] = ()
    """Its blocks that FSDP gathers one at a time. A network that names none is gathered as a whole."""
    pretrained: ClassVar[str] = "none"
    """The weights that training starts from by default: kinetics or none. It must be a literal."""

    def __init__(self, video: recipe.Video) -> None:
        super().__init__()

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, N, H, W), RGB with the mean 0 and deviation 1 of Kinetics → embedding (B, 768)."""
        raise NotImplementedError


class VideoEncoder(nn.Module):
    """Normalisation and the network that the recipe names. video: the recipe's section. Raises FarfeelError."""

    mean: Tensor
    std: Tensor

    def __init__(self, video: recipe.Video) -> None:
        super().__init__()
        self.network: nn.Module = VIDEO_NETWORKS.build(video.network, "video.options", video.options, video)
        self.register_buffer("mean", torch.tensor(KINETICS_MEAN).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(KINETICS_STD).view(3, 1, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, N, H, W) in [0, 1] → (B, 768)."""
        normalised = (frames - self.mean) / self.std
        # On a processor, training on video is in float32: oneDNN's (3.11, torch 2.12) bfloat16 weight gradient of a
        # convolution over fewer frames than it has taps is garbage, often NaN.
        in_bf16 = torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled()
        # Channels last is a fifth faster in bfloat16 and on tensor cores, and slower in float32 (benchmarks/model.py).
        layout = torch.channels_last_3d if in_bf16 or frames.is_cuda else torch.contiguous_format
        with torch.autocast("cpu", enabled=in_bf16):
            return self.network(normalised.contiguous(memory_format=layout))


def embedding_layer(features: int, dropout: float) -> nn.Sequential:
    """The last layer of both networks: (B, features) → (B, 768)."""
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(features, EMBEDDING))


def kinetics_weights() -> dict[str, Tensor]:
    """torchvision's Kinetics-400 weights of r2plus1d_18, from its cache or from the network, checksum verified.

    Returns name → tensor. Raises FarfeelError where they can be had from neither.
    """
    weights = R2Plus1D_18_Weights.KINETICS400_V1
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: another checksum
        raise FarfeelError(
            f"the Kinetics weights are not in torch's cache and cannot be downloaded ({one_line(error)}); "
            f"fetch {weights.url} elsewhere and name it with --video-weights FILE, or go without: --video-weights none"
        ) from None
    return state


def to_frames(video: Tensor) -> Tensor:
    """(B, N, H, W, 3) uint8 → (B, 3, N, H, W) float in [0, 1]."""
    return video.permute(0, 4, 1, 2, 3).float() / 255
