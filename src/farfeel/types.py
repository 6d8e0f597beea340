"""The data types of farfeel: clips, rooms, room impulse responses, batches, predictions, and its error.

Letters for shapes, used everywhere: B batch, M microphones, T samples, L response taps, F mel frames, Q mel bands,
P patch tokens, D width, N video frames, H x W pixels, S x S a square of them, K emotions. Units are part of names:
`_s` seconds, `_m` metres, `_db` decibels, `_hz` hertz.
Everything here is frozen except `Batch`: to change a value, make a new one with `dataclasses.replace`.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # NumPy and torch stay out of start-up: `farfeel --help` must be instant.
    import numpy as np
    import pandas as pd
    from torch import Tensor

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""The eight emotions of RAVDESS in the order of its codes 01 to 08. Every corpus maps its labels to these names."""

FACES = ("largest", "left", "right", "whole")
"""Which face of a video is the speaker's; `whole` where the video shows nothing but the face."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
LONGEST_MESSAGE = 2000  # characters

HTML_COLUMNS = 240  # of a timeline's drawing in a notebook; a longer timeline is averaged into these


class FarfeelError(Exception):
    """The input or the data is wrong.

    The message is one line: what was found, what was expected, the remedy. The command line prints it and ends with
    exit code 1.

    >>> import farfeel
    >>> try:
    ...     farfeel.Options(mics=[0, 0])
    ... except farfeel.FarfeelError as error:
    ...     print(error)
    mics is [0, 0], expected different numbers from 0 as in [0, 2]; correct it

    Names and values in it may come from a file of somebody else. So line breaks and the control characters that steer a
    terminal become spaces, and a very long message is cut.
    """

    def __init__(self, message: object = "") -> None:
        line = CONTROL.sub(" ", str(message))
        super().__init__(line if len(line) <= LONGEST_MESSAGE else f"{line[: LONGEST_MESSAGE - 1]}…")


@dataclass(frozen=True)
class Clip:
    """One utterance of one speaker: audio, video or both.

    `start_s` and `end_s` are its span in its audio file (in its video, where there is no audio); `end_s` None means to
    the end. `video_offset_s` is the time in the video at which the audio file begins. `face` is one of FACES.
    `more_audio` are further files of the same recording, where each microphone has a file of its own.
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
    more_audio: tuple[Path, ...] = ()

    @property
    def audio_files(self) -> tuple[Path, ...]:
        """All files of its audio; () for a clip without audio."""
        return () if self.audio is None else (self.audio, *self.more_audio)


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

    `room` names the acoustic condition, which has one row in a table of results. `geometry` is None where it is not
    known.
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
    """What a model takes.

    audio: (B, M, T).
    mic_mask: (B, M), True where the microphone works; all False for a clip without audio.
    target: (B,), or (B, K) probabilities after mixup.
    frames: (B, 3, N, H, W) in [0, 1]; None for a model without video.
    video_mask: (B,), True where there is video.
    """

    audio: Tensor
    mic_mask: Tensor
    target: Tensor
    frames: Tensor | None = None
    video_mask: Tensor | None = None


@dataclass(frozen=True)
class Prediction:
    """The emotion of one recording, or of one window of it.

    probabilities: (K,) over `emotions`, sum 1; empty where nothing was classified because nobody speaks.
    emotions: (K,) names.
    start_s, end_s: the span in the recording, in seconds.
    microphones: how many working microphones were used.
    modalities: what was used: audio, video.
    warnings: what of the recording could not be used, and why.
    speech_share: the share of the span in which somebody speaks, 0 to 1; None where speech was not looked for.
    decided: False where the highest probability is below `abstain_below`.

    >>> from farfeel import Prediction
    >>> prediction = Prediction((0.81, 0.19), ("happy", "sad"), start_s=0.0, end_s=3.9)
    >>> prediction
    Prediction(happy 81 %, 0.0–3.9 s)
    >>> prediction.label, prediction.confidence
    ('happy', 0.81)
    >>> prediction.to_dict()["probabilities"]
    {'happy': 0.81, 'sad': 0.19}
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
        """The same prediction, undecided where its confidence is lower than `below`."""
        return replace(self, decided=self.confidence >= below) if self.probabilities else self

    def to_dict(self, path: str | Path = "", checkpoint: str = "") -> dict[str, Any]:
        """The JSON object of `farfeel predict --format json`.

        `path` and `checkpoint` are names that the prediction does not know. A window of a timeline or a stream has
        `speech_share` as well.
        """
        shares = zip(self.emotions, self.probabilities, strict=False)
        return {
            "path": str(path),
            "start_s": round(self.start_s, 3),
            "end_s": round(self.end_s, 3),
            "label": self.label,
            "probabilities": {emotion: round(p, 6) for emotion, p in shares},
            "modalities": list(self.modalities),
            "microphones": self.microphones,
            "checkpoint": checkpoint,
            "warnings": list(self.warnings),
            **({} if self.speech_share is None else {"speech_share": round(self.speech_share, 3)}),
        }

    def to_frame(self, path: str | Path = "") -> pd.DataFrame:
        """One row with the columns of `farfeel predict --format csv`; not a number where nothing was classified."""
        import pandas as pd

        return pd.DataFrame([self._row(path)])

    def _row(self, path: str | Path) -> dict[str, Any]:
        shares = self.probabilities or (float("nan"),) * len(self.emotions)
        return {
            "path": str(path),
            "start_s": self.start_s,
            "end_s": self.end_s,
            "label": self.label,
            **{f"p_{emotion}": p for emotion, p in zip(self.emotions, shares, strict=True)},
            "modalities": "+".join(self.modalities),
            "microphones": self.microphones,
            "warnings": "; ".join(self.warnings),
        }

    def __repr__(self) -> str:
        return f"Prediction({self._summary()})"

    def _summary(self) -> str:
        if not self.probabilities:
            decision = "no speech"
        else:
            decision = f"{'' if self.decided else 'undecided, perhaps '}{self.best} {100 * self.confidence:.0f} %"
        return f"{decision}, {self.start_s:.1f}–{self.end_s:.1f} s"

    def _repr_html_(self) -> str:
        """A bar for each emotion, for notebooks."""
        rows = "".join(
            f"<tr><td>{html.escape(emotion)}</td><td>{100 * p:.0f} %</td>"
            f'<td style="width:12em;text-align:left"><div style="background:#4477aa;height:0.9em;width:{100 * p:.1f}%">'
            "</div></td></tr>"
            for emotion, p in zip(self.emotions, self.probabilities, strict=False)
        )
        warnings = "".join(f"<div>warning: {html.escape(warning)}</div>" for warning in self.warnings)
        return f"<div><strong>{html.escape(self._summary())}</strong><table>{rows}</table>{warnings}</div>"


@dataclass(frozen=True)
class Timeline:
    """A recording, window by window.

    predictions: one for each window, in their order.
    speech: spans (start_s, end_s) in which somebody speaks.
    seconds: length of the recording.
    step_s: from the start of one window to the start of the next, in seconds.
    window_s: length of a window in seconds.

    >>> from farfeel import Prediction, Timeline
    >>> windows = (Prediction((0.7, 0.3), ("happy", "sad"), 0.0, 4.0), Prediction((), ("happy", "sad"), 1.0, 5.0))
    >>> timeline = Timeline(windows, speech=((0.2, 3.1),), seconds=5.0, step_s=1.0, window_s=4.0)
    >>> timeline
    Timeline(5.0 s, 2 windows: 1 happy, 1 without a label)
    >>> [row["label"] for row in timeline.to_dict()["predictions"]]
    ['happy', None]
    """

    predictions: tuple[Prediction, ...]
    speech: tuple[tuple[float, float], ...]
    seconds: float
    step_s: float
    window_s: float

    def to_dict(self, path: str | Path = "", checkpoint: str = "") -> dict[str, Any]:
        """The JSON object of the server's /v1/timeline. Its `predictions` are the list that
        `farfeel predict --timeline --format json` writes. `path` and `checkpoint` are names that it does not know."""
        return {
            "path": str(path),
            "seconds": round(self.seconds, 3),
            "step_s": self.step_s,
            "window_s": self.window_s,
            "speech": [[round(start_s, 3), round(end_s, 3)] for start_s, end_s in self.speech],
            "predictions": [
                {**window.to_dict(path, checkpoint), **_speech_share(window)} for window in self.predictions
            ],
        }

    def to_frame(self, path: str | Path = "") -> pd.DataFrame:
        """A row for each window, with the columns of `farfeel predict --timeline --format csv`."""
        import pandas as pd

        return pd.DataFrame([window._row(path) | {"speech_share": window.speech_share} for window in self.predictions])

    def __repr__(self) -> str:
        return f"Timeline({self._summary()})"

    def _summary(self) -> str:
        count = len(self.predictions)
        labels = Counter(window.label or "without a label" for window in self.predictions)
        parts = ", ".join(f"{times} {label}" for label, times in labels.most_common())
        return f"{self.seconds:.1f} s, {count} window{'s' * (count != 1)}{': ' * bool(parts)}{parts}"

    def _repr_html_(self) -> str:
        """A row for each emotion over time, the darker the more probable, for notebooks."""
        emotions = self.predictions[0].emotions if self.predictions else ()
        seconds, size = max(self.seconds, 1e-3), -(-len(self.predictions) // HTML_COLUMNS) or 1
        boxes = []
        for at in range(0, len(self.predictions), size):
            part = self.predictions[at : at + size]
            classified = [window.probabilities for window in part if window.probabilities]
            middles_s = [(window.start_s + window.end_s) / 2 for window in (part[0], part[-1])]
            x, width = middles_s[0] - self.step_s / 2, middles_s[1] - middles_s[0] + self.step_s
            for row, shares in enumerate(zip(*classified, strict=True)):
                mean = sum(shares) / len(shares)
                boxes.append(
                    f'<rect x="{100 * x / seconds:.2f}%" width="{100 * width / seconds:.2f}%" y="{20 * row}" '
                    f'height="18" fill="#4477aa" fill-opacity="{mean:.2f}"/>'
                )
        names = "".join(f'<div style="height:20px">{html.escape(emotion)}</div>' for emotion in emotions)
        drawing = f'<svg style="flex:1;height:{20 * len(emotions)}px" role="img">{"".join(boxes)}</svg>'
        return (
            f"<div><strong>{html.escape(self._summary())}</strong>"
            f'<div style="display:flex;gap:1em"><div>{names}</div>{drawing}</div></div>'
        )


def _speech_share(prediction: Prediction) -> dict[str, float | None]:
    share = prediction.speech_share
    return {"speech_share": None if share is None else round(share, 3)}
