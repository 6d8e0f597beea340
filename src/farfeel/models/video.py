"""R(2+1)D (Tran et al., CVPR 2018, arXiv 1711.11248) on the frames of a face: convolutions in space, then in time.

    frames (B, 3, N, H, W) in [0, 1] -- Kinetics normalisation --> stem, four stages --> mean --> embedding (B, 768)

`r2plus1d_18` is torchvision's network, for its Kinetics weights; `compact` stacks torchvision's blocks narrower and
shallower, for a processor. Their layers have the same names.
"""

from __future__ import annotations

from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models.video import R2Plus1D_18_Weights, r2plus1d_18
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

from farfeel import recipe
from farfeel.support.text import one_line
from farfeel.types import FarfeelError

EMBEDDING = 768  # As wide as HTS-AT's embedding: neither modality outnumbers the other in the concatenation.
KINETICS_MEAN = (0.43216, 0.394666, 0.37645)  # of RGB in [0, 1], as torchvision's weights expect
KINETICS_STD = (0.22803, 0.22145, 0.216989)


class VideoEncoder(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, video: recipe.Video) -> None:
        super().__init__()
        self.network = CompactR2Plus1D(video) if video.network == "compact" else r2plus1d_18()
        self.network.fc = nn.Sequential(nn.Dropout(video.dropout), nn.Linear(self.network.fc.in_features, EMBEDDING))
        self.register_buffer("mean", torch.tensor(KINETICS_MEAN).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(KINETICS_STD).view(3, 1, 1, 1), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, 3, N, H, W) in [0, 1] → (B, 768)."""
        normalised = (frames - self.mean) / self.std
        # On a processor films are learned from in float32: oneDNN's (3.11, torch 2.12) bfloat16 weight gradient of a
        # convolution over fewer frames than it has taps is garbage, often NaN.
        in_bf16 = torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled()
        # Channels last is a fifth faster in bfloat16 and on tensor cores, and slower in float32 (benchmarks/model.py).
        layout = torch.channels_last_3d if in_bf16 or frames.is_cuda else torch.contiguous_format
        with torch.autocast("cpu", enabled=in_bf16):
            return self.network(normalised.contiguous(memory_format=layout))


class CompactR2Plus1D(nn.Module):
    """The same stem, stages and blocks as r2plus1d_18, with `width` channels in the first stage.

    Departure: each clip's colours are first brought to mean 0 and variance 1. Trained from nothing on little, the
    network otherwise learns the light and the skin before the face.
    """

    def __init__(self, video: recipe.Video) -> None:
        super().__init__()
        width = video.width
        self.light = nn.InstanceNorm3d(3, eps=1e-2)
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        channels = width
        stages = []
        for stage, blocks in enumerate(video.blocks):
            wider = width * 2**stage
            stages.append(_stage(channels, wider, blocks, stride=1 if stage == 0 else 2))
            channels = wider
        for number, layers in enumerate(stages, start=1):
            self.add_module(f"layer{number}", layers)
        self.stages = len(stages)
        self.fc = nn.Linear(channels, EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self.light(x))
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(x.mean(dim=(2, 3, 4)))


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Residual blocks; the first halves time, height and width where the stride is 2."""
    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(
            nn.Conv3d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm3d(channels)
        )
    first = BasicBlock(channels_in, channels, Conv2Plus1D, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels, Conv2Plus1D) for _ in range(blocks - 1)))


def kinetics_weights() -> dict[str, Tensor]:
    """torchvision's Kinetics-400 weights of r2plus1d_18, from its cache or from the network, checksum verified."""
    weights = R2Plus1D_18_Weights.KINETICS400_V1
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: another checksum
        raise FarfeelError(
            f"the Kinetics weights are not in torch's cache and cannot be downloaded ({one_line(error)}); "
            f"fetch {weights.url} elsewhere and name it with --video-weights FILE, or go without: --video-weights none"
        ) from None
    return state


def to_frames(film: Tensor) -> Tensor:
    """(B, N, H, W, 3) uint8 → (B, 3, N, H, W) float in [0, 1]."""
    return film.permute(0, 4, 1, 2, 3).float() / 255
