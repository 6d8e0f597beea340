"""EmotionModel: waveforms at several microphones, and frames of a face, to logits over emotions.

audio (B, M, T) -- LogMel --> (B, M, Q, F) -- augment --> MicFusion(embed) --> HTS-AT --> logits (B, K)
                                                                                `-> latent (B, Da) -.
frames (B, 3, N, H, W) -- R(2+1)D --------------------------------------------------> latent (B, Dv) --> LateFusion

A recipe's `modalities` say which of these there are: audio ends at the first line, video has a linear head of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from farfeel.models.augment import Equaliser, SpecAugment
from farfeel.models.fusion import LateFusion, where_present
from farfeel.models.htsat import HTSAT, Heard
from farfeel.models.logmel import LogMel
from farfeel.models.microphones import STRATEGIES
from farfeel.models.video import EMBEDDING, VideoEncoder
from farfeel.recipe import Recipe


class EmotionModel(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        classes = len(recipe.data.emotions)
        if recipe.modalities != "video":
            self.logmel = LogMel(recipe.audio)
            self.augment = nn.Sequential(Equaliser(recipe.augment), SpecAugment(recipe.augment))
            self.fusion = STRATEGIES[recipe.microphones.strategy]()
            self.htsat = HTSAT(recipe.model, recipe.audio.mel_bands, classes)
        if recipe.modalities != "audio":
            self.video = VideoEncoder(recipe.video)
        if recipe.modalities == "video":
            self.classifier: nn.Linear | LateFusion = nn.Linear(EMBEDDING, classes)
        elif recipe.modalities == "both":
            self.classifier = LateFusion(self.htsat.latent_dim, EMBEDDING, classes, recipe.fusion)
        # Of sound alone, film alone, both; fitted when the weights are final (Guo et al., 2017, arXiv 1706.04599).
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(3))

    def forward(
        self,
        audio: Tensor,
        mic_mask: Tensor,
        frames: Tensor | None = None,
        video_mask: Tensor | None = None,
        alone: bool = False,
    ) -> Tensor:
        """audio (B, M, T) float at the recipe's sample rate, mic_mask (B, M) bool, frames (B, 3, N, H, W) in [0, 1],
        video_mask (B,) bool → logits (B, K). A clip without a living microphone has no sound; no video_mask: all clips
        have their film. What the recipe's modalities leave out is not looked at.

        With `alone`, a model of both modalities gives (3, B, K): from what there is, from sound alone, from film alone.
        """
        modalities = self.recipe.modalities
        if modalities == "audio":
            return self.hear(audio, mic_mask).logits
        if modalities == "video":
            return self.classifier(torch.relu(self.video(frames)))
        fusion = self.classifier
        assert isinstance(fusion, LateFusion)
        heard = where_present(
            mic_mask.any(dim=1), fusion.no_sound(), lambda rows: self._heard(audio[rows], mic_mask[rows])
        )
        if frames is None:
            seen = fusion.no_film().expand(len(audio), -1)
        else:
            present = frames.new_ones(len(frames), dtype=torch.bool) if video_mask is None else video_mask
            seen = where_present(present, fusion.no_film(), lambda rows: fusion.seen(self.video(frames[rows])))
        if not alone:
            return fusion(heard, seen)
        no_sound, no_film = fusion.no_sound().expand_as(heard), fusion.no_film().expand_as(seen)
        return torch.stack([fusion(heard, seen), fusion(heard, no_film), fusion(no_sound, seen)])

    def probabilities(
        self, audio: Tensor, mic_mask: Tensor, frames: Tensor | None = None, video_mask: Tensor | None = None
    ) -> Tensor:
        """Arguments as for `forward` → calibrated probabilities (B, K)."""
        logits = self(audio, mic_mask, frames, video_mask).float()
        heard = mic_mask.any(dim=1) & (self.recipe.modalities != "video")
        seen = torch.zeros_like(heard) if frames is None else torch.ones_like(heard)
        if video_mask is not None:
            seen = seen & video_mask
        which = torch.where(heard, torch.where(seen, 2, 0), 1)
        return torch.softmax(logits / self.temperature[which][:, None], dim=1)

    def _heard(self, audio: Tensor, mic_mask: Tensor) -> Tensor:
        assert isinstance(self.classifier, LateFusion)
        heard = self.hear(audio, mic_mask)
        return self.classifier.heard(heard.latent, heard.logits)

    def hear(self, audio: Tensor, mic_mask: Tensor) -> Heard:
        """What HTS-AT makes of the sound: logits, the embedding, the logits over time."""
        if self.recipe.audio.normalise_level:
            audio = normalise_level(audio)
        mels = self.augment(self.logmel(audio))
        return self.htsat(self.fusion(mels, mic_mask, self.htsat.embed))


def normalise_level(audio: Tensor) -> Tensor:
    """(B, M, T) → the same, each microphone at -26 dB RMS (ITU-T P.56's usual speech level). Gains differ between
    microphones by 10 dB and more, and say nothing about the speaker."""
    power = audio.float().square().mean(dim=2, keepdim=True)
    return audio * (10 ** (-26 / 20) / power.clamp(min=1e-12).sqrt())
