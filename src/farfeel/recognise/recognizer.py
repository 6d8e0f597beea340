"""Recognizer: from recordings to predictions.

A user's file and a test clip in a measured room take the same path:
Recording -> windows (W, M, T') and their frames (W, N, S, S, 3) -> Engine -> mean of the windows' probabilities (K,).
A timeline and a live stream give a prediction for each window instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from farfeel.media.audio import AudioInfo
from farfeel.media.face_video import FaceVideo
from farfeel.media.microphone_files import files_blocks, files_info, named
from farfeel.recipe import Recipe
from farfeel.recognise.decoding import (
    ModelInput,
    View,
    decode,
    default_mics,
    detector_of,
    model_input,
    open_parts,
    require_mics,
    views_of,
)
from farfeel.recognise.engines import NAMES, Engine
from farfeel.recognise.hub import local
from farfeel.recognise.inputs import Source, source_file
from farfeel.recognise.many_files import predict_each
from farfeel.recognise.options import DEFAULTS, FilePath, OptionChanges, Options, StreamChanges, options_of
from farfeel.recognise.samples import checked_recording
from farfeel.recognise.stream import BATCH_WINDOWS, LiveCamera, Stream, require_step
from farfeel.recognise.temperature import combinations_of, tempered
from farfeel.recognise.windows import Recording, stack_frames, with_front_end
from farfeel.types import FarfeelError, Prediction, Timeline

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

DEFAULT = Path(__file__).parents[1] / "default"  # the checkpoint in the package

OnProgress = Callable[[float, float], None]
"""Gets the seconds that are done, and all seconds."""


class Recognizer:
    """One checkpoint, or several whose probabilities are averaged. `farfeel.load` makes it.

    emotions: (K,) names, in the order of the probabilities.
    sample_rate: in Hz, of the samples that `predict_audio` takes. Files and streams may have any rate.
    modalities: audio, video or both: what the checkpoint takes.
    recipe: the recipe of the first checkpoint.

    >>> import farfeel
    >>> recognizer = farfeel.load()
    >>> recognizer.predict("clip.wav").label in recognizer.emotions
    True
    """

    def __init__(self, engines: Sequence[Engine], front_end: str | None = None) -> None:
        """`front_end`: none, mvdr or wpe, instead of the checkpoints' own; see `recipe.Microphones`."""
        first = engines[0].recipe
        for engine in engines[1:]:
            _require_alike(first, engine.recipe)
        self.engines = list(engines)
        self.emotions = first.data.emotions
        self.recipes = [with_front_end(engine.recipe, front_end) for engine in engines]  # what `decode` takes

    @classmethod
    def load(
        cls,
        checkpoints: FilePath | Sequence[FilePath] | None = None,
        device: str = "cpu",
        precision: str = "32",
        engine: str = "torch",
        front_end: str | None = None,
    ) -> Recognizer:
        """A checkpoint, or several; see `farfeel.load` for the arguments. Raises FarfeelError."""
        single = isinstance(checkpoints, str | os.PathLike)
        listed: list[FilePath] = [checkpoints] if single else list(checkpoints or [])  # type: ignore[arg-type,list-item]
        named = [name if isinstance(name, str) else Path(name) for name in listed] or [DEFAULT]
        if engine not in NAMES:
            raise FarfeelError(f"engine {engine} is not one of {', '.join(NAMES)}; choose one of them")
        if engine == "onnx":
            from farfeel.recognise.engines.onnx import OnnxEngine

            files = [path / "model.onnx" if path.is_dir() else path for path in map(local, named)]
            return cls([OnnxEngine(file) for file in files], front_end)
        from farfeel.recognise.engines.pytorch import TorchEngine

        return cls([TorchEngine.load(local(path), device, precision) for path in named], front_end)

    def __repr__(self) -> str:
        first, count = self.recipe, len(self.engines)
        members = f"{count} checkpoints, " if count > 1 else ""
        return f"Recognizer({members}{first.name}: {first.modalities}, {len(self.emotions)} emotions)"

    @property
    def recipe(self) -> Recipe:
        """The recipe of the first checkpoint. What an ensemble has to agree on is the same in all."""
        return self.recipes[0]

    @property
    def sample_rate(self) -> int:
        """In Hz, of the samples that `predict_audio` takes."""
        return self.recipe.audio.sample_rate

    @property
    def modalities(self) -> str:
        """audio, video or both: what the checkpoint takes."""
        return self.recipe.modalities

    def predict(
        self, recording: Source, options: Options | None = None, **changes: Unpack[OptionChanges]
    ) -> Prediction:
        """The emotion of one recording: a file with audio, video or both.

        recording: a path, the bytes of a file, or a file that is open in binary mode.
        options: see `farfeel.Options`. Its fields are also keywords here: `predict(path, mics=[0, 2])`.

        Returns one prediction for the whole recording: the mean of its windows. Where the checkpoint takes audio and
        video and one of them cannot be used, the other is used alone, and a warning says why. Raises FarfeelError
        where the recording cannot be used.

        >>> import farfeel
        >>> recognizer = farfeel.load()
        >>> prediction = recognizer.predict("clip.wav", abstain_below=0.2)
        >>> round(sum(prediction.probabilities), 3)
        1.0
        >>> with open("clip.wav", "rb") as file:
        ...     recognizer.predict(file).label == recognizer.predict("clip.wav").label
        True
        """
        settings = options_of(options, **changes)
        return self.recognise([decode(recording, self.recipes, settings)], settings)[0]

    def predict_audio(
        self,
        samples: ArrayLike,
        options: Options | None = None,
        *,
        what: str = "audio",
        **changes: Unpack[OptionChanges],
    ) -> Prediction:
        """The emotion of a recording that is in memory.

        samples: (M, T), (T, M) or (T,) at `sample_rate`, of 0.1 s to 10 minutes and 64 microphones or fewer. The longer
            axis is time. Floats have full scale 1; int16 and int32 are scaled to that.
        options: see `farfeel.Options`; only mics and abstain_below matter here.
        what: the name of the recording in errors.

        Raises FarfeelError where the array has another shape or type, holds NaN or infinity, or is silent.

        >>> import farfeel, numpy
        >>> recognizer = farfeel.load()
        >>> noise = numpy.random.default_rng(1).normal(0, 0.1, (3, 2 * recognizer.sample_rate))
        >>> recognizer.predict_audio(noise, mics=[0, 2]).microphones
        2
        """
        settings = options_of(options, **changes)
        recording = Recording(checked_recording(samples, self.sample_rate, what))
        return self.recognise([model_input(recording, (), self.recipes, settings.mics, what)], settings)[0]

    def predict_many(
        self,
        recordings: Iterable[Source],
        options: Options | None = None,
        *,
        workers: int = 0,
        **changes: Unpack[OptionChanges],
    ) -> Iterator[Prediction | FarfeelError]:
        """The emotions of many recordings, in their order. The network takes several at a time.

        recordings: as in `predict`. Open files are all read at once where there are workers.
        workers: processes that decode; 0: this process does it. A script that sets it keeps its own code under
            `if __name__ == "__main__":`, because each process imports the script.

        Yields a prediction for each recording, or the FarfeelError that says what is wrong with it.

        >>> import farfeel
        >>> recognizer = farfeel.load()
        >>> [type(result).__name__ for result in recognizer.predict_many(["clip.wav", "missing.wav"])]
        ['Prediction', 'FarfeelError']
        """
        settings = options_of(options, **changes)
        if isinstance(recordings, str | bytes | os.PathLike):
            raise FarfeelError("predict_many takes several recordings, one is given; put it in a list, or use predict")
        if workers and settings.detector:
            raise FarfeelError(
                f"a detector cannot be sent to {workers} worker processes; use face_model, or set workers=0"
            )
        return predict_each(self.recognise, self.recipes, list(recordings), settings, workers)

    def recognise(self, inputs: Sequence[ModelInput], options: Options = DEFAULTS) -> list[Prediction]:
        """The part of the network: inputs of any lengths, modalities and microphone counts, in batches."""
        rows = self._mean([recording.views for recording in inputs])[:, 0]
        return [
            replace(recording.draft, probabilities=tuple(map(float, row))).abstaining(options.abstain_below)
            for recording, row in zip(inputs, rows, strict=True)
        ]

    def probabilities(self, recordings: Sequence[Recording]) -> np.ndarray:
        """N recordings, with all their microphones → (N, K)."""
        return self.calibrated_and_not(recordings)[:, 0]

    def calibrated_and_not(self, recordings: Sequence[Recording]) -> np.ndarray:
        """N recordings → (N, 2, K): calibrated probabilities, and those at temperature 1."""
        return self._mean([views_of(recording, self.recipes) for recording in recordings])

    def _mean(self, views: Sequence[tuple[View, ...]]) -> np.ndarray:
        """A view for each engine, of each recording → (N, 2, K), calibrated and not."""
        of_engines = [
            _both_probabilities(engine, [of_recording[index] for of_recording in views])
            for index, engine in enumerate(self.engines)
        ]
        return np.mean(of_engines, axis=0)

    def stream(
        self,
        sample_rate: int,
        mics: int = 1,
        step_s: float = 1.0,
        options: Options | None = None,
        **changes: Unpack[StreamChanges],
    ) -> Stream:
        """A live stream: blocks of audio and frames of video in, a prediction for each window out.

        sample_rate: in Hz, of the audio that will be pushed.
        mics: the number of microphones.
        step_s: seconds from the start of one window to the start of the next, 0.1 or more.
        options: see `farfeel.Options`; mics, audio and audio_offset_s belong to files and are refused.

        Raises FarfeelError.

        >>> import farfeel, numpy
        >>> stream = farfeel.load().stream(sample_rate=16000, mics=2)
        >>> predictions = stream.push(numpy.zeros((2, 80000))) + stream.close()
        >>> {prediction.label for prediction in predictions}  # nobody speaks
        {None}
        """
        settings = options_of(options, **changes)
        for name in ("mics", "audio", "audio_offset_s"):
            if getattr(settings, name) != getattr(DEFAULTS, name):
                raise FarfeelError(f"a stream has no option {name}; push only the microphones that are to be used")
        if settings.modalities == "video":
            raise FarfeelError("a stream with modalities=video is not possible; push audio, or use a timeline")
        camera = None
        if self.modalities != "audio" and settings.modalities != "audio":
            camera = LiveCamera(self.recipe, settings.face, detector_of(settings))
        return Stream(self._classify, self._one_window(), sample_rate, mics, step_s, camera, settings)

    def timeline(
        self,
        recording: Source,
        step_s: float = 1.0,
        options: Options | None = None,
        *,
        on_progress: OnProgress | None = None,
        **changes: Unpack[OptionChanges],
    ) -> Timeline:
        """A recording of any length, with a prediction for each window. One window is kept in memory.

        recording, options: as in `predict`.
        step_s: seconds from the start of one window to the start of the next, 0.1 or more.
        on_progress: gets the seconds that are done, and all seconds.

        Returns the predictions and the spans of speech. A window in which nobody speaks has no label. Raises
        FarfeelError where the recording cannot be used.

        >>> import farfeel
        >>> timeline = farfeel.load().timeline("clip.wav", step_s=0.5)
        >>> timeline.predictions[0].start_s, timeline.step_s, timeline.window_s
        (0.0, 0.5, 3.0)
        """
        require_step(step_s)
        settings = options_of(options, **changes)
        with source_file(recording) as file:
            return file.named_in(self._timeline(file.path, step_s, settings, on_progress))

    def _timeline(self, path: Path, step_s: float, options: Options, on_progress: OnProgress | None) -> Timeline:
        recipe = self._one_window()
        found_audio, video, notes = open_parts(path, recipe, options, _described, by_window=True)
        if found_audio is None:
            assert video is not None
            return self._video_timeline(video, notes, step_s, options, on_progress)
        info, notes = found_audio[0], [*found_audio[1], *notes]
        files = options.audio_files(path)
        mics = default_mics(self.recipes, info.channels, named(files)) if options.mics is None else options.mics
        mics = require_mics(mics, info.channels, named(files))
        stream = Stream(self._classify, recipe, info.sample_rate, len(mics), step_s, video, options)
        predictions: list[Prediction] = []
        for block in files_blocks(files):
            predictions += stream.push(block[mics])
            if on_progress:
                on_progress(min(stream.seconds, info.seconds), info.seconds)
        predictions += stream.close()
        if predictions:
            predictions[0] = replace(predictions[0], warnings=(*notes, *predictions[0].warnings))
        return Timeline(tuple(predictions), tuple(stream.speech), stream.seconds, step_s, recipe.audio.seconds)

    def _video_timeline(
        self, video: FaceVideo, notes: Sequence[str], step_s: float, options: Options, on_progress: OnProgress | None
    ) -> Timeline:
        """The same windows, from video alone."""
        window_s, end_s = self.recipe.audio.seconds, video.end_s
        starts = np.arange(0, max(0.0, end_s - window_s) + 1e-6, step_s).tolist()
        if end_s - starts[-1] - window_s >= 0.5 * step_s:
            starts.append(end_s - window_s)
        predictions, reported = [], 0
        for start_s in starts:
            span = (start_s, min(start_s + window_s, end_s))
            frames = video.frames(*span)
            used = () if frames is None else ("video",)
            prediction = Prediction((), self.emotions, *span, 0, used, (*notes, *video.warnings[reported:]))
            notes, reported = (), len(video.warnings)
            if frames is not None:
                silence = np.zeros((1, 1, round(window_s * self.sample_rate)), np.float32)
                mic_mask = np.zeros((1, 1), dtype=bool)
                (row,) = self._classify(silence, mic_mask, *stack_frames([frames], self.recipe))
                prediction = replace(prediction, probabilities=tuple(map(float, row)))
                prediction = prediction.abstaining(options.abstain_below)
            predictions.append(prediction)
            if on_progress:
                on_progress(span[1], end_s)
        return Timeline(tuple(predictions), (), end_s, step_s, window_s)

    def _classify(
        self, audio: np.ndarray, mic_mask: np.ndarray, frames: np.ndarray | None, seen: np.ndarray
    ) -> np.ndarray:
        """Arguments as for an engine → the mean of all engines (W, K)."""
        return np.mean([in_batches(engine, audio, mic_mask, frames, seen) for engine in self.engines], axis=0)

    def _one_window(self) -> Recipe:
        """The recipe of all checkpoints. Raises FarfeelError where their windows differ in length."""
        lengths = sorted({engine.recipe.audio.seconds for engine in self.engines})
        if len(lengths) > 1:
            raise FarfeelError(
                f"the checkpoints have windows of {' and '.join(f'{s:g}' for s in lengths)} s; "
                "a timeline needs one length; load checkpoints of one"
            )
        return self.recipe


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


def _both_probabilities(engine: Engine, views: Sequence[View]) -> np.ndarray:
    """N views → (N, 2, K), calibrated and not: for each the mean over its windows.

    Views with the same number of microphones share a batch.
    """
    result = np.empty((len(views), 2, len(engine.recipe.data.emotions)))
    mics_of = [view.windows.audio.shape[1] for view in views]
    for mics in set(mics_of):
        group = [i for i, count in enumerate(mics_of) if count == mics]
        members = [views[i] for i in group]
        frames = [view.frames for view in members if view.frames is not None]
        mic_mask = np.concatenate([view.windows.mic_mask for view in members])
        seen = np.concatenate([view.seen for view in members])
        probabilities = in_batches(
            engine,
            np.concatenate([view.windows.audio for view in members]),
            mic_mask,
            np.concatenate(frames) if frames else None,
            seen,
        )
        temperature = engine.temperature[combinations_of(engine.recipe.modalities, mic_mask, seen)]
        both = np.stack([probabilities, tempered(probabilities, 1 / temperature)], axis=1)
        ends = np.cumsum([len(view.seen) for view in members])
        result[group] = [part.mean(axis=0) for part in np.split(both, ends[:-1])]
    return result


def _require_alike(first: Recipe, other: Recipe) -> None:
    """Raises FarfeelError where two checkpoints cannot be members of one ensemble."""
    same = "an ensemble needs the same; load checkpoints that agree"
    if other.data.emotions != first.data.emotions:
        raise FarfeelError(
            f"the checkpoints know different emotions ({', '.join(first.data.emotions)}; "
            f"{', '.join(other.data.emotions)}); {same}"
        )
    if other.audio.sample_rate != first.audio.sample_rate:
        raise FarfeelError(
            f"the checkpoints have sample rates of {first.audio.sample_rate} and {other.audio.sample_rate} Hz; {same}"
        )
    if other.modalities != first.modalities:
        raise FarfeelError(f"the checkpoints take {first.modalities} and {other.modalities}; {same}")
    if first.modalities != "audio" and _video_form(first) != _video_form(other):
        raise FarfeelError(
            f"the checkpoints take video in different forms ({_video_form(first)}; {_video_form(other)}); {same}"
        )


def _video_form(recipe: Recipe) -> str:
    """The form in which a checkpoint takes video."""
    video = recipe.video
    crop = "whole picture" if video.crop == "none" else f"face with a margin of {video.margin:g}"
    return f"{video.frames} frames of {video.size} pixels in {recipe.audio.seconds:g} s, {crop}"


def _described(files: Sequence[Path]) -> tuple[tuple[AudioInfo, list[str]], float]:
    info, notes = files_info(files)
    return (info, notes), info.seconds
