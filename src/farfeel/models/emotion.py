"""EmotionModel: waveforms at several microphones, and frames of a face, to logits over emotions.

audio (B, M, T) -- LogMel --> (B, M, Q, F) -- augment --> MicFusion(embed) --> hearing --> logits (B, K)
                                                                                `-> latent (B, Da) --.
frames (B, 3, N, H, W) -- R(2+1)D --------------------------------------------------> latent (B, Dv) --> LateFusion

`hearing` is HTS-AT or a residual network, or several of them whose mean probability counts.
A recipe's `modalities` say which of these there are: audio ends at the first line, video has a linear head of its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from farfeel.models.augment import Equaliser, SpecAugment, Warp
from farfeel.models.fusion import LateFusion, where_present
from farfeel.models.htsat import HTSAT, Heard
from farfeel.models.logmel import LogMel, front_end, limit_range, subtract_mean
from farfeel.models.microphones import STRATEGIES
from farfeel.models.residual import ResidualNet
from farfeel.models.video import EMBEDDING, VideoEncoder
from farfeel.recipe import Recipe


class EmotionModel(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        classes = len(recipe.data.emotions)
        if recipe.modalities != "video":
            self.logmel = LogMel(recipe.audio)
            self.equalise = Equaliser(recipe.augment)
            self.augment = nn.Sequential(Warp(recipe.augment), SpecAugment(recipe.augment))
            self.fusion = STRATEGIES[recipe.microphones.strategy]()
            shape = recipe.model, recipe.audio.mel_bands, classes
            members: list[HTSAT | ResidualNet] = [
                HTSAT(*shape) if recipe.model.network == "htsat" else ResidualNet(*shape, member)
                for member in range(recipe.model.members)
            ]
            self.hearing = nn.ModuleList(members)
        if recipe.modalities != "audio":
            self.video = VideoEncoder(recipe.video)
        if recipe.modalities == "video":
            self.classifier: nn.Linear | LateFusion = nn.Linear(EMBEDDING, classes)
        elif recipe.modalities == "both":
            latent_dim = sum(member.latent_dim for member in members)
            self.classifier = LateFusion(latent_dim, EMBEDDING, classes, recipe.fusion)
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
        """audio (B, M, T) float at the recipe's sample rate, or its log-mels (B, M, Q, F); mic_mask (B, M) bool, frames
        (B, 3, N, H, W) in [0, 1], video_mask (B,) bool → logits (B, K). A clip without a living microphone has no
        sound; no video_mask: all clips have their film. What the recipe's modalities leave out is not looked at.

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
        """What the network makes of the sound; of several, the mean of their probabilities and all their embeddings."""
        mels = front_end(audio, self.logmel, self.recipe.audio) if audio.ndim == 3 else audio
        mels = self.equalise(mels)
        if self.recipe.audio.range_db is not None:
            # After the equaliser, or the floor would show its curve, and the network learn to undo it.
            mels = limit_range(mels, self.recipe.audio.range_db)
        if self.recipe.audio.mean_norm:
            mels = subtract_mean(mels, self.recipe.audio.mean_norm)
        mels = self.augment(mels)
        heard: list[Heard] = [member(self.fusion(mels, mic_mask, member.embed)) for member in self.hearing]
        if len(heard) == 1:
            return heard[0]
        shares = torch.stack([torch.log_softmax(one.logits.float(), dim=1) for one in heard])
        return Heard(shares.logsumexp(dim=0) - math.log(len(heard)), torch.cat([one.latent for one in heard], dim=1))
