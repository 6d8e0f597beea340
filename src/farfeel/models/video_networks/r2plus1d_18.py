"""torchvision's R(2+1)D-18."""

from __future__ import annotations

from torch import nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from farfeel import recipe
from farfeel.models.video_networks import embedding_layer


class R2Plus1D18(VideoResNet):
    """torchvision's R(2+1)D-18, which fits its Kinetics weights."""

    sharded = (BasicBlock,)
    pretrained = "kinetics"

    def __init__(self, video: recipe.Video) -> None:
        super().__init__(BasicBlock, [Conv2Plus1D] * 4, [2, 2, 2, 2], R2Plus1dStem)
        self.fc: nn.Module = embedding_layer(512, video.dropout)
