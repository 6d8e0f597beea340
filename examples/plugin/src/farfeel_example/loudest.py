"""A microphone strategy: one class here, and one line in pyproject.toml."""

from __future__ import annotations

from torch import Tensor

from farfeel.models.microphones import Embed, MicFusion, pick


class Loudest(MicFusion):
    """The loudest working microphone alone.

    peak: compare the loudest frame of each microphone; false: the mean over all frames. Where the recipe brings every
    microphone to the same level, the loudest frame stands out most at the microphone with the least noise and
    reverberation.
    """

    takes = "any"

    def __init__(self, mel_bands: int, peak: bool = True) -> None:
        super().__init__(mel_bands)
        self.peak = peak

    def forward(self, mels: Tensor, mic_mask: Tensor, embed: Embed) -> Tensor:
        """mels (B, M, Q, F) in dB, mic_mask (B, M) → tokens (B, H', W', D)."""
        power = (10.0 ** (mels / 10.0)).mean(dim=2)  # (B, M, F)
        loudness = power.amax(dim=2) if self.peak else power.mean(dim=2)
        loudness = loudness.masked_fill(~mic_mask, -1.0)  # A dead microphone may hold anything, also NaN.
        return embed(pick(mels, loudness.argmax(dim=1)))
