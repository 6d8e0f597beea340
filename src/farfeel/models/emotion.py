"""EmotionModel: waveforms at several microphones, and frames of a face, to logits over emotions.

audio (B, M, T) -- LogMel --> (B, M, Q, F) -- augment --> microphones(embed) --> hearing --> logits (B, K)
                                                                                   `-> latent (B, Da) --.
frames (B, 3, N, H, W) -- video ---------------------------------------------------> latent (B, Dv) --> classifier

The recipe names each part, and the registries in `farfeel.variants` have it: `microphones` is a microphone strategy,
`hearing` one audio network or several, `video` a video network, `classifier` the late fusion. The mean probability of
several audio networks counts. The recipe's `modalities` decide which parts there are. audio: the first line alone.
video: the video network with a linear layer as its classifier. both: all of it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from farfeel.models.audio_networks import AudioOutput
from farfeel.models.augment import Equaliser, SpecAugment, Warp
from farfeel.models.fusion import where_present
from farfeel.models.logmel import LogMel, front_end, limit_range, subtract_mean
from farfeel.models.video_networks import EMBEDDING, VideoEncoder
from farfeel.recipe import Recipe
from farfeel.variants import AUDIO_NETWORKS, FUSIONS, MICROPHONES


class EmotionModel(nn.Module):
    """The network of a recipe, with random weights. Raises FarfeelError where a part cannot be built."""

    temperature: Tensor
    """(3,): of audio alone, of video alone, of both. Fitted when the weights are final (Guo et al., 2017, arXiv
    1706.04599)."""
    classifier: Any
    """A linear layer for video alone; a late fusion for both modalities."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        classes, bands = len(recipe.data.emotions), recipe.audio.mel_bands
        if recipe.modalities != "video":
            self.logmel = LogMel(recipe.audio)
            self.equalise = Equaliser(recipe.augment)
            self.augment = nn.Sequential(Warp(recipe.augment), SpecAugment(recipe.augment))
            mics, model = recipe.microphones, recipe.model
            self.microphones = MICROPHONES.build(mics.strategy, "microphones.options", mics.options, bands)
            members = [
                AUDIO_NETWORKS.build(model.network, "model.options", model.options, model, bands, classes, member)
                for member in range(model.members)
            ]
            self.hearing = nn.ModuleList(members)
        if recipe.modalities != "audio":
            self.video = VideoEncoder(recipe.video)
        if recipe.modalities == "video":
            self.classifier = nn.Linear(EMBEDDING, classes)
        elif recipe.modalities == "both":
            latent_dim = sum(member.latent_dim for member in members)
            fusion = recipe.fusion
            shape = latent_dim, EMBEDDING, classes, fusion
            self.classifier = FUSIONS.build(fusion.strategy, "fusion.options", fusion.options, *shape)
        self.register_buffer("temperature", torch.ones(3))

    def forward(
        self,
        audio: Tensor,
        mic_mask: Tensor,
        frames: Tensor | None = None,
        video_mask: Tensor | None = None,
        alone: bool = False,
    ) -> Tensor:
        """Logits (B, K).

        audio: (B, M, T) float at the recipe's sample rate, or its log-mels (B, M, Q, F) in dB. mic_mask: (B, M) bool,
        True where a microphone works; a clip without a working microphone has no audio. frames: (B, 3, N, H, W) in
        [0, 1]; None: no clip has video. video_mask: (B,) bool, True where a clip has video; None: all have it. What the
        recipe's modalities do not contain is ignored.

        alone: a model of both modalities returns (3, B, K): from all there is, from audio alone, from video alone.
        """
        modalities = self.recipe.modalities
        if modalities == "audio":
            return self.audio_output(audio, mic_mask).logits
        if modalities == "video":
            return self.classifier(torch.relu(self.video(frames)))
        fusion = self.classifier
        from_audio = where_present(
            mic_mask.any(dim=1), fusion.without_audio(), lambda rows: self._audio_features(audio[rows], mic_mask[rows])
        )
        if frames is None:
            from_video = fusion.without_video().expand(len(audio), -1)
        else:
            present = frames.new_ones(len(frames), dtype=torch.bool) if video_mask is None else video_mask
            from_video = where_present(
                present, fusion.without_video(), lambda rows: fusion.video_features(self.video(frames[rows]))
            )
        if not alone:
            return fusion(from_audio, from_video)
        no_audio = fusion.without_audio().expand_as(from_audio)
        no_video = fusion.without_video().expand_as(from_video)
        return torch.stack([fusion(from_audio, from_video), fusion(from_audio, no_video), fusion(no_audio, from_video)])

    def probabilities(
        self, audio: Tensor, mic_mask: Tensor, frames: Tensor | None = None, video_mask: Tensor | None = None
    ) -> Tensor:
        """Arguments as for `forward` → calibrated probabilities (B, K)."""
        logits = self(audio, mic_mask, frames, video_mask).float()
        has_audio = mic_mask.any(dim=1) & (self.recipe.modalities != "video")
        has_video = torch.zeros_like(has_audio) if frames is None else torch.ones_like(has_audio)
        if video_mask is not None:
            has_video = has_video & video_mask
        combination = torch.where(has_audio, torch.where(has_video, 2, 0), 1)
        return torch.softmax(logits / self.temperature[combination][:, None], dim=1)

    def audio_output(self, audio: Tensor, mic_mask: Tensor) -> AudioOutput:
        """audio and mic_mask as for `forward` → AudioOutput of the audio network; of several networks, the logarithm of
        their mean probability as logits, and all their embeddings side by side."""
        mels = front_end(audio, self.logmel, self.recipe.audio) if audio.ndim == 3 else audio
        mels = self.equalise(mels)
        if self.recipe.audio.range_db is not None:
            # After the equaliser: otherwise its curve would show in the floor, and the network would learn to undo it.
            mels = limit_range(mels, self.recipe.audio.range_db)
        if self.recipe.audio.mean_norm:
            mels = subtract_mean(mels, self.recipe.audio.mean_norm)
        mels = self.augment(mels)
        outputs: list[AudioOutput] = [member(self.microphones(mels, mic_mask, member.embed)) for member in self.hearing]
        if len(outputs) == 1:
            return outputs[0]
        shares = torch.stack([torch.log_softmax(output.logits.float(), dim=1) for output in outputs])
        latent = torch.cat([output.latent for output in outputs], dim=1)
        return AudioOutput(shares.logsumexp(dim=0) - math.log(len(outputs)), latent)

    def _audio_features(self, audio: Tensor, mic_mask: Tensor) -> Tensor:
        output = self.audio_output(audio, mic_mask)
        return self.classifier.audio_features(output.latent, output.logits)
