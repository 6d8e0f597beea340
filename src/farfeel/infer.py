"""Recognizer: recordings to predictions; and the prediction table of an evaluation.

Whatever is recognised, a user's file or a test clip in a measured room, goes the same way:
Recording -> windows (W, M, T') and their frames (W, N, S, S, 3) -> EmotionModel -> mean of the windows'
probabilities -> (K,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from farfeel.data import to_frames
from farfeel.media.audio import AUDIO_SUFFIXES, read_audio
from farfeel.media.face import FaceDetector
from farfeel.media.footage import Footage
from farfeel.media.video import media_info
from farfeel.models.checkpoint import load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe
from farfeel.recordings import Recording, Recordings, is_alive, recording_windows
from farfeel.types import FarfeelError, Prediction

BATCH_WINDOWS = 32  # in one pass through the network
BATCH_RECORDINGS = 16  # in memory at once
T = TypeVar("T")
MISMATCH_S = 0.5  # Sound and film whose lengths differ by more are told so.


class Recognizer:
    """One checkpoint, or several whose probabilities are averaged.

    >>> recognizer = Recognizer.load(["runs/tiny/best"])            # doctest: +SKIP
    >>> recognizer.predict("clip.wav").label                        # doctest: +SKIP
    """

    def __init__(
        self, models: Sequence[EmotionModel], device: str | torch.device = "cpu", precision: str = "32"
    ) -> None:
        first = models[0].recipe
        for model in models[1:]:
            if model.recipe.data.emotions != first.data.emotions:
                raise FarfeelError(
                    f"the checkpoints know different emotions ({', '.join(first.data.emotions)}; "
                    f"{', '.join(model.recipe.data.emotions)}); an ensemble needs the same"
                )
            if model.recipe.audio.sample_rate != first.audio.sample_rate:
                raise FarfeelError(
                    f"the checkpoints hear at {first.audio.sample_rate} Hz and {model.recipe.audio.sample_rate} Hz; "
                    "an ensemble needs one sample rate"
                )
            ours, theirs = first, model.recipe
            if ours.modalities != theirs.modalities:
                raise FarfeelError(
                    f"the checkpoints take {ours.modalities} and {theirs.modalities}; an ensemble needs the same"
                )
            if ours.modalities != "audio" and _look(ours) != _look(theirs):
                raise FarfeelError(
                    f"the checkpoints look at films in other ways ({_look(ours)}; {_look(theirs)}); "
                    "an ensemble needs the same"
                )
        self.device = torch.device(device)
        self.models = [model.eval().to(self.device) for model in models]
        self.emotions = first.data.emotions
        self.in_bf16 = precision == "bf16"

    @classmethod
    def load(
        cls, checkpoints: Sequence[str | Path], device: str | torch.device = "cpu", precision: str = "32"
    ) -> Recognizer:
        """`precision` of the network: "32" or "bf16" (autocast)."""
        return cls([load_checkpoint(Path(checkpoint)) for checkpoint in checkpoints], device, precision)

    @property
    def sample_rate(self) -> int:
        return self.models[0].recipe.audio.sample_rate

    def default_mics(self, available: int, what: str) -> list[int]:
        """Microphones to use where the caller chose none. Raises FarfeelError where the strategy cannot take them."""
        strategies = {model.recipe.microphones.strategy for model in self.models}
        if strategies == {"single"}:
            return [0]
        counts = {model.recipe.microphones.count for model in self.models}
        if "sum-patches" in strategies and counts != {available}:
            expected = max(counts)
            choose = ",".join(map(str, range(min(expected, available))))
            raise FarfeelError(
                f"{what} has {available} channel{'s' * (available != 1)}, the checkpoint sums {expected} microphones; "
                f"choose them with --mics {choose} or load a checkpoint trained with {available}"
            )
        return list(range(available))

    @property
    def modalities(self) -> str:
        """audio, video or both: what the checkpoint takes."""
        return self.models[0].recipe.modalities

    def predict(
        self,
        path: str | Path,
        mics: Sequence[int] | None = None,
        *,
        audio: str | Path | None = None,
        audio_offset_s: float = 0.0,
        face: str = "largest",
        modalities: str = "both",
        detector: FaceDetector | None = None,
    ) -> Prediction:
        """Emotion of one recording: a file with sound, film or both.

        `audio` is another file with the sound, as of a microphone array, which begins `audio_offset_s` after the film.
        `face`: largest, left, right or whole. `modalities`: audio or video, to use nothing but that. Where the
        checkpoint takes both and one cannot be used, the prediction is made from the other, with a warning. Raises
        FarfeelError with one line.
        """
        return self.predict_recording(
            *self.open(path, audio, audio_offset_s, face, modalities, detector), mics=mics, what=str(audio or path)
        )

    def open(
        self,
        path: str | Path,
        audio: str | Path | None = None,
        audio_offset_s: float = 0.0,
        face: str = "largest",
        modalities: str = "both",
        detector: FaceDetector | None = None,
    ) -> tuple[Recording, list[str]]:
        """The recording in a file (see predict), and warnings about what of it cannot be used."""
        taken = _parts(self.modalities) & _parts(modalities)
        if not taken:
            raise FarfeelError(
                f"the checkpoint takes {self.modalities}, --modalities asks for {modalities}; leave it out"
            )
        path, recipe, problems = Path(path), self.models[0].recipe, _Problems()
        info = problems.avoid("film", lambda: media_info(path)) if "video" in taken else None
        film = info.video if info else None
        sound = footage = None
        if "audio" in taken and (audio or info is None or info.audio or film is None):
            sound = problems.avoid("sound", lambda: read_audio(Path(audio or path), self.sample_rate))
        end_s = None if sound is None else sound.shape[1] / self.sample_rate
        offset_s = audio_offset_s if audio else 0.0  # A film's own sound begins with it.
        if film or (info and (audio or "audio" not in taken)):  # where it was asked for: its absence is told
            footage = problems.avoid(
                "film",
                lambda: Footage(path, recipe.video, recipe.audio.seconds, offset_s, end_s, face, detector, film),
            )
        if sound is None and footage is None:
            raise problems.first("sound" if path.suffix.lower() in AUDIO_SUFFIXES else "film")
        notes = [f"the {what} is not used: {error}" for what, error in problems.met]
        if footage and film and end_s is not None and not film.is_still:
            rest_s = film.seconds - offset_s - end_s
            if abs(rest_s) > MISMATCH_S:
                notes.append(f"the {'film' if rest_s > 0 else 'sound'} goes on for {abs(rest_s):.1f} s alone")
        return Recording(sound, footage), notes

    def predict_audio(self, audio: np.ndarray, mics: Sequence[int] | None = None, what: str = "audio") -> Prediction:
        """Emotion of a recording (M, T) float32 at `sample_rate`."""
        return self.predict_recording(Recording(audio), mics=mics, what=what)

    def predict_recording(
        self,
        recording: Recording,
        warnings: Sequence[str] = (),
        mics: Sequence[int] | None = None,
        what: str = "recording",
    ) -> Prediction:
        """Emotion of a recording. `what` names it in errors."""
        notes, audio, footage, living = list(warnings), recording.audio, recording.footage, 0
        if audio is not None:
            chosen, living, heard_notes = self._choose_mics(audio, mics, what, footage is not None)
            notes += heard_notes
            recording = Recording(chosen, footage)
        try:
            (probabilities,) = self.probabilities([recording])
        except FarfeelError as error:  # Only a film can still fail: its frames are decoded when they are asked for.
            if recording.audio is None:
                raise
            notes.append(f"the film is not used: {error}")
            footage = None
            (probabilities,) = self.probabilities([Recording(recording.audio)])
        modalities = ["audio"] * bool(living)
        if footage is not None:
            notes += footage.warnings
            modalities += ["video"] * footage.looked
            if not footage.looked:
                notes.append("the film is not used: it shows less than half of what is heard")
        seconds = footage.seconds if footage and audio is None else 0.0
        if audio is not None:
            seconds = audio.shape[1] / self.sample_rate
        return Prediction(
            tuple(map(float, probabilities)),
            self.emotions,
            0.0,
            seconds,
            microphones=living,
            modalities=tuple(modalities),
            warnings=tuple(notes),
        )

    def _choose_mics(
        self, audio: np.ndarray, mics: Sequence[int] | None, what: str, filmed: bool
    ) -> tuple[np.ndarray | None, int, list[str]]:
        """Channels to hear, how many of them are alive, warnings. None where all are silent and there is a film."""
        warnings = []
        if mics is None:
            mics = self.default_mics(len(audio), what)
            if len(mics) < len(audio):
                warnings.append(f"{len(mics)} of {len(audio)} microphones used; this checkpoint takes one")
        elif max(mics) >= len(audio):
            raise FarfeelError(
                f"{what} has {len(audio)} channel{'s' * (len(audio) != 1)} (0 to {len(audio) - 1}), "
                f"--mics asks for {max(mics)}; choose among them"
            )
        chosen = audio[list(mics)]
        dead = ~is_alive(chosen)
        if dead.all():
            if not filmed:
                raise FarfeelError(f"{what}: every chosen microphone is silent; choose others with --mics")
            return None, 0, [*warnings, "every chosen microphone is silent; the film alone is used"]
        if dead.any():
            silent = ", ".join(str(mic) for mic, is_dead in zip(mics, dead, strict=True) if is_dead)
            warnings.append(f"microphone {silent} is silent and left out")
        return chosen, int((~dead).sum()), warnings

    def probabilities(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Recordings of any lengths, modalities and microphone counts → (N, K)."""
        return np.mean([self._one_model(model, recordings) for model in self.models], axis=0)

    @torch.inference_mode()
    def _one_model(self, model: EmotionModel, recordings: Sequence[Recording]) -> np.ndarray:
        result = np.empty((len(recordings), len(self.emotions)))
        mics_of = [1 if each.audio is None else len(each.audio) for each in recordings]
        for mics in set(mics_of):  # a batch has one number of microphones
            group = [i for i, count in enumerate(mics_of) if count == mics]
            windows = [recording_windows(recordings[i], model.recipe) for i in group]
            audio = torch.from_numpy(np.concatenate([each.audio for each in windows]))
            mask = torch.from_numpy(np.concatenate([each.mic_mask for each in windows]))
            views = [
                (recordings[i].footage, span) for i, each in zip(group, windows, strict=True) for span in each.spans_s
            ]
            logits = []
            for start in range(0, len(views), BATCH_WINDOWS):
                part = slice(start, start + BATCH_WINDOWS)
                frames, seen = _frames(views[part], model)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bf16):
                    found = model(audio[part].to(self.device), mask[part].to(self.device), *self._to(frames, seen))
                logits.append(found.float().cpu())
            parts = torch.softmax(torch.cat(logits), dim=1).double().split([len(each.spans_s) for each in windows])
            result[group] = np.stack([part.mean(dim=0).numpy() for part in parts])
        return result

    def _to(self, frames: Tensor | None, seen: Tensor) -> tuple[Tensor | None, Tensor]:
        return None if frames is None else to_frames(frames.to(self.device)), seen.to(self.device)


class _Problems:
    """What went wrong with the parts of a recording that may have other parts to go on with: (part, its error)."""

    def __init__(self) -> None:
        self.met: list[tuple[str, FarfeelError]] = []

    def avoid(self, what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except FarfeelError as error:
            self.met.append((what, error))
            return None

    def first(self, what: str) -> FarfeelError:
        """The error of this part, or of another where it has none."""
        return next((error for part, error in self.met if part == what), self.met[0][1])


def _look(recipe: Recipe) -> str:
    """What a checkpoint makes of a film, before its network."""
    video = recipe.video
    crop = "whole picture" if video.crop == "none" else f"face with a margin of {video.margin:g}"
    return f"{video.frames} frames of {video.size} pixels in {recipe.audio.seconds:g} s, {crop}"


def _parts(modalities: str) -> set[str]:
    return {"audio", "video"} if modalities == "both" else {modalities}


def _frames(views: Sequence[tuple[Footage | None, np.ndarray]], model: EmotionModel) -> tuple[Tensor | None, Tensor]:
    """Footage and span of each window → frames (W, N, S, S, 3) uint8, None for a model without eyes; seen (W,)."""
    video = model.recipe.video
    if model.recipe.modalities == "audio":
        return None, torch.zeros(len(views), dtype=torch.bool)
    found = [None if footage is None else footage.frames(*span) for footage, span in views]
    dark = np.zeros((video.frames, video.size, video.size, 3), dtype=np.uint8)
    frames = np.stack([dark if each is None else each for each in found])
    return torch.from_numpy(frames), torch.tensor([each is not None for each in found])


def prediction_table(
    recognizer: Recognizer, recordings: Recordings, on_progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """Prediction table of every recording: clip, speaker, room, position, target, p_<emotion>…; one row each."""
    rows = []
    for start in range(0, len(recordings), BATCH_RECORDINGS):
        batch = [recordings[i] for i in range(start, min(start + BATCH_RECORDINGS, len(recordings)))]
        found = recognizer.probabilities([take.recording for take in batch])
        for take, probabilities in zip(batch, found, strict=True):
            clip = take.clip
            about = {"clip": clip.id, "speaker": clip.speaker, "room": take.room, "position": take.position}
            shares = {f"p_{emotion}": p for emotion, p in zip(recognizer.emotions, probabilities, strict=True)}
            rows.append(about | {"target": clip.emotion} | shares)
        if on_progress:
            on_progress(len(rows), len(recordings))
    return pd.DataFrame(rows)
