"""EmotionModel: waveforms at several microphones to logits over emotions.

audio (B, M, T) -- LogMel --> (B, M, Q, F) -- augment --> MicFusion(embed) --> HTS-AT --> logits (B, K)
"""

from __future__ import annotations

from torch import Tensor, nn

from farfeel.models.augment import Equaliser, SpecAugment
from farfeel.models.htsat import HTSAT, Heard
from farfeel.models.logmel import LogMel
from farfeel.models.microphones import STRATEGIES
from farfeel.recipe import Recipe


class EmotionModel(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.logmel = LogMel(recipe.audio)
        self.augment = nn.Sequential(Equaliser(recipe.augment), SpecAugment(recipe.augment))
        self.fusion = STRATEGIES[recipe.microphones.strategy]()
        self.htsat = HTSAT(recipe.model, recipe.audio.mel_bands, len(recipe.data.emotions))

    def forward(self, audio: Tensor, mic_mask: Tensor) -> Tensor:
        """audio (B, M, T) float at the recipe's sample rate, mic_mask (B, M) bool → logits (B, K)."""
        return self.hear(audio, mic_mask).logits

    def hear(self, audio: Tensor, mic_mask: Tensor) -> Heard:
        """As forward, with the embedding and the logits over time."""
        if self.recipe.audio.normalise_level:
            audio = normalise_level(audio, mic_mask)
        mels = self.augment(self.logmel(audio))
        return self.htsat(self.fusion(mels, mic_mask, self.htsat.embed))


def normalise_level(audio: Tensor, mic_mask: Tensor) -> Tensor:
    """(B, M, T) → the same at -26 dB RMS (ITU-T P.56's usual speech level), by one gain for all microphones of a clip:
    gains of their own would erase the level differences between them."""
    power = audio.float().square().mean(dim=2)  # (B, M)
    power = power.masked_fill(~mic_mask, 0.0).sum(dim=1) / mic_mask.sum(dim=1)
    return audio * (10 ** (-26 / 20) / power.clamp(min=1e-12).sqrt())[:, None, None]
