"""Everything that a caller can choose about one recording, in one object.

A new option is added here: as a field of `Options`, with its check, and as a key of `OptionChanges`. `predict`,
`predict_many`, `timeline`, the command line and the server pass the object on as it is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from farfeel.types import FACES, FarfeelError

if TYPE_CHECKING:  # OpenCV takes a moment to import.
    from farfeel.media.face import FaceDetector

MODALITIES = ("audio", "video", "both")
FilePath = str | os.PathLike[str]


@dataclass(frozen=True)
class Options:
    """How a recording is read, and when a prediction has no label.

    mics: the microphones to use, counted from 0; None: all that the checkpoint takes.
    audio: another file that holds the audio of a video, for instance of a microphone array. Several files are one
        recording with one file for each microphone; its channels are those of the files, in their order.
    audio_offset_s: seconds from the start of the video to the start of `audio`.
    face: which face of the video to use: largest, left, right, or whole for the whole picture.
    modalities: audio, video or both; audio and video use that part of the recording alone.
    face_model: YuNet's ONNX file, which finds faces instead of OpenCV's Haar cascade.
    detector: a `FaceDetector` that is already loaded, instead of `face_model`. Worker processes cannot take one.
    abstain_below: a prediction whose highest probability is below this has no label; from 0 to 1.

    Raises FarfeelError where a value is not possible.

    >>> from farfeel import Options
    >>> Options(mics=[0, 2], abstain_below=0.5).mics
    (0, 2)
    """

    mics: Sequence[int] | None = None
    audio: FilePath | Sequence[FilePath] | None = None
    audio_offset_s: float = 0.0
    face: str = "largest"
    modalities: str = "both"
    face_model: FilePath | None = None
    detector: FaceDetector | None = None
    abstain_below: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "audio", None if self.audio is None else _audio(self.audio))
        object.__setattr__(self, "face_model", None if self.face_model is None else Path(self.face_model))
        object.__setattr__(self, "mics", None if self.mics is None else _mics(self.mics))
        if not math.isfinite(self.audio_offset_s):
            raise FarfeelError(f"audio_offset_s is {self.audio_offset_s}, expected a finite number; correct it")
        if self.face not in FACES:
            raise FarfeelError(f"face is {self.face!r}, expected {', '.join(FACES)}; choose one of them")
        if self.modalities not in MODALITIES:
            raise FarfeelError(
                f"modalities is {self.modalities!r}, expected {', '.join(MODALITIES)}; choose one of them"
            )
        if not 0 <= self.abstain_below <= 1:
            raise FarfeelError(f"abstain_below is {self.abstain_below}, expected a number from 0 to 1; correct it")

    def audio_files(self, recording: FilePath) -> tuple[Path, ...]:
        """The files that hold the audio: `audio`, or the recording itself."""
        if self.audio is None:
            return (Path(recording),)
        return (Path(self.audio),) if isinstance(self.audio, str | os.PathLike) else tuple(map(Path, self.audio))


class StreamChanges(TypedDict, total=False):
    """The options that a live stream takes, as keywords."""

    face: str
    modalities: str
    face_model: FilePath | None
    detector: FaceDetector | None
    abstain_below: float


class OptionChanges(StreamChanges, total=False):
    """The fields of `Options` as keywords, for type checkers and editors."""

    mics: Sequence[int] | None
    audio: FilePath | Sequence[FilePath] | None
    audio_offset_s: float


DEFAULTS = Options()


def options_of(options: Options | None, **changes: Any) -> Options:
    """The options with the changes made. Raises FarfeelError where `options` is something else."""
    if options is not None and not isinstance(options, Options):
        raise FarfeelError(
            f"the options are {_named(options)}, expected farfeel.Options; name single options, as in mics=[0, 2]"
        )
    return replace(options or DEFAULTS, **changes)


def _audio(audio: FilePath | Sequence[FilePath]) -> Path | tuple[Path, ...]:
    if isinstance(audio, str | os.PathLike):
        return Path(audio)
    try:
        files = [Path(file) for file in audio]
    except TypeError:
        raise FarfeelError(f"audio is {_named(audio)}, expected a path or several paths; correct it") from None
    if not files:
        raise FarfeelError("audio is an empty list, expected a path or several paths; correct it")
    if twice := next((file for file in files if files.count(file) > 1), None):
        raise FarfeelError(f"{twice} is named twice as audio, expected one file for each microphone; remove one")
    return files[0] if len(files) == 1 else tuple(files)


def _mics(mics: object) -> tuple[int, ...]:
    try:
        numbers = [int(mic) for mic in mics]  # type: ignore[attr-defined]
        if list(mics) == numbers and numbers and min(numbers) >= 0 and len(set(numbers)) == len(numbers):  # type: ignore[call-overload]
            return tuple(numbers)
    except (TypeError, ValueError):
        pass
    raise FarfeelError(f"mics is {mics!r}, expected different numbers from 0 as in [0, 2]; correct it")


def _named(value: object) -> str:
    return f"of type {type(value).__name__}"
