"""Recognizer: recordings to predictions.

Whatever is recognised, a user's file or a test clip in a measured room, goes the same way:
Recording -> windows (W, M, T') and their frames (W, N, S, S, 3) -> Engine -> mean of the windows' probabilities (K,).
A timeline and a live stream give a prediction for each window instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from farfeel.engines import NAMES, Engine
from farfeel.media.audio import AUDIO_SUFFIXES, audio_blocks, audio_info, read_audio
from farfeel.media.face import FaceDetector
from farfeel.media.footage import Footage
from farfeel.media.video import media_info
from farfeel.recipe import Recipe
from farfeel.recordings import Recording, is_alive, recording_windows, stack_frames
from farfeel.stream import Camera, Stream
from farfeel.types import FarfeelError, Prediction, Timeline

DEFAULT = Path(__file__).parent / "default"  # the checkpoint in the package
BATCH_WINDOWS = 32  # in one pass through the network
LONGEST_S = 24 * 3600.0  # of a timeline's film
T = TypeVar("T")
MISMATCH_S = 0.5  # Sound and film whose lengths differ by more are told so.


class Recognizer:
    """One checkpoint, or several whose probabilities are averaged.

    >>> recognizer = Recognizer.load()                              # doctest: +SKIP
    >>> recognizer.predict("clip.wav").label                        # doctest: +SKIP
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        first = engines[0].recipe
        for engine in engines[1:]:
            ours, theirs = first, engine.recipe
            if theirs.data.emotions != first.data.emotions:
                raise FarfeelError(
                    f"the checkpoints know different emotions ({', '.join(first.data.emotions)}; "
                    f"{', '.join(theirs.data.emotions)}); an ensemble needs the same"
                )
            if theirs.audio.sample_rate != first.audio.sample_rate:
                raise FarfeelError(
                    f"the checkpoints hear at {first.audio.sample_rate} Hz and {theirs.audio.sample_rate} Hz; "
                    "an ensemble needs one sample rate"
                )
            if ours.modalities != theirs.modalities:
                raise FarfeelError(
                    f"the checkpoints take {ours.modalities} and {theirs.modalities}; an ensemble needs the same"
                )
            if ours.modalities != "audio" and _look(ours) != _look(theirs):
                raise FarfeelError(
                    f"the checkpoints look at films in other ways ({_look(ours)}; {_look(theirs)}); "
                    "an ensemble needs the same"
                )
        self.engines = list(engines)
        self.emotions = first.data.emotions

    @classmethod
    def load(
        cls,
        checkpoints: str | Path | Sequence[str | Path] | None = None,
        device: str = "cpu",
        precision: str = "32",
        engine: str = "torch",
    ) -> Recognizer:
        """A checkpoint folder, or several; None: the one in the package.

        `engine`: torch, on `device` (cpu, cuda, cuda:1, mps) with `precision` 32 or bf16; or onnx, for exported files
        (`farfeel export`), without PyTorch.
        """
        named = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints or [DEFAULT]
        if engine not in NAMES:
            raise FarfeelError(f"engine {engine} is not one of {', '.join(NAMES)}; choose one of them")
        if engine == "onnx":
            from farfeel.engines.onnx import OnnxEngine

            return cls([OnnxEngine(path / "model.onnx" if path.is_dir() else path) for path in map(Path, named)])
        from farfeel.engines.pytorch import TorchEngine

        return cls([TorchEngine.load(Path(path), device, precision) for path in named])

    @property
    def recipe(self) -> Recipe:
        """Of the first checkpoint; what an ensemble has to agree on holds for all."""
        return self.engines[0].recipe

    @property
    def sample_rate(self) -> int:
        return self.recipe.audio.sample_rate

    def default_mics(self, available: int, what: str) -> list[int]:
        """Microphones to use where the caller chose none. Raises FarfeelError where the strategy cannot take them."""
        strategies = {engine.recipe.microphones.strategy for engine in self.engines}
        if strategies == {"single"}:
            return [0]
        counts = {engine.recipe.microphones.count for engine in self.engines}
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
        return self.recipe.modalities

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
        abstain_below: float = 0.0,
    ) -> Prediction:
        """Emotion of one recording: a file with sound, film or both.

        `audio` is another file with the sound, as of a microphone array, which begins `audio_offset_s` after the film.
        `face`: largest, left, right or whole. `modalities`: audio or video, to use nothing but that. Where the
        checkpoint takes both and one cannot be used, the prediction is made from the other, with a warning. A
        prediction less sure than `abstain_below` has no label. Raises FarfeelError with one line.
        """
        return self.predict_recording(
            *self.open(path, audio, audio_offset_s, face, modalities, detector), mics=mics, what=str(audio or path)
        ).abstaining(abstain_below)

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
        taken = self._taken(modalities)
        path, recipe, problems = Path(path), self.recipe, _Problems()
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

    def _taken(self, modalities: str) -> set[str]:
        """What the checkpoint takes of what was asked for."""
        taken = _parts(self.modalities) & _parts(modalities)
        if not taken:
            raise FarfeelError(
                f"the checkpoint takes {self.modalities}, --modalities asks for {modalities}; leave it out"
            )
        return taken

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
            raise _no_such_mic(what, len(audio), mics)
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
        return np.mean([self._of_engine(engine, recordings) for engine in self.engines], axis=0)

    def _of_engine(self, engine: Engine, recordings: Sequence[Recording]) -> np.ndarray:
        result = np.empty((len(recordings), len(self.emotions)))
        mics_of = [1 if each.audio is None else len(each.audio) for each in recordings]
        for mics in set(mics_of):  # a batch has one number of microphones
            group = [i for i, count in enumerate(mics_of) if count == mics]
            windows = [recording_windows(recordings[i], engine.recipe) for i in group]
            audio = np.concatenate([each.audio for each in windows])
            mask = np.concatenate([each.mic_mask for each in windows])
            views = [
                (recordings[i].footage, span) for i, each in zip(group, windows, strict=True) for span in each.spans_s
            ]
            found = []
            for start in range(0, len(views), BATCH_WINDOWS):
                part = slice(start, start + BATCH_WINDOWS)
                looks = [
                    None if footage is None or engine.recipe.modalities == "audio" else footage.frames(*span)
                    for footage, span in views[part]
                ]
                found.append(engine.probabilities(audio[part], mask[part], *stack_frames(looks, engine.recipe)))
            ends = np.cumsum([len(each.spans_s) for each in windows])
            parts = np.split(np.concatenate(found), ends[:-1])
            result[group] = np.stack([part.mean(axis=0) for part in parts])
        return result

    def stream(
        self,
        sample_rate: int,
        mics: int = 1,
        step_s: float = 1.0,
        *,
        face: str = "largest",
        detector: FaceDetector | None = None,
        abstain_below: float = 0.0,
    ) -> Stream:
        """A stream of sound (M, n) at any sample rate, and of frames: a prediction for each window, every step_s."""
        eyes = None if self.modalities == "audio" else Camera(self.recipe, face, detector)
        return Stream(self._classify, self._one_window(), sample_rate, mics, step_s, eyes, abstain_below)

    def timeline(
        self,
        path: str | Path,
        step_s: float = 1.0,
        *,
        mics: Sequence[int] | None = None,
        audio: str | Path | None = None,
        audio_offset_s: float = 0.0,
        face: str = "largest",
        modalities: str = "both",
        detector: FaceDetector | None = None,
        abstain_below: float = 0.0,
        on_progress: Callable[[float, float], None] | None = None,
    ) -> Timeline:
        """A recording of any length, window by window; what is kept of it is one window. Arguments as for `predict`;
        `on_progress` gets the seconds done and those there are. Silence is not classified. Raises FarfeelError."""
        path, recipe = Path(path), self._one_window()
        taken = self._taken(modalities)
        problems = _Problems()
        info = problems.avoid("film", lambda: media_info(path)) if "video" in taken else None
        film = info.video if info else None
        sound = Path(audio or path)
        heard = None
        if "audio" in taken and (audio or info is None or info.audio or film is None):
            heard = problems.avoid("sound", lambda: audio_info(sound))
        offset_s = audio_offset_s if audio else 0.0
        footage = None
        if film:
            end_s = heard.seconds if heard else None
            footage = problems.avoid(
                "film",
                lambda: Footage(
                    path, recipe.video, recipe.audio.seconds, offset_s, end_s, face, detector, film, LONGEST_S
                ),
            )
        if heard is None and footage is None:
            raise problems.first("sound" if path.suffix.lower() in AUDIO_SUFFIXES else "film")
        if heard is None:
            assert footage is not None
            return self._film_timeline(footage, step_s, abstain_below, on_progress)
        chosen = list(mics) if mics is not None else self.default_mics(heard.channels, str(sound))
        if max(chosen) >= heard.channels:
            raise _no_such_mic(str(sound), heard.channels, chosen)
        stream = Stream(self._classify, recipe, heard.sample_rate, len(chosen), step_s, footage, abstain_below)
        found: list[Prediction] = []
        for block in audio_blocks(sound):
            found += stream.push(block[chosen])
            if on_progress:
                on_progress(min(stream.seconds, heard.seconds), heard.seconds)
        found += stream.close()
        notes = tuple(f"the {what} is not used: {error}" for what, error in problems.met)
        if notes and found:
            found[0] = replace(found[0], warnings=(*notes, *found[0].warnings))
        return Timeline(tuple(found), tuple(stream.speech), stream.seconds, step_s, recipe.audio.seconds)

    def _film_timeline(
        self,
        footage: Footage,
        step_s: float,
        abstain_below: float,
        on_progress: Callable[[float, float], None] | None,
    ) -> Timeline:
        """The same windows, from a film alone."""
        window_s, end_s = self.recipe.audio.seconds, footage.end_s
        starts = np.arange(0, max(0.0, end_s - window_s) + 1e-6, step_s).tolist()
        if end_s - starts[-1] - window_s >= 0.5 * step_s:
            starts.append(end_s - window_s)
        found, told = [], 0
        for start_s in starts:
            span = (start_s, min(start_s + window_s, end_s))
            frames = footage.frames(*span)
            seen = () if frames is None else ("video",)
            prediction = Prediction((), self.emotions, *span, 0, seen, footage.warnings[told:])
            told = len(footage.warnings)
            if frames is not None:
                nothing = np.zeros((1, 1, round(window_s * self.sample_rate)), np.float32)
                deaf = np.zeros((1, 1), dtype=bool)
                (row,) = self._classify(nothing, deaf, *stack_frames([frames], self.recipe))
                prediction = replace(prediction, probabilities=tuple(map(float, row))).abstaining(abstain_below)
            found.append(prediction)
            if on_progress:
                on_progress(span[1], end_s)
        return Timeline(tuple(found), (), end_s, step_s, window_s)

    def _classify(
        self, audio: np.ndarray, mic_mask: np.ndarray, frames: np.ndarray | None, seen: np.ndarray
    ) -> np.ndarray:
        """Arguments as for an engine → the mean of all engines (W, K)."""
        found = []
        for start in range(0, len(audio), BATCH_WINDOWS):
            part = slice(start, start + BATCH_WINDOWS)
            look = None if frames is None else frames[part]
            asked = (audio[part], mic_mask[part], look, seen[part])
            found.append(np.mean([engine.probabilities(*asked) for engine in self.engines], axis=0))
        return np.concatenate(found)

    def _one_window(self) -> Recipe:
        """The recipe of all checkpoints, which must cut recordings alike for a timeline."""
        lengths = sorted({engine.recipe.audio.seconds for engine in self.engines})
        if len(lengths) > 1:
            raise FarfeelError(
                f"the checkpoints hear windows of {' and '.join(f'{s:g}' for s in lengths)} s; "
                "a timeline needs the same"
            )
        return self.recipe


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


def _no_such_mic(what: str, channels: int, mics: Sequence[int]) -> FarfeelError:
    return FarfeelError(
        f"{what} has {channels} channel{'s' * (channels != 1)} (0 to {channels - 1}), "
        f"--mics asks for {max(mics)}; choose among them"
    )
