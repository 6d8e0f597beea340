"""Recognizer: recordings to predictions.

Whatever is recognised, a user's file or a test clip in a measured room, goes the same way:
Recording -> windows (W, M, T') and their frames (W, N, S, S, 3) -> Engine -> mean of the windows' probabilities (K,).
A timeline and a live stream give a prediction for each window instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from farfeel.media.audio import AudioInfo, audio_blocks, audio_info
from farfeel.media.face import FaceDetector
from farfeel.media.face_video import FaceVideo
from farfeel.recipe import Recipe
from farfeel.recognise.decoding import (
    Options,
    Prepared,
    View,
    default_mics,
    open_parts,
    prepare,
    prepare_recording,
    require_mics,
    views_of,
)
from farfeel.recognise.engines import NAMES, Engine
from farfeel.recognise.hub import local
from farfeel.recognise.stream import Camera, Stream, require_step
from farfeel.recognise.temperature import combinations_of, tempered
from farfeel.recognise.windows import Recording, stack_frames, with_front_end
from farfeel.types import FarfeelError, Prediction, Timeline

DEFAULT = Path(__file__).parents[1] / "default"  # the checkpoint in the package
BATCH_WINDOWS = 32  # in one pass through the network


class Recognizer:
    """One checkpoint, or several whose probabilities are averaged.

    >>> recognizer = Recognizer.load()                              # doctest: +SKIP
    >>> recognizer.predict("clip.wav").label                        # doctest: +SKIP
    """

    def __init__(self, engines: Sequence[Engine], front_end: str | None = None) -> None:
        """`front_end`: another than the checkpoints' own, see `recipe.Microphones`."""
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
        self.recipes = [with_front_end(engine.recipe, front_end) for engine in engines]  # What `prepare` takes.

    @classmethod
    def load(
        cls,
        checkpoints: str | Path | Sequence[str | Path] | None = None,
        device: str = "cpu",
        precision: str = "32",
        engine: str = "torch",
        front_end: str | None = None,
    ) -> Recognizer:
        """A checkpoint folder, or several; None: the one in the package. One on the Hugging Face hub is fetched:
        hf://owner/name, or hf://owner/name@revision.

        `engine`: torch, on `device` (cpu, cuda, cuda:1, mps) with `precision` 32 or bf16; or onnx, for exported files
        (`farfeel export`), without PyTorch. `front_end`: none, mvdr or wpe, instead of the checkpoint's own.
        """
        named = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints or [DEFAULT]
        if engine not in NAMES:
            raise FarfeelError(f"engine {engine} is not one of {', '.join(NAMES)}; choose one of them")
        if engine == "onnx":
            from farfeel.recognise.engines.onnx import OnnxEngine

            files = [path / "model.onnx" if path.is_dir() else path for path in map(local, named)]
            return cls([OnnxEngine(file) for file in files], front_end)
        from farfeel.recognise.engines.pytorch import TorchEngine

        return cls([TorchEngine.load(local(path), device, precision) for path in named], front_end)

    @property
    def recipe(self) -> Recipe:
        """Of the first checkpoint; what an ensemble has to agree on holds for all."""
        return self.recipes[0]

    @property
    def sample_rate(self) -> int:
        return self.recipe.audio.sample_rate

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
        """Emotion of one recording: a file with sound, film or both. See `Options` for the arguments.

        Where the checkpoint takes both and one cannot be used, the prediction is made from the other, with a warning. A
        prediction less sure than `abstain_below` has no label. Raises FarfeelError with one line.
        """
        options = _options(mics, audio, audio_offset_s, face, modalities)
        return self.answer([prepare(path, self.recipes, options, detector)], abstain_below)[0]

    def predict_audio(
        self, audio: np.ndarray, mics: Sequence[int] | None = None, what: str = "audio", abstain_below: float = 0.0
    ) -> Prediction:
        """Emotion of a recording (M, T) float32 at `sample_rate`. `what` names it in errors."""
        return self.answer([prepare_recording(Recording(audio), (), self.recipes, mics, what)], abstain_below)[0]

    def answer(self, prepared: Sequence[Prepared], abstain_below: float = 0.0) -> list[Prediction]:
        """The network's part: recordings of any lengths, modalities and microphone counts, batched."""
        found = self._mean([each.views for each in prepared])[:, 0]
        return [
            replace(each.about, probabilities=tuple(map(float, row))).abstaining(abstain_below)
            for each, row in zip(prepared, found, strict=True)
        ]

    def probabilities(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Recordings, all their microphones → (N, K)."""
        return self.calibrated_and_not(recordings)[:, 0]

    def calibrated_and_not(self, recordings: Sequence[Recording]) -> np.ndarray:
        """Recordings → (N, 2, K): their probabilities, and what these would be at temperature 1."""
        return self._mean([views_of(recording, self.recipes) for recording in recordings])

    def _mean(self, views: Sequence[tuple[View, ...]]) -> np.ndarray:
        """A view for each engine, of each recording → (N, 2, K), calibrated and not."""
        each = [_ask(engine, [of[place] for of in views]) for place, engine in enumerate(self.engines)]
        return np.mean(each, axis=0)

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
        options = _options(mics, audio, audio_offset_s, face, modalities)
        return self.timeline_of(path, step_s, options, detector, abstain_below, on_progress)

    def timeline_of(
        self,
        path: str | Path,
        step_s: float,
        options: Options,
        detector: FaceDetector | None = None,
        abstain_below: float = 0.0,
        on_progress: Callable[[float, float], None] | None = None,
    ) -> Timeline:
        """`timeline` for those who have the options in one piece."""
        require_step(step_s)
        recipe = self._one_window()
        heard, footage, notes = open_parts(path, recipe, options, _described, detector, by_window=True)
        if heard is None:
            assert footage is not None
            return self._film_timeline(footage, notes, step_s, abstain_below, on_progress)
        sound = Path(options.audio or path)
        notes += [heard.unused] * bool(heard.unused)
        chosen = default_mics(self.recipes, heard.channels, str(sound)) if options.mics is None else options.mics
        chosen = require_mics(chosen, heard.channels, str(sound))
        stream = Stream(self._classify, recipe, heard.sample_rate, len(chosen), step_s, footage, abstain_below)
        found: list[Prediction] = []
        for block in audio_blocks(sound):
            found += stream.push(block[chosen])
            if on_progress:
                on_progress(min(stream.seconds, heard.seconds), heard.seconds)
        found += stream.close()
        if found:
            found[0] = replace(found[0], warnings=(*notes, *found[0].warnings))
        return Timeline(tuple(found), tuple(stream.speech), stream.seconds, step_s, recipe.audio.seconds)

    def _film_timeline(
        self,
        footage: FaceVideo,
        notes: Sequence[str],
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
            prediction = Prediction((), self.emotions, *span, 0, seen, (*notes, *footage.warnings[told:]))
            notes, told = (), len(footage.warnings)
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
        asked = (audio, mic_mask, frames, seen)
        return np.mean([in_batches(engine, *asked) for engine in self.engines], axis=0)

    def _one_window(self) -> Recipe:
        """The recipe of all checkpoints, which must cut recordings alike for a timeline."""
        lengths = sorted({engine.recipe.audio.seconds for engine in self.engines})
        if len(lengths) > 1:
            raise FarfeelError(
                f"the checkpoints hear windows of {' and '.join(f'{s:g}' for s in lengths)} s; "
                "a timeline needs the same"
            )
        return self.recipe


def _ask(engine: Engine, views: Sequence[View]) -> np.ndarray:
    """Views → (N, 2, K), calibrated and not: for each the mean over its windows. A batch has one number of
    microphones."""
    result = np.empty((len(views), 2, len(engine.recipe.data.emotions)))
    mics_of = [view.windows.audio.shape[1] for view in views]
    for mics in set(mics_of):
        group = [i for i, count in enumerate(mics_of) if count == mics]
        members = [views[i] for i in group]
        frames = [view.frames for view in members if view.frames is not None]
        mic_mask = np.concatenate([view.windows.mic_mask for view in members])
        seen = np.concatenate([view.seen for view in members])
        found = in_batches(
            engine,
            np.concatenate([view.windows.audio for view in members]),
            mic_mask,
            np.concatenate(frames) if frames else None,
            seen,
        )
        temperature = engine.temperature[combinations_of(engine.recipe.modalities, mic_mask, seen)]
        both = np.stack([found, tempered(found, 1 / temperature)], axis=1)
        ends = np.cumsum([len(view.seen) for view in members])
        result[group] = [part.mean(axis=0) for part in np.split(both, ends[:-1])]
    return result


def in_batches(
    engine: Engine, audio: np.ndarray, mic_mask: np.ndarray, frames: np.ndarray | None, seen: np.ndarray
) -> np.ndarray:
    """Any number of windows → (W, K)."""
    parts = [slice(start, start + BATCH_WINDOWS) for start in range(0, len(audio), BATCH_WINDOWS)]
    return np.concatenate(
        [
            engine.probabilities(audio[part], mic_mask[part], None if frames is None else frames[part], seen[part])
            for part in parts
        ]
    )


def _described(sound: Path) -> tuple[AudioInfo, float]:
    info = audio_info(sound)
    return info, info.seconds


def _options(
    mics: Sequence[int] | None, audio: str | Path | None, audio_offset_s: float, face: str, modalities: str
) -> Options:
    return Options(
        None if mics is None else tuple(mics), Path(audio) if audio else None, audio_offset_s, face, modalities
    )


def _look(recipe: Recipe) -> str:
    """What a checkpoint makes of a film, before its network."""
    video = recipe.video
    crop = "whole picture" if video.crop == "none" else f"face with a margin of {video.margin:g}"
    return f"{video.frames} frames of {video.size} pixels in {recipe.audio.seconds:g} s, {crop}"
