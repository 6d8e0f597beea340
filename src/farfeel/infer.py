"""Recognizer: recordings to predictions; and the prediction table of an evaluation.

Whatever is recognised, a user's file or a test clip in a measured room, goes the same way:
recording (M, T) -> windows (W, M, T') -> EmotionModel -> mean of the windows' probabilities -> (K,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from farfeel.data import Recordings, recording_windows
from farfeel.media.audio import read_audio
from farfeel.models.checkpoint import load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.types import FarfeelError, Prediction

BATCH_WINDOWS = 32  # in one pass through the network
BATCH_RECORDINGS = 16  # in memory at once
DEAD_DB = -90.0  # A channel whose peak is below this carries no signal: the microphone is dead.


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

    def predict(self, path: str | Path, mics: Sequence[int] | None = None) -> Prediction:
        """Emotion of one audio file with any number of channels. Raises FarfeelError with one line."""
        audio = read_audio(Path(path), self.sample_rate)
        return self.predict_audio(audio, mics, what=str(path))

    def predict_audio(self, audio: np.ndarray, mics: Sequence[int] | None = None, what: str = "audio") -> Prediction:
        """Emotion of a recording (M, T) float32 at `sample_rate`."""
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
        dead = ~_alive(chosen)
        if dead.all():
            raise FarfeelError(f"{what}: every chosen microphone is silent; choose others with --mics")
        if dead.any():
            silent = ", ".join(str(mic) for mic, is_dead in zip(mics, dead, strict=True) if is_dead)
            warnings.append(f"microphone {silent} is silent and left out")
        (probabilities,) = self.probabilities([chosen])
        return Prediction(
            tuple(map(float, probabilities)),
            self.emotions,
            0.0,
            audio.shape[1] / self.sample_rate,
            microphones=int((~dead).sum()),
            warnings=tuple(warnings),
        )

    def probabilities(self, recordings: Sequence[np.ndarray]) -> np.ndarray:
        """Recordings (M, T) of any lengths and microphone counts, as one batch → (N, K); the silent are masked."""
        return np.mean([self._one_model(model, recordings) for model in self.models], axis=0)

    @torch.inference_mode()
    def _one_model(self, model: EmotionModel, recordings: Sequence[np.ndarray]) -> np.ndarray:
        result = np.empty((len(recordings), len(self.emotions)))
        for mics in {len(audio) for audio in recordings}:  # a batch has one number of microphones
            group = [i for i, audio in enumerate(recordings) if len(audio) == mics]
            windows = [recording_windows(recordings[i], model.recipe) for i in group]
            counts = [len(each) for each in windows]
            audio = torch.from_numpy(np.concatenate(windows))
            mask = torch.from_numpy(np.repeat([_alive(recordings[i]) for i in group], counts, axis=0))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bf16):
                logits = torch.cat(
                    [
                        model(some.to(self.device), alive.to(self.device)).float().cpu()
                        for some, alive in zip(audio.split(BATCH_WINDOWS), mask.split(BATCH_WINDOWS), strict=True)
                    ]
                )
            parts = torch.softmax(logits, dim=1).double().split(counts)
            result[group] = np.stack([part.mean(dim=0).numpy() for part in parts])
        return result


def _alive(audio: np.ndarray) -> np.ndarray:
    """(M, T) → (M,) bool: microphones that carry a signal."""
    return np.abs(audio).max(axis=1) >= 10 ** (DEAD_DB / 20)


def prediction_table(
    recognizer: Recognizer, recordings: Recordings, on_progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """Prediction table of every recording: clip, speaker, room, position, target, p_<emotion>…; one row each."""
    rows = []
    for start in range(0, len(recordings), BATCH_RECORDINGS):
        batch = [recordings[i] for i in range(start, min(start + BATCH_RECORDINGS, len(recordings)))]
        for heard, probabilities in zip(batch, recognizer.probabilities([r.audio for r in batch]), strict=True):
            clip = heard.clip
            about = {"clip": clip.id, "speaker": clip.speaker, "room": heard.room, "position": heard.position}
            shares = {f"p_{emotion}": p for emotion, p in zip(recognizer.emotions, probabilities, strict=True)}
            rows.append(about | {"target": clip.emotion} | shares)
        if on_progress:
            on_progress(len(rows), len(recordings))
    return pd.DataFrame(rows)
