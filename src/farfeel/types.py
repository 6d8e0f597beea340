"""The nouns of farfeel: clips, rooms, room impulse responses, batches, predictions, and its errors.

Letters for shapes, used everywhere: B batch, M microphones, T samples, L response taps, F mel frames, Q mel bands,
P patch tokens, D width, N video frames, H x W pixels, S x S a square of them, K emotions. Units live in names:
`_s` seconds, `_m` metres, `_db` decibels, `_hz` hertz.
Everything here is frozen: a change returns a new value (`dataclasses.replace`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # NumPy and torch stay out of start-up: `farfeel --help` must be instant.
    import numpy as np
    from torch import Tensor

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""The eight emotions of RAVDESS in the order of its codes 01 to 08. Every corpus maps its labels to these names."""

FACES = ("largest", "left", "right", "whole")
"""Which face of a film is the speaker's; `whole` where the film shows nothing but the face."""


class FarfeelError(Exception):
    """The input or the data is at fault. The message is one line: what was found, what was expected, the remedy."""


@dataclass(frozen=True)
class Clip:
    """One utterance of one speaker: sound, film or both.

    `start_s` and `end_s` cut it out of its audio file (of its film, where there is no audio); `end_s` None means to the
    end. `video_offset_s` is the moment of the film at which the audio file begins. `face` is one of FACES.
    """

    id: str
    corpus: str
    speaker: str
    emotion: str
    audio: Path | None
    video: Path | None = None
    start_s: float = 0.0
    end_s: float | None = None
    sentence: str = ""
    intensity: str = ""
    video_offset_s: float = 0.0
    face: str = "largest"


@dataclass(frozen=True)
class Room:
    """A shoebox room with one source: size (3,), source (3,), microphones (M, 3), all in metres; T60 in seconds."""

    size_m: tuple[float, float, float]
    source_m: tuple[float, float, float]
    mics_m: tuple[tuple[float, float, float], ...]
    t60_s: float


@dataclass(frozen=True)
class Rir:
    """Room impulse responses from one source to M microphones: `taps` (M, L) float32.

    `room` names the acoustic condition that a table has one row for; `geometry` is None where it is not known.
    """

    taps: np.ndarray
    sample_rate: int
    room: str
    position: str = ""
    t60_s: float = float("nan")
    drr_db: float = float("nan")
    origin: str = "simulated"
    geometry: Room | None = None


@dataclass
class Batch:
    """What a model eats. audio (B, M, T); mic_mask (B, M) True where the microphone is alive, nowhere in a clip without
    sound; target (B,) or, after mixup, (B, K) probabilities; frames (B, 3, N, H, W) in [0, 1], None for a model without
    eyes; video_mask (B,) True where there is a film."""

    audio: Tensor
    mic_mask: Tensor
    target: Tensor
    frames: Tensor | None = None
    video_mask: Tensor | None = None


@dataclass(frozen=True)
class Prediction:
    """Probabilities (K,) over `emotions` for the span start_s to end_s of a recording; none where nobody speaks.

    `speech_share` is the share of the span in which somebody speaks, None where nobody listened for it. `decided` is
    False where the highest probability is below what the caller asked for.
    """

    probabilities: tuple[float, ...]
    emotions: tuple[str, ...]
    start_s: float
    end_s: float
    microphones: int = 1
    modalities: tuple[str, ...] = ("audio",)
    warnings: tuple[str, ...] = field(default=())
    speech_share: float | None = None
    decided: bool = True

    @property
    def confidence(self) -> float:
        """The highest probability; 0 where nothing was classified."""
        return max(self.probabilities, default=0.0)

    @property
    def best(self) -> str | None:
        """The likeliest emotion; None where nothing was classified."""
        return self.emotions[self.probabilities.index(self.confidence)] if self.probabilities else None

    @property
    def label(self) -> str | None:
        """The likeliest emotion; None where nothing was classified, or not surely enough."""
        return self.best if self.decided else None

    def abstaining(self, below: float) -> Prediction:
        """The same, undecided where its confidence is below a threshold."""
        return replace(self, decided=self.confidence >= below) if self.probabilities else self


@dataclass(frozen=True)
class Timeline:
    """A recording of `seconds`, window by window: each of `window_s`, the next begins `step_s` later; and the spans
    (start_s, end_s) in which somebody speaks."""

    predictions: tuple[Prediction, ...]
    speech: tuple[tuple[float, float], ...]
    seconds: float
    step_s: float
    window_s: float
