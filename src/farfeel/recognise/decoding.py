"""From a file to the input of the networks. All decoding happens here, and no network is needed.

    file -> Recording (audio, video) -> ModelInput: windows (W, M, T) and frames (W, N, S, S, 3) for each recipe

Everything that comes out is plain arrays, so that worker processes can do it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from farfeel.media.audio import SPEECH_SUFFIXES
from farfeel.media.face import FACE_IN_PART, NO_FACE, FaceDetector
from farfeel.media.face_video import FaceVideo
from farfeel.media.microphone_files import named, read_files
from farfeel.media.video import media_info
from farfeel.recipe import Recipe
from farfeel.recognise.inputs import Source, source_file
from farfeel.recognise.microphones import is_silent
from farfeel.recognise.options import DEFAULTS, Options
from farfeel.recognise.windows import Recording, Windows, recording_windows, stack_frames
from farfeel.types import FarfeelError, Prediction

MISMATCH_S = 0.5  # A larger difference between the ends of audio and video is reported.
T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """A recording as one recipe cuts it: windows, frames (W, N, S, S, 3) uint8 or None, seen (W,)."""

    windows: Windows
    frames: np.ndarray | None
    seen: np.ndarray


@dataclass(frozen=True)
class ModelInput:
    """A decoded recording: a view for each recipe, and the prediction without its probabilities."""

    views: tuple[View, ...]
    draft: Prediction


def decode(source: Source, recipes: Sequence[Recipe], options: Options = DEFAULTS) -> ModelInput:
    """Decode a recording for the networks of all recipes. Raises FarfeelError."""
    with source_file(source) as file:
        recording, notes = open_recording(file.path, recipes[0], options)
        found = model_input(recording, notes, recipes, options.mics, named(options.audio_files(file.path)))
        return ModelInput(found.views, file.named(found.draft))


def open_recording(path: str | Path, recipe: Recipe, options: Options = DEFAULTS) -> tuple[Recording, list[str]]:
    """The recording in a file, and notes on what of it cannot be used.

    Where the recipe takes audio and video and one of them cannot be used, the other is returned alone.
    """
    rate = recipe.audio.sample_rate
    notes_on_files: list[str] = []

    def read(files: Sequence[Path]) -> tuple[np.ndarray, float]:
        audio, found = read_files(files, rate)
        notes_on_files.extend(found)
        return audio, audio.shape[1] / rate

    audio, video, notes = open_parts(path, recipe, options, read)
    notes = notes_on_files + notes
    if video and audio is not None and not video.is_still:
        surplus_s = video.video_end_s - audio.shape[1] / rate
        if abs(surplus_s) > MISMATCH_S:
            first, second = ("audio", "video") if surplus_s > 0 else ("video", "audio")
            notes.append(f"the {first} ends {abs(surplus_s):.1f} s before the {second}")
    return Recording(audio, video), notes


def open_parts(
    path: str | Path,
    recipe: Recipe,
    options: Options,
    read: Callable[[Sequence[Path]], tuple[T, float]],
    by_window: bool = False,
) -> tuple[T | None, FaceVideo | None, list[str]]:
    """The audio as `read` returns it, the video, and notes on what cannot be used.

    `read` takes the files that hold the audio; it returns what it read and its length in seconds. Raises FarfeelError
    where neither audio nor video can be used.
    """
    path, problems, files = Path(path), Problems(), options.audio_files(path)
    # Where the recording is one of the files of its microphones, there is no video to look for.
    of_microphones = len(files) > 1 and path in files
    wanted = wanted_parts(recipe, "audio" if of_microphones else options.modalities)
    info = problems.avoid("video", lambda: media_info(path)) if "video" in wanted else None
    video_info = info.video if info else None
    found = video = None
    if "audio" in wanted and (options.audio or info is None or info.audio or video_info is None):
        found = problems.avoid("audio", lambda: read(files))
    audio, end_s = found or (None, None)
    offset_s = options.audio_offset_s if options.audio else 0.0  # A video's own audio begins with it.
    is_expected = info is not None and bool(options.audio or "audio" not in wanted)  # Then its absence is an error.
    if video_info or is_expected:
        settings, seconds, detector = recipe.video, recipe.audio.seconds, detector_of(options)
        what = (path, settings, seconds, offset_s, end_s, options.face, detector, video_info, by_window)
        video = problems.avoid("video", lambda: FaceVideo(*what))
    if found is None and video is None:
        raise problems.gravest(path)
    return audio, video, problems.notes()


def model_input(
    recording: Recording,
    notes: Sequence[str],
    recipes: Sequence[Recipe],
    mics: Sequence[int] | None = None,
    what: str = "recording",
) -> ModelInput:
    """A recording as the networks take it. Its video is decoded here. `what` names the recording in errors."""
    notes, audio, video = list(notes), recording.audio, recording.video
    numbers: list[int] = []
    if audio is not None:
        chosen, numbers, mic_notes = _choose_mics(audio, mics, recipes, what, video is not None)
        notes += mic_notes
        recording = Recording(chosen, video)
    try:
        views = views_of(recording, recipes)
    except FarfeelError as error:  # Only the video can fail here: its frames are decoded when they are needed.
        if recording.audio is None:
            raise
        notes.append(f"the video is not used: {error}")
        video = None
        views = views_of(Recording(recording.audio), recipes)
    windows = views[0].windows
    notes += [f"microphone {numbers[mic]} {fault}" for mic, fault in windows.faults.items()]
    working = int(windows.mic_mask.any(axis=0).sum())
    modalities = ["audio"] * bool(working)
    if video is not None:
        notes += video.warnings
        modalities += ["video"] * video.was_used
        if not video.was_used and NO_FACE not in video.warnings:
            little = "shows a face in" if FACE_IN_PART in video.warnings else "covers"
            notes.append(f"the video is not used: it {little} less than half of the audio")
    seconds = video.seconds if video and audio is None else 0.0
    if audio is not None:
        seconds = audio.shape[1] / recipes[0].audio.sample_rate
    draft = Prediction((), recipes[0].data.emotions, 0.0, seconds, working, tuple(modalities), tuple(notes))
    return ModelInput(views, draft)


def views_of(recording: Recording, recipes: Sequence[Recipe]) -> tuple[View, ...]:
    """A recording as each recipe cuts it. Its video is decoded here."""
    made: dict[tuple[object, ...], View] = {}  # Most ensembles cut recordings alike.
    views = []
    for recipe in recipes:
        audio, front_end = recipe.audio, recipe.microphones.front_end
        key = (audio.seconds, audio.trim_silence, audio.sample_rate, recipe.modalities == "audio", front_end)
        if key not in made:
            windows = recording_windows(recording, recipe)
            frames = [
                None if recording.video is None or recipe.modalities == "audio" else recording.video.frames(*span)
                for span in windows.spans_s
            ]
            made[key] = View(windows, *stack_frames(frames, recipe))
        views.append(made[key])
    return tuple(views)


def default_mics(recipes: Sequence[Recipe], available: int, what: str) -> list[int]:
    """Microphones to use if the caller chose none. Raises FarfeelError where the strategy cannot use all of them."""
    takes = {recipe.microphones.takes for recipe in recipes}
    if takes == {"one"}:
        return [0]
    counts = {recipe.microphones.count for recipe in recipes}
    if "as trained" in takes and counts != {available}:
        expected = max(counts)
        choose = ",".join(map(str, range(min(expected, available))))
        raise FarfeelError(
            f"{what} has {available} channel{'s' * (available != 1)}, the checkpoint takes {expected} microphones; "
            f"choose them with --mics {choose} or load a checkpoint trained with {available}"
        )
    return list(range(available))


def require_mics(mics: Sequence[int], available: int, what: str) -> list[int]:
    """The chosen microphones. Raises FarfeelError where a recording does not have them."""
    if max(mics) >= available:
        raise FarfeelError(
            f"{what} has {available} channel{'s' * (available != 1)} (0 to {available - 1}), "
            f"--mics asks for {max(mics)}; choose among them"
        )
    return list(mics)


def _choose_mics(
    audio: np.ndarray, mics: Sequence[int] | None, recipes: Sequence[Recipe], what: str, has_video: bool
) -> tuple[np.ndarray | None, list[int], list[str]]:
    """The chosen channels, their numbers, and warnings. No channels where all are silent and there is a video."""
    warnings = []
    if mics is None:
        mics = default_mics(recipes, len(audio), what)
        if len(mics) < len(audio):
            warnings.append(f"{len(mics)} of {len(audio)} microphones used; this checkpoint takes one")
    numbers = require_mics(mics, len(audio), what)
    chosen = audio[numbers]
    if is_silent(chosen, recipes[0].audio.sample_rate):
        if not has_video:
            raise FarfeelError(f"{what}: every chosen microphone is silent; choose others with --mics")
        return None, numbers, [*warnings, "every chosen microphone is silent; only the video is used"]
    return chosen, numbers, warnings


def detector_of(options: Options) -> FaceDetector | None:
    """What finds faces; None: OpenCV's Haar cascade."""
    return options.detector or (FaceDetector(Path(options.face_model)) if options.face_model else None)


def wanted_parts(recipe: Recipe, modalities: str) -> set[str]:
    """Audio, video or both: what is requested and what the checkpoint takes. Raises FarfeelError where that is none."""
    wanted = _parts(recipe.modalities) & _parts(modalities)
    if not wanted:
        raise FarfeelError(
            f"the checkpoint takes {recipe.modalities}, --modalities asks for {modalities}; remove --modalities"
        )
    return wanted


def _parts(modalities: str) -> set[str]:
    return {"audio", "video"} if modalities == "both" else {modalities}


class Problems:
    """The errors of parts of a recording, where another part may still be used."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, FarfeelError]] = []

    def avoid(self, part: str, read: Callable[[], T]) -> T | None:
        """What `read` returns; None where it fails, which is noted."""
        try:
            return read()
        except FarfeelError as error:
            self.errors.append((part, error))
            return None

    def gravest(self, path: Path) -> FarfeelError:
        """The error of the part that the file's suffix names, or of another part where that one has none."""
        named = "audio" if path.suffix.lower() in SPEECH_SUFFIXES else "video"
        return next((error for part, error in self.errors if part == named), self.errors[0][1])

    def notes(self) -> list[str]:
        return [f"the {part} is not used: {error}" for part, error in self.errors]
