"""A residual network on log-mels with attentive statistics pooling, for corpora of a thousand clips.

    mels (N, Q, F) -- embed --> tokens (N, H', W', D0) -- blocks, weighted mean and deviation over time --> AudioOutput

A convolution has by design what a transformer has to learn from data: a pattern means the same a little later and a
little higher. The residual blocks are those of He et al. (2016). The pooling is that of Okabe, Koshinaka and Shinoda
(Interspeech 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from farfeel import recipe
from farfeel.models.audio_networks import AudioNetwork, AudioOutput, ResidualBlock
from farfeel.types import FarfeelError

CHANNEL_DROPOUT = 0.1
VARIANCE_FLOOR = 1e-5
ATTENTION_UNITS = 64
STEM_BINS = 32  # on the frequency axis after the stem; its kernel is as narrow as a harmonic of a voice
STRIDES = (
    (2, 2),
    (2, 1),
    (2, 2),
    (2, 1),
)  # (bins, frames) of each block; a token of time is 8 frames, 128 ms at a hop of 256


class LatentNorm(nn.BatchNorm1d):
    """(B, D) → (B, D). One clip alone has no variance: then the running statistics are used, and are not updated."""

    def forward(self, latent: Tensor) -> Tensor:
        if self.training and len(latent) == 1:
            return F.batch_norm(latent, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(latent)


class FrequencyNorm(nn.Module):
    """(B, D, H, W) → the same shape: each frequency at mean 0 and deviation 1 over channels and frames, plus a share of
    the input. The constant colour of a voice or a room nearly disappears. What changes over time is left.

    Residual normalisation, made for acoustic scenes from many devices (Kim et al., DCASE 2021; arXiv 2206.12513).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        by_bin = x.permute(0, 2, 3, 1)  # of channels_last, a view without gaps
        normed = F.layer_norm(by_bin, by_bin.shape[2:], eps=VARIANCE_FLOOR)
        return self.share * x + normed.permute(0, 3, 1, 2)


class Residual(AudioNetwork):
    """A residual convolutional network with attentive statistics pooling, for a thousand clips.

    Raises FarfeelError where audio.mel_bands is no multiple of 32.
    """

    sharded = (ResidualBlock,)

    def __init__(self, model: recipe.Model, mel_bands: int, classes: int, member: int = 0) -> None:
        super().__init__(model, mel_bands, classes, member)
        if mel_bands % STEM_BINS:
            raise FarfeelError(f"audio.mel_bands is {mel_bands}, expected a multiple of {STEM_BINS}; change it")
        stem, *widths = model.widths
        bands = mel_bands // STEM_BINS  # in one bin
        kernel = max(5, 2 * bands - 1)
        self.bn0 = nn.BatchNorm1d(mel_bands)
        self.stem = nn.Sequential(
            nn.Conv2d(1, stem, (kernel, 5), stride=(bands, 2), padding=(kernel // 2, 2), bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(),
        )
        pairs = zip((stem, *widths), widths, STRIDES, strict=False)
        blocks = [ResidualBlock(before, after, stride) for before, after, stride in pairs]
        self.blocks = nn.Sequential(
            *blocks[:-1], nn.Dropout2d(CHANNEL_DROPOUT), blocks[-1], nn.Dropout2d(CHANNEL_DROPOUT)
        )
        share = model.frequency_norms[member]
        self.normalise = FrequencyNorm(share) if share else nn.Identity()
        for part in (self.stem, self.blocks):
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on a processor
        width = 2 * widths[-1]
        self.project = nn.Sequential(
            nn.Conv1d(widths[-1] * (STEM_BINS >> len(widths)), width, 1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(model.dropout),
        )
        self.attention = nn.Sequential(
            nn.Conv1d(width, ATTENTION_UNITS, 1), nn.Tanh(), nn.Conv1d(ATTENTION_UNITS, width, 1)
        )
        self.latent_dim = 2 * width
        self.bn1 = LatentNorm(self.latent_dim)
        self.dropout = nn.Dropout(model.dropout)
        self.head = nn.Linear(self.latent_dim, classes)

    def embed(self, mels: Tensor) -> Tensor:
        """(N, Q, F) log-mels → (N, 32, F/2, D0) tokens."""
        image = self.bn0(mels)[:, None].contiguous(memory_format=torch.channels_last)
        tokens: Tensor = self.normalise(self.stem(image)).permute(0, 2, 3, 1)
        return tokens

    def forward(self, tokens: Tensor) -> AudioOutput:
        """(B, H', W', D0) → AudioOutput."""
        *early, dropout, last, last_dropout = self.blocks
        x = tokens.permute(0, 3, 1, 2)
        for block in early:
            x = self.normalise(block(x))
        moments = self.project(last_dropout(last(dropout(x))).flatten(1, 2))  # (B, D, T')
        weights = torch.softmax(self.attention(moments).float(), dim=2)
        mean = (weights * moments).sum(dim=2)
        variance = (weights * moments.square()).sum(dim=2) - mean.square()
        latent = self.bn1(torch.cat([mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()], dim=1))
        return AudioOutput(self.head(self.dropout(latent)), latent)
