"""From a file to what the networks are asked about it: all the decoding, and none of the recognising.

    file -> Recording (sound, film) -> Prepared: windows (W, M, T) and frames (W, N, S, S, 3) for each recipe

Nothing here needs a network, and everything that comes out is plain arrays: worker processes do it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from farfeel.media.audio import SPEECH_SUFFIXES, read_audio, unused_audio
from farfeel.media.face import FaceDetector
from farfeel.media.face_video import FaceVideo
from farfeel.media.video import media_info
from farfeel.recipe import Recipe
from farfeel.recognise.windows import Recording, Windows, is_alive, recording_windows, stack_frames
from farfeel.types import FarfeelError, Prediction

MISMATCH_S = 0.5  # Sound and film whose lengths differ by more are told so.
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How a recording is taken. mics: None: all that the checkpoint takes. audio: another file with the sound, as of a
    microphone array, which begins audio_offset_s after the film. face: one of FACES. modalities: audio or video, to use
    nothing but that. face_model: YuNet's file, to find faces with."""

    mics: tuple[int, ...] | None = None
    audio: Path | None = None
    audio_offset_s: float = 0.0
    face: str = "largest"
    modalities: str = "both"
    face_model: Path | None = None


DEFAULTS = Options()


@dataclass(frozen=True)
class View:
    """A recording as one recipe cuts it: windows, frames (W, N, S, S, 3) uint8 or None, seen (W,)."""

    windows: Windows
    frames: np.ndarray | None
    seen: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """A recording ready to be recognised: a view for each recipe, and the prediction but for its probabilities."""

    views: tuple[View, ...]
    about: Prediction


def prepare(
    path: str | Path, recipes: Sequence[Recipe], options: Options = DEFAULTS, detector: FaceDetector | None = None
) -> Prepared:
    """Decode a file. Raises FarfeelError with one line."""
    recording, notes = open_recording(path, recipes[0], options, detector)
    return prepare_recording(recording, notes, recipes, options.mics, str(options.audio or path))


def open_recording(
    path: str | Path, recipe: Recipe, options: Options = DEFAULTS, detector: FaceDetector | None = None
) -> tuple[Recording, list[str]]:
    """The recording in a file, and what of it cannot be used. Where the recipe takes sound and film and one of them
    fails, there is the other."""
    rate = recipe.audio.sample_rate

    def hear(file: Path) -> tuple[np.ndarray, float]:
        audio = read_audio(file, rate)
        return audio, audio.shape[1] / rate

    sound, footage, notes = open_parts(path, recipe, options, hear, detector)
    if sound is not None and (unused := unused_audio(Path(options.audio or path))):
        notes.append(unused)
    if footage and sound is not None and not footage.is_still:
        rest_s = footage.video_end_s - sound.shape[1] / rate
        if abs(rest_s) > MISMATCH_S:
            notes.append(f"the {'film' if rest_s > 0 else 'sound'} goes on for {abs(rest_s):.1f} s alone")
    return Recording(sound, footage), notes


def open_parts(
    path: str | Path,
    recipe: Recipe,
    options: Options,
    hear: Callable[[Path], tuple[T, float]],
    detector: FaceDetector | None = None,
    by_window: bool = False,
) -> tuple[T | None, FaceVideo | None, list[str]]:
    """What `hear` makes of the sound (and its seconds), the film, and what of the two cannot be used. Raises
    FarfeelError where neither can."""
    taken = taken_of(recipe, options.modalities)
    path, problems = Path(path), Problems()
    info = problems.avoid("film", lambda: media_info(path)) if "video" in taken else None
    film = info.video if info else None
    heard = footage = None
    if "audio" in taken and (options.audio or info is None or info.audio or film is None):
        heard = problems.avoid("sound", lambda: hear(Path(options.audio or path)))
    sound, end_s = heard or (None, None)
    offset_s = options.audio_offset_s if options.audio else 0.0  # A film's own sound begins with it.
    if film or (info and (options.audio or "audio" not in taken)):  # where it was asked for: its absence is told
        finder = detector or (FaceDetector(options.face_model) if options.face_model else None)
        look = (path, recipe.video, recipe.audio.seconds, offset_s, end_s, options.face, finder, film, by_window)
        footage = problems.avoid("film", lambda: FaceVideo(*look))
    if heard is None and footage is None:
        raise problems.gravest(path)
    return sound, footage, problems.notes()


def prepare_recording(
    recording: Recording,
    notes: Sequence[str],
    recipes: Sequence[Recipe],
    mics: Sequence[int] | None = None,
    what: str = "recording",
) -> Prepared:
    """`what` names the recording in errors. Films are decoded here."""
    notes, audio, footage, living = list(notes), recording.audio, recording.footage, 0
    if audio is not None:
        chosen, living, heard_notes = _choose_mics(audio, mics, recipes, what, footage is not None)
        notes += heard_notes
        recording = Recording(chosen, footage)
    try:
        views = views_of(recording, recipes)
    except FarfeelError as error:  # Only a film can still fail: its frames are decoded when they are asked for.
        if recording.audio is None:
            raise
        notes.append(f"the film is not used: {error}")
        footage = None
        views = views_of(Recording(recording.audio), recipes)
    modalities = ["audio"] * bool(living)
    if footage is not None:
        notes += footage.warnings
        modalities += ["video"] * footage.was_used
        if not footage.was_used:
            notes.append("the film is not used: it shows less than half of what is heard")
    seconds = footage.seconds if footage and audio is None else 0.0
    if audio is not None:
        seconds = audio.shape[1] / recipes[0].audio.sample_rate
    about = Prediction((), recipes[0].data.emotions, 0.0, seconds, living, tuple(modalities), tuple(notes))
    return Prepared(views, about)


def views_of(recording: Recording, recipes: Sequence[Recipe]) -> tuple[View, ...]:
    """A recording as each recipe cuts it; its film is decoded here."""
    made: dict[tuple[object, ...], View] = {}  # Most ensembles cut recordings alike.
    views = []
    for recipe in recipes:
        audio, front_end = recipe.audio, recipe.microphones.front_end
        key = (audio.seconds, audio.trim_silence, audio.sample_rate, recipe.modalities == "audio", front_end)
        if key not in made:
            windows = recording_windows(recording, recipe)
            looks = [
                None if recording.footage is None or recipe.modalities == "audio" else recording.footage.frames(*span)
                for span in windows.spans_s
            ]
            made[key] = View(windows, *stack_frames(looks, recipe))
        views.append(made[key])
    return tuple(views)


def default_mics(recipes: Sequence[Recipe], available: int, what: str) -> list[int]:
    """Microphones to use where the caller chose none. Raises FarfeelError where the strategy cannot take them."""
    strategies = {recipe.microphones.strategy for recipe in recipes}
    if strategies == {"single"}:
        return [0]
    counts = {recipe.microphones.count for recipe in recipes}
    if "sum-patches" in strategies and counts != {available}:
        expected = max(counts)
        choose = ",".join(map(str, range(min(expected, available))))
        raise FarfeelError(
            f"{what} has {available} channel{'s' * (available != 1)}, the checkpoint sums {expected} microphones; "
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
    audio: np.ndarray, mics: Sequence[int] | None, recipes: Sequence[Recipe], what: str, filmed: bool
) -> tuple[np.ndarray | None, int, list[str]]:
    """Channels to hear, how many of them are alive, warnings. None where all are silent and there is a film."""
    warnings = []
    if mics is None:
        mics = default_mics(recipes, len(audio), what)
        if len(mics) < len(audio):
            warnings.append(f"{len(mics)} of {len(audio)} microphones used; this checkpoint takes one")
    chosen = audio[require_mics(mics, len(audio), what)]
    dead = ~is_alive(chosen)
    if dead.all():
        if not filmed:
            raise FarfeelError(f"{what}: every chosen microphone is silent; choose others with --mics")
        return None, 0, [*warnings, "every chosen microphone is silent; the film alone is used"]
    if dead.any():
        silent = ", ".join(str(mic) for mic, is_dead in zip(mics, dead, strict=True) if is_dead)
        warnings.append(f"microphone {silent} is silent and left out")
    return chosen, int((~dead).sum()), warnings


def taken_of(recipe: Recipe, modalities: str) -> set[str]:
    """What a checkpoint takes of what was asked for."""
    taken = _parts(recipe.modalities) & _parts(modalities)
    if not taken:
        raise FarfeelError(
            f"the checkpoint takes {recipe.modalities}, --modalities asks for {modalities}; leave it out"
        )
    return taken


def _parts(modalities: str) -> set[str]:
    return {"audio", "video"} if modalities == "both" else {modalities}


class Problems:
    """What went wrong with the parts of a recording that may have other parts to go on with: (part, its error)."""

    def __init__(self) -> None:
        self.met: list[tuple[str, FarfeelError]] = []

    def avoid(self, what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except FarfeelError as error:
            self.met.append((what, error))
            return None

    def gravest(self, path: Path) -> FarfeelError:
        """The error of what the file is by its name, or of another part where that one has none."""
        what = "sound" if path.suffix.lower() in SPEECH_SUFFIXES else "film"
        return next((error for part, error in self.met if part == what), self.met[0][1])

    def notes(self) -> list[str]:
        return [f"the {what} is not used: {error}" for what, error in self.met]
