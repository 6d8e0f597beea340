"""Recognizer: recordings to predictions; and the prediction table of an evaluation.

Whatever is recognised, a user's file or a test clip in a measured room, goes the same way:
recording (M, T) -> windows (W, M, T') -> EmotionModel -> mean of the windows' probabilities -> (K,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from farfeel.data import Recording, Recordings, recording_windows
from farfeel.media.audio import read_audio
from farfeel.models.checkpoint import load_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.types import FarfeelError, Prediction

BATCH_WINDOWS = 32
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
        dead = np.abs(chosen).max(axis=1) < 10 ** (DEAD_DB / 20)
        if dead.all():
            raise FarfeelError(f"{what}: every chosen microphone is silent; choose others with --mics")
        if dead.any():
            warnings.append(
                f"microphone {', '.join(str(mic) for mic, silent in zip(mics, dead, strict=True) if silent)} is silent and left out"
            )
        probabilities = next(self.probabilities([chosen]))
        return Prediction(
            tuple(map(float, probabilities)),
            self.emotions,
            0.0,
            audio.shape[1] / self.sample_rate,
            microphones=int((~dead).sum()),
            warnings=tuple(warnings),
        )

    def probabilities(self, recordings: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """(M, T) recordings → (K,) each, in order; silent microphones are masked. Reads ahead by one batch only."""
        pending: list[np.ndarray] = []
        for audio in recordings:
            pending.append(audio)
            if 2 * len(pending) >= BATCH_WINDOWS:
                yield from self._batch(pending)
                pending = []
        if pending:
            yield from self._batch(pending)

    def _batch(self, recordings: list[np.ndarray]) -> list[np.ndarray]:
        return list(np.mean([self._one_model(model, recordings) for model in self.models], axis=0))

    @torch.inference_mode()
    def _one_model(self, model: EmotionModel, recordings: list[np.ndarray]) -> np.ndarray:
        """(K,) for each recording, (N, K)."""
        windows = [recording_windows(audio, model.recipe) for audio in recordings]
        masks = [np.abs(audio).max(axis=1) >= 10 ** (DEAD_DB / 20) for audio in recordings]
        result = []
        for mics in sorted({len(audio) for audio in recordings}):  # a ragged batch: one pass per microphone count
            group = [i for i, audio in enumerate(recordings) if len(audio) == mics]
            stacked = torch.from_numpy(np.concatenate([windows[i] for i in group]))
            mask = torch.from_numpy(np.concatenate([np.tile(masks[i], (len(windows[i]), 1)) for i in group]))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bf16):
                logits = torch.cat(
                    [
                        model(audio.to(self.device), alive.to(self.device)).float().cpu()
                        for audio, alive in zip(stacked.split(BATCH_WINDOWS), mask.split(BATCH_WINDOWS), strict=True)
                    ]
                )
            parts = torch.softmax(logits, dim=1).split([len(windows[i]) for i in group])
            result += [(i, part.mean(dim=0).double().numpy()) for i, part in zip(group, parts, strict=True)]
        return np.stack([probabilities for _, probabilities in sorted(result, key=lambda pair: pair[0])])


def prediction_table(
    recognizer: Recognizer, recordings: Recordings, on_progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """Prediction table of every recording: clip, speaker, room, position, target, p_<emotion>…; one row each."""
    rows = []
    heard: list[Recording] = []

    def audio() -> Iterator[np.ndarray]:
        for recording in recordings:
            heard.append(recording)
            yield recording.audio

    for done, probabilities in enumerate(recognizer.probabilities(audio())):
        recording = heard[done]
        heard[done] = None  # type: ignore[call-overload]  # its audio is no longer needed
        clip = recording.clip
        rows.append(
            {
                "clip": clip.id,
                "speaker": clip.speaker,
                "room": recording.room,
                "position": recording.position,
                "target": clip.emotion,
            }
            | {f"p_{emotion}": p for emotion, p in zip(recognizer.emotions, probabilities, strict=True)}
        )
        if on_progress:
            on_progress(done + 1, len(recordings))
    return pd.DataFrame(rows)
