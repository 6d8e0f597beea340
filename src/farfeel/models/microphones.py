"""Microphone fusion: from the log-mels of M microphones to one set of tokens.

Each strategy is a class with the same call: `fusion(mels (B, M, Q, F), mic_mask (B, M), embed) -> tokens`, where
`embed` turns (N, Q, F) into tokens (N, H', W', D). HTS-AT itself never learns how many microphones exist. A dead
microphone (mask False) must have no influence at all, neither on the result nor on batch statistics; the order of
the microphones must not matter. Averaged mels and summed patches: Cohen, Hazan and Gannot (arXiv 2406.03272).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Embed = Callable[[Tensor], Tensor]


class MicFusion(nn.Module):
    """What every strategy is."""

    def forward(self, mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
        raise NotImplementedError


class SingleMic(MicFusion):
    """The first living microphone alone."""

    def forward(self, mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
        first = mic_mask.int().argmax(dim=1)
        return embed(mels.take_along_dim(first[:, None, None, None], dim=1).squeeze(1))


class AverageMels(MicFusion):
    """Mean of the log-mels of the living microphones, embedded once."""

    def forward(self, mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
        return embed(_living_mean(mels, mic_mask))


class SumPatches(MicFusion):
    """Each microphone embedded by the same weights, embeddings summed, as in the paper.

    The sum's norm grows with M: a checkpoint trained with 3 microphones expects 3. See NormalisedSum.
    """

    def forward(self, mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
        return _embed_each(mels, mic_mask, embed).sum(dim=1)


class NormalisedSum(MicFusion):
    """SumPatches divided by the number of living microphones: any number of them gives the same scale."""

    def forward(self, mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
        living = mic_mask.sum(dim=1).view(-1, 1, 1, 1)
        return _embed_each(mels, mic_mask, embed).sum(dim=1) / living


STRATEGIES: dict[str, type[MicFusion]] = {
    "single": SingleMic,
    "average-mels": AverageMels,
    "sum-patches": SumPatches,
    "normalised-sum": NormalisedSum,
}


def _living_mean(mels: Tensor, mic_mask: Tensor) -> Tensor:
    """(B, M, Q, F), (B, M) → (B, Q, F)"""
    weight = mic_mask.to(mels.dtype)
    weight = weight / weight.sum(dim=1, keepdim=True)
    # A dead microphone may hold anything, NaN included, and 0 x NaN is NaN.
    mels = mels.masked_fill(~mic_mask[..., None, None], 0.0)
    return (mels * weight[..., None, None]).sum(dim=1)


def _embed_each(mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
    """(B, M, Q, F), (B, M) → (B, M, H', W', D), zero for dead microphones.

    All microphones pass in one batch, so that batch norm has one set of statistics. A dead one is fed the mean of the
    living and its tokens are dropped: fed its own silence, it would shift those statistics for everyone.
    """
    stand_in = _living_mean(mels, mic_mask)[:, None]
    tokens = embed(mels.where(mic_mask[..., None, None], stand_in).flatten(0, 1)).unflatten(0, mic_mask.shape)
    return tokens * mic_mask[..., None, None, None]
