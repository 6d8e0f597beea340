"""HTS-AT (Chen et al., ICASSP 2022, arXiv 2202.00874) around timm's Swin transformer, with a token-semantic head.

A log-mel spectrogram (Q, F) is normalised per band, resized to a fixed number of frames, cut into chunks of time that
are stacked on the frequency axis, and read as an image by a Swin transformer (Liu et al., 2021). A convolution over
all frequencies of the last stage's tokens gives logits for each time token; their mean is the clip's.

    mels (N, Q, F) -- embed --> tokens (N, H', W', D0) -- forward --> Tokens of the last stage --> logits (N, K)

A recipe may choose two departures from the paper. `stem: conv` replaces the patch convolution by a small residual CNN,
because a transformer without pretraining learns too little from a thousand clips. `pooling: attention` weighs the
time tokens.
"""

from __future__ import annotations

import torch
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn
from torch.nn import functional as F

from farfeel import recipe
from farfeel.models.audio_networks import AudioNetwork, AudioOutput, ResidualBlock
from farfeel.types import FarfeelError


class HTSAT(AudioNetwork):
    """HTS-AT: a Swin transformer on the spectrogram, with a token-semantic head.

    Raises FarfeelError where the bands and frames do not divide into its patches and stages.
    """

    sharded = (SwinTransformerBlock, ResidualBlock)

    def __init__(self, model: recipe.Model, mel_bands: int, classes: int, member: int = 0) -> None:
        super().__init__(model, mel_bands, classes, member)
        self.frames, self.chunks = model.image_frames, model.chunks
        height, width = mel_bands * model.chunks, model.image_frames // model.chunks
        reduction = model.patch * 2 ** (len(model.depths) - 1)
        if mel_bands % reduction or width % reduction:
            raise FarfeelError(
                f"model: {mel_bands} mel bands x {width} frames in a chunk are not divisible by {reduction} "
                f"(patch {model.patch}, {len(model.depths)} stages); change audio.mel_bands or model.image_frames"
            )
        self.bn0 = nn.BatchNorm1d(mel_bands)
        self.swin = SwinTransformer(
            img_size=(height, width),
            patch_size=model.patch,
            in_chans=1,
            num_classes=0,
            embed_dim=model.embed_dim,
            depths=model.depths,
            num_heads=model.heads,
            window_size=model.window,
            drop_path_rate=model.drop_path,
        )
        del self.swin.head  # for images; the token-semantic head below takes its place
        if model.stem == "conv":
            self.swin.patch_embed = ConvStem(model.stem_width, model.embed_dim, model.patch)
        self.latent_dim = self.swin.num_features
        self.dropout = nn.Dropout(model.dropout)
        bins = mel_bands // reduction
        # Token-semantic head: all frequency bins and three neighbouring time tokens to one logit per class.
        self.tscam_conv = nn.Conv2d(self.latent_dim, classes, kernel_size=(bins, 3), padding=(0, 1))
        self.attention = (
            nn.Conv2d(self.latent_dim, classes, kernel_size=(bins, 3), padding=(0, 1))
            if model.pooling == "attention"
            else None
        )

    def embed(self, mels: Tensor) -> Tensor:
        """(N, Q, F) log-mels → (N, H', W', D0) patch tokens."""
        return self.swin.patch_embed(self.image(self.bn0(mels)))

    def image(self, mels: Tensor) -> Tensor:
        """(N, Q, F) → (N, 1, chunks * Q, frames / chunks): time in chunks, frequency within a chunk."""
        if mels.shape[-1] != self.frames:
            mels = F.interpolate(mels[:, None], size=(mels.shape[1], self.frames), mode="bicubic", align_corners=True)[
                :, 0
            ]
        return mels.unflatten(2, (self.chunks, -1)).transpose(1, 2).flatten(1, 2)[:, None]

    def forward(self, tokens: Tensor) -> AudioOutput:
        """(B, H', W', D0) → AudioOutput."""
        features = self.swin.norm(self.swin.layers(tokens))  # (B, chunks * bins, W'', D)
        # Undo the chunks: (B, D, bins, time).
        features = features.unflatten(1, (self.chunks, -1)).permute(0, 4, 2, 1, 3).flatten(3)
        latent = features.mean(dim=(2, 3))
        features = self.dropout(features)
        framewise = self.tscam_conv(features).squeeze(2)  # (B, K, time)
        if self.attention is None:
            logits = framewise.mean(dim=2)
        else:
            weights = torch.softmax(self.attention(features).squeeze(2).float(), dim=2)
            logits = (framewise * weights).sum(dim=2)
        return AudioOutput(logits, latent, framewise.transpose(1, 2))


class ConvStem(nn.Module):
    """A residual CNN instead of the patch convolution: (N, 1, H, W) → (N, H/patch, W/patch, D).

    Each block halves both axes and doubles the width, up to D.
    """

    def __init__(self, width: int, dim: int, patch: int) -> None:
        super().__init__()
        blocks = patch.bit_length() - 1
        widths = [1, *(min(width * 2**block, dim) for block in range(blocks - 1)), dim]
        self.layers = nn.Sequential(*(ResidualBlock(widths[i], widths[i + 1], 2) for i in range(blocks)))
        self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # 10 % faster on a processor
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.layers(image).permute(0, 2, 3, 1))
