"""A recording as it arrives: blocks of audio and frames of video in, a prediction for each window out.

    block (M, n) -> chunks of 0.1 s -> resampler -> (M, T') kept -> windows [k step, k step + window) -> engine
                                          `-> SpeechActivity: where nobody speaks, nothing is classified

Chunks are counted from the beginning, so that the size of the blocks changes nothing. Times are in seconds from the
first sample. One window and one step are kept in memory, however long the stream is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import soxr

from farfeel.media.face import FaceDetector, crop_face
from farfeel.media.face_windows import COVERED, middles, nearest_frames
from farfeel.media.speech import FRAME_S, SpeechActivity, spans
from farfeel.recipe import Recipe
from farfeel.recognise.microphones import Microphones, frame_levels, judged
from farfeel.recognise.options import DEFAULTS, Options
from farfeel.recognise.samples import checked_block, checked_picture
from farfeel.recognise.windows import enhanced, stack_frames
from farfeel.types import FarfeelError, Prediction

CHUNK_S = 0.1
BATCH_WINDOWS = 32  # in one pass through the network
SPOKEN_S = 0.3  # Less speech than this in a window is a click or a cough.
SHORTEST_S = 0.1  # Of a whole stream: less is no recording.
LATE_S = 0.5  # A camera whose last frame is older than this has stopped.

Classify = Callable[[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray], np.ndarray]
"""audio (W, M, T), mic_mask (W, M), frames (W, N, S, S, 3) or None, seen (W,) → probabilities (W, K)."""


class FrameSource(Protocol):
    """What has the video frames of a window: a file or a camera."""

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def frames(self, start_s: float, end_s: float) -> np.ndarray | None:
        """(N, S, S, 3) uint8, or None where there is no video."""
        ...


class LiveCamera:
    """The frames of a live camera. Those that later windows need are kept."""

    def __init__(self, recipe: Recipe, face: str = "largest", detector: FaceDetector | None = None) -> None:
        self.settings = recipe.video
        self.face, self.detector = "whole" if self.settings.crop == "none" else face, detector
        self.warnings: tuple[str, ...] = ()
        self._times_s: list[float] = []
        self._pictures: list[np.ndarray] = []

    def push(self, pixels: np.ndarray, time_s: float) -> None:
        """A frame (H, W, 3) uint8 RGB that is on screen from time_s on. Frames come in their order."""
        picture = checked_picture(pixels)
        if not np.isfinite(time_s):
            raise FarfeelError(f"a frame has the time {time_s}, expected seconds from the first sample; correct it")
        if self._times_s and not time_s > self._times_s[-1]:
            raise FarfeelError(
                f"a frame of {time_s:.3f} s came after one of {self._times_s[-1]:.3f} s; send frames in their order"
            )
        self._times_s.append(float(time_s))
        self._pictures.append(picture)

    def frames(self, start_s: float, end_s: float) -> np.ndarray | None:
        """(N, S, S, 3) uint8 of a window, or None where the camera covers too little of it."""
        times_s = np.array(self._times_s)
        first_s = max(start_s, times_s[0]) if len(times_s) else end_s
        last_s = min(end_s, times_s[-1] + LATE_S) if len(times_s) else start_s
        if last_s - first_s < COVERED * (end_s - start_s):
            return None
        shown = np.searchsorted(times_s, middles(first_s, last_s, self.settings.frames) + 1e-3, side="right") - 1
        pictures = np.stack([self._pictures[index] for index in shown])
        crop = crop_face(pictures, self.settings.size, self.face, self.settings.margin, self.detector)
        self.warnings = crop.warnings
        times_s = np.arange(len(pictures), dtype=float)  # in frames of the window
        return nearest_frames(times_s, times_s[crop.shows_face], crop.pixels[crop.shows_face], 1.0)

    def forget(self, before_s: float) -> None:
        """Delete the frames that no window from before_s on needs."""
        while len(self._times_s) > 1 and self._times_s[1] <= before_s:
            del self._times_s[0], self._pictures[0]


@dataclass(frozen=True)
class _Window:
    audio: np.ndarray  # (M, T)
    alive: np.ndarray  # (M,)
    frames: np.ndarray | None
    is_classified: bool  # whether there is something to classify
    draft: Prediction  # without probabilities


class Stream:
    """A live stream of audio, and of video where the checkpoint takes it.

    Call `push_frame` with each frame of the camera, `push` with the audio of the same moment after it, and `close` at
    the end. `push` and `close` return the predictions that became ready. A microphone that stops working is left out;
    one warning reports it.
    """

    def __init__(
        self,
        classify: Classify,
        recipe: Recipe,
        sample_rate: int,
        mics: int,
        step_s: float = 1.0,
        video: FrameSource | None = None,
        options: Options = DEFAULTS,
    ) -> None:
        require_step(step_s)
        if sample_rate < 1000 or mics < 1:
            raise FarfeelError(
                f"{mics} microphones at {sample_rate} Hz are requested, expected one or more at 1000 Hz or more; "
                "correct the numbers"
            )
        self.classify, self.recipe, self.mics, self.step_s = classify, recipe, mics, step_s
        self.video, self.options = video, options
        self.rate, self.window = recipe.audio.sample_rate, recipe.audio.window_samples
        self._chunk = max(1, round(CHUNK_S * sample_rate))
        self._resampler = soxr.ResampleStream(sample_rate, self.rate, mics, dtype="float32", quality="VHQ")
        self._pending = np.zeros((mics, 0), np.float32)  # at the source's rate, less than a chunk
        self._kept = np.zeros((mics, 0), np.float32)  # at the recipe's rate, from sample `_first` on
        self._first = 0
        self._speech = SpeechActivity(self.rate, mics)
        self._flags = bytearray()  # of the frames of FRAME_S, 1 where somebody speaks
        self._count = 0  # windows so far
        self._mics = Microphones(np.zeros(mics, dtype=bool), np.zeros(mics, dtype=bool))
        self._reported: set[str] = set()
        self._closed = False

    @property
    def seconds(self) -> float:
        """Length of the audio that has passed the resampler, in seconds."""
        return (self._first + self._kept.shape[1]) / self.rate

    @property
    def speech(self) -> list[tuple[float, float]]:
        """Spans (start_s, end_s) in which somebody spoke."""
        return spans(np.frombuffer(bytes(self._flags), np.uint8).astype(bool))

    def push(self, block: Any) -> list[Prediction]:
        """Take audio, and return the predictions that became ready.

        block: (M, n) samples of any n; with one microphone also (n,). Floats from -1 to 1, int16 or int32. NaN counts
        as silence. Raises FarfeelError where the block has another shape or type, or the stream is closed.
        """
        if self._closed:
            raise FarfeelError("a block came after close(), expected it while the stream is open; open a new stream")
        samples = np.concatenate([self._pending, checked_block(block, self.mics)], axis=1)
        whole = samples.shape[1] // self._chunk * self._chunk
        self._pending = samples[:, whole:].copy()
        found: list[Prediction] = []
        ready: list[_Window] = []
        for start in range(0, whole, self._chunk):
            self._take_audio(self._resample(samples[:, start : start + self._chunk]))
            ready += self._windows()
            if len(ready) >= BATCH_WINDOWS:
                found += self._predict(ready)
                ready = []
        return found + self._predict(ready)

    def push_frame(self, pixels: np.ndarray, time_s: float) -> None:
        """Take a frame of the camera.

        pixels: (H, W, 3) uint8 RGB. time_s: seconds from the first sample at which it comes on screen. Raises
        FarfeelError where the frame has another form, comes out of order, or the checkpoint takes no video.
        """
        if not isinstance(self.video, LiveCamera):
            raise FarfeelError(
                "a frame came, and this stream takes no video; open the stream of a checkpoint that takes video"
            )
        self.video.push(pixels, time_s)

    def close(self) -> list[Prediction]:
        """End the stream, and return the predictions of what was not yet answered."""
        if self._closed:
            return []
        self._closed = True
        self._take_audio(self._resample(self._pending, last=True))
        ready = self._windows()
        end = self._first + self._kept.shape[1]
        reached = self._start(self._count - 1) + self.window if self._count else 0
        if end - reached >= (0.5 * self.step_s if self._count else SHORTEST_S) * self.rate:
            ready.append(self._window(max(0, end - self.window), end))
        return self._predict(ready)

    def _start(self, index: int) -> int:
        return round(index * self.step_s * self.rate)

    def _resample(self, chunk: np.ndarray, last: bool = False) -> np.ndarray:
        return self._resampler.resample_chunk(np.ascontiguousarray(chunk.T), last=last).T.reshape(self.mics, -1)

    def _take_audio(self, samples: np.ndarray) -> None:
        self._kept = np.concatenate([self._kept, samples], axis=1)
        self._flags += self._speech.push(samples).astype(np.uint8).tobytes()

    def _windows(self) -> list[_Window]:
        """The windows that are complete. The last one is kept, because the end may need it again."""
        ready = []
        while (start := self._start(self._count)) + self.window <= self._first + self._kept.shape[1]:
            ready.append(self._window(start, start + self.window))
            self._count += 1
            self._kept = self._kept[:, start - self._first :]
            self._first = start
            if isinstance(self.video, LiveCamera):
                self.video.forget(start / self.rate)
        return ready

    def _window(self, start: int, end: int) -> _Window:
        audio = self._kept[:, start - self._first : end - self._first]
        start_s, end_s = start / self.rate, end / self.rate
        flags = self._flags[int(np.ceil(start_s / FRAME_S - 1e-9)) : int(end_s / FRAME_S + 1e-9)]
        share = sum(flags) / max(1, len(flags))
        spoken = share * (end_s - start_s) >= min(SPOKEN_S, 0.5 * (end_s - start_s))
        alive, notes = self._judge_mics(audio, start_s)
        has_audio = alive.any() and self.recipe.modalities != "video"
        frames = None
        if self.video is not None and (spoken or not has_audio):
            try:
                frames = self.video.frames(start_s, end_s)
                notes += self._new_warnings(self.video.warnings)
            except FarfeelError as error:
                notes += self._new_warnings((f"the video is not used: {error}",))
        is_classified = (has_audio and spoken) or (frames is not None and not has_audio)
        if is_classified:
            audio = enhanced(audio, alive, self.recipe)
        surplus = self.window - audio.shape[1]
        draft = Prediction(
            (),
            self.recipe.data.emotions,
            start_s,
            end_s,
            int(alive.sum()),
            ("audio",) * bool(has_audio) + ("video",) * (frames is not None),
            tuple(notes),
            share,
        )
        padded = np.pad(audio, ((0, 0), (surplus // 2, surplus - surplus // 2)))
        return _Window(padded, alive, frames, is_classified, draft)

    def _judge_mics(self, audio: np.ndarray, start_s: float) -> tuple[np.ndarray, list[str]]:
        """(M, T) → (M,) bool, the microphones that can be used, and notes on those that have changed."""
        judgement = judged(frame_levels(audio, self.rate), self._mics)
        usable = judgement.usable
        if not usable.any():  # Nothing is recorded at all. That says nothing about single microphones.
            return usable, []
        notes = []
        for mic in range(self.mics):
            if self._mics.usable[mic] and not usable[mic]:
                notes.append(f"microphone {mic} {judgement.fault(mic)} from {start_s:.1f} s on")
            elif usable[mic] and not self._mics.usable[mic]:
                notes.append(f"microphone {mic} is back at {start_s:.1f} s")
        self._mics = judgement
        return usable, notes

    def _new_warnings(self, warnings: tuple[str, ...]) -> list[str]:
        """Those that no earlier window has reported."""
        new = [warning for warning in warnings if warning not in self._reported]
        self._reported.update(new)
        return new

    def _predict(self, ready: list[_Window]) -> list[Prediction]:
        """Predictions of windows, in one pass through the network; without probabilities where there is no speech."""
        classified = [window for window in ready if window.is_classified]
        if not classified:
            return [window.draft for window in ready]
        found = iter(
            self.classify(
                np.stack([window.audio for window in classified]),
                np.stack([window.alive for window in classified]),
                *stack_frames([window.frames for window in classified], self.recipe),
            )
        )
        below = self.options.abstain_below
        return [
            replace(window.draft, probabilities=tuple(map(float, next(found)))).abstaining(below)
            if window.is_classified
            else window.draft
            for window in ready
        ]


def require_step(step_s: float) -> None:
    if not CHUNK_S <= step_s < float("inf"):
        raise FarfeelError(f"a step of {step_s:g} s is requested, expected {CHUNK_S} s or more; make it longer")
