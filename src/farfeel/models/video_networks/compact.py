"""A narrower and shallower R(2+1)D, for a processor."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

from farfeel import recipe
from farfeel.models.video_networks import EMBEDDING, VideoNetwork, embedding_layer


class Compact(VideoNetwork):
    """The same blocks as r2plus1d_18, fewer and narrower, for a processor.

    Departure: the colours of each clip are first brought to mean 0 and variance 1. Without pretraining and with little
    data, the network otherwise learns the light and the skin before the face.
    """

    sharded = (BasicBlock,)

    def __init__(self, video: recipe.Video) -> None:
        super().__init__(video)
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
        nn.Linear(channels, EMBEDDING)  # Not used. Its random draws keep the initial weights of a seed as they were.
        self.fc = embedding_layer(channels, video.dropout)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.stem(self.light(frames))
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
