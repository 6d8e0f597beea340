"""Microphone strategies: from the log-mels of M microphones to one set of tokens. One file for each strategy.

A strategy is a class with one call: `strategy(mels (B, M, Q, F), mic_mask (B, M), embed) -> tokens (B, H', W', D)`.
`embed` is the audio network's own function from (N, Q, F) to (N, H', W', D). The network never knows the number of
microphones. Two laws hold for every strategy. A dead microphone (mask False) has no influence: neither on the result,
nor on batch statistics. The order of the microphones does not matter, except to a strategy that takes the first one.

Averaged mels and summed patches: Cohen, Hazan and Gannot (arXiv 2406.03272).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

Embed = Callable[[Tensor], Tensor]
"""(N, Q, F) log-mels in dB → (N, H', W', D) tokens."""


class MicFusion(nn.Module):
    """The base class of all strategies.

    mel_bands: Q. A recipe's `microphones.options` come as further keyword arguments, for strategies that have some.
    """

    takes: ClassVar[str] = "any"
    """Which microphones of a recording it can use. any: any number. one: one alone. as trained: exactly as many as in
    training. It must be a literal: it is read from the source code."""

    def __init__(self, mel_bands: int) -> None:
        super().__init__()
        self.mel_bands = mel_bands

    def forward(self, mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
        """mels (B, M, Q, F) log-mels in dB, mic_mask (B, M) bool: True where a microphone works, at least one in each
        clip; embed: the network's own → tokens (B, H', W', D). A dead microphone's mels may hold anything, also NaN."""
        raise NotImplementedError


def mean_of_working(mels: Tensor, mic_mask: Tensor) -> Tensor:
    """(B, M, Q, F), (B, M) → (B, Q, F): the mean over the working microphones."""
    weight = mic_mask.to(mels.dtype)
    weight = weight / weight.sum(dim=1, keepdim=True)
    # A dead microphone may hold anything, NaN included, and 0 x NaN is NaN.
    mels = mels.masked_fill(~mic_mask[..., None, None], 0.0)
    return (mels * weight[..., None, None]).sum(dim=1)


def pick(mels: Tensor, mic: Tensor) -> Tensor:
    """(B, M, Q, F), (B,) index of a microphone → (B, Q, F)."""
    index = mic[:, None, None, None].expand(-1, 1, mels.shape[2], mels.shape[3])
    return mels.gather(1, index).squeeze(1)  # take_along_dim would make an exported graph of one batch size


def embed_each(mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
    """(B, M, Q, F), (B, M) → (B, M, H', W', D), zero for dead microphones.

    All microphones pass in one batch, so that batch norm has one set of statistics. A dead one is given the mean of the
    working ones, and its tokens are dropped. Its own silence would shift those statistics for all.
    """
    stand_in = mean_of_working(mels, mic_mask)[:, None]
    tokens = embed(mels.where(mic_mask[..., None, None], stand_in).flatten(0, 1)).unflatten(0, mic_mask.shape)
    return tokens * mic_mask[..., None, None, None]
