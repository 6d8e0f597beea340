"""A recording as it arrives: blocks of sound of any size in, and frames of a film; a prediction for each window out.

    block (M, n) -> chunks of 0.1 s -> resampler -> (M, T') kept -> windows [k step, k step + window) -> engine
                                          `-> SpeechActivity: where nobody speaks, nothing is classified

Everything inside happens in chunks that are counted from the beginning, so that the size of the blocks changes
nothing. Times are in seconds from the first sample. What is kept is one window and one step, however long it goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import soxr

from farfeel.media.face import FaceDetector, crop_face
from farfeel.media.face_windows import COVERED, middles
from farfeel.media.speech import FRAME_S, SpeechActivity, spans
from farfeel.recipe import Recipe
from farfeel.recognise.windows import DEAD_DB, enhanced, stack_frames
from farfeel.types import FarfeelError, Prediction

CHUNK_S = 0.1
BATCH_WINDOWS = 32  # in one pass through the network
SPOKEN_S = 0.3  # Less speech than this in a window is a click or a cough.
GLITCH = 0.1  # Share of a window that a microphone may be missing more than the best one and still be heard.
SHORTEST_S = 0.1  # Of a whole stream: less is no recording.
LATE_S = 0.5  # A camera whose last frame is older than this has stopped.

Classify = Callable[[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray], np.ndarray]
"""audio (W, M, T), mic_mask (W, M), frames (W, N, S, S, 3) or None, seen (W,) → probabilities (W, K)."""


class Eyes(Protocol):
    """What there is to see of a window."""

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def frames(self, start_s: float, end_s: float) -> np.ndarray | None:
        """(N, S, S, 3) uint8, or None where nothing was filmed."""
        ...


class Camera:
    """Frames as a live camera gives them, and as many of them kept as a window needs."""

    def __init__(self, recipe: Recipe, face: str = "largest", detector: FaceDetector | None = None) -> None:
        self.knobs, self.kept_s = recipe.video, 2 * recipe.audio.seconds
        self.face, self.detector = "whole" if self.knobs.crop == "none" else face, detector
        self.warnings: tuple[str, ...] = ()
        self._times_s: list[float] = []
        self._pictures: list[np.ndarray] = []

    def push(self, pixels: np.ndarray, time_s: float) -> None:
        """A frame (H, W, 3) uint8 RGB that came on screen at time_s; frames come in their order."""
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise FarfeelError(
                f"a frame has the shape {pixels.shape} of {pixels.dtype}, expected (height, width, 3) of uint8, RGB"
            )
        if self._times_s and not time_s > self._times_s[-1]:
            raise FarfeelError(
                f"a frame of {time_s:.3f} s came after one of {self._times_s[-1]:.3f} s; send frames in their order"
            )
        self._times_s.append(float(time_s))
        self._pictures.append(pixels)

    def frames(self, start_s: float, end_s: float) -> np.ndarray | None:
        times_s = np.array(self._times_s)
        first_s = max(start_s, times_s[0]) if len(times_s) else end_s
        last_s = min(end_s, times_s[-1] + LATE_S) if len(times_s) else start_s
        if last_s - first_s < COVERED * (end_s - start_s):
            return None
        shown = np.searchsorted(times_s, middles(first_s, last_s, self.knobs.frames) + 1e-3, side="right") - 1
        pictures = np.stack([self._pictures[place] for place in shown])
        crop = crop_face(pictures, self.knobs.size, self.face, self.knobs.margin, self.detector)
        self.warnings = crop.warnings
        return crop.pixels

    def forget(self, before_s: float) -> None:
        """Frames that no window from before_s on shows."""
        while len(self._times_s) > 1 and self._times_s[1] <= before_s:
            del self._times_s[0], self._pictures[0]


@dataclass(frozen=True)
class _Window:
    audio: np.ndarray  # (M, T)
    alive: np.ndarray  # (M,)
    frames: np.ndarray | None
    is_asked: bool  # whether there is something to classify
    about: Prediction  # without probabilities


class Stream:
    """`push` sound, `push_frame` what the camera saw meanwhile (before the sound of the same moment), `close` at the
    end; each returns the predictions that became ready. A microphone that dies is noticed, said once, and left out.
    """

    def __init__(
        self,
        classify: Classify,
        recipe: Recipe,
        sample_rate: int,
        mics: int,
        step_s: float = 1.0,
        eyes: Eyes | None = None,
        abstain_below: float = 0.0,
    ) -> None:
        require_step(step_s)
        if sample_rate < 1000 or mics < 1:
            raise FarfeelError(
                f"{mics} microphones at {sample_rate} Hz are asked for, expected one or more at 1000 Hz or more"
            )
        self.classify, self.recipe, self.mics, self.step_s = classify, recipe, mics, step_s
        self.eyes, self.abstain_below = eyes, abstain_below
        self.rate, self.window = recipe.audio.sample_rate, recipe.audio.window_samples
        self._chunk = max(1, round(CHUNK_S * sample_rate))
        self._resampler = soxr.ResampleStream(sample_rate, self.rate, mics, dtype="float32", quality="VHQ")
        self._pending = np.zeros((mics, 0), np.float32)  # at the source's rate, less than a chunk
        self._kept = np.zeros((mics, 0), np.float32)  # at the recipe's rate, from sample `_first` on
        self._first = 0
        self._speech = SpeechActivity(self.rate, mics)
        self._flags = bytearray()  # of the frames of FRAME_S, 1 where somebody speaks
        self._count = 0  # windows so far
        self._dead: frozenset[int] = frozenset()
        self._seen_warnings: set[str] = set()
        self._closed = False

    @property
    def seconds(self) -> float:
        """How much was heard and has passed the resampler."""
        return (self._first + self._kept.shape[1]) / self.rate

    @property
    def speech(self) -> list[tuple[float, float]]:
        """Spans (start_s, end_s) in which somebody spoke."""
        return spans(np.frombuffer(bytes(self._flags), np.uint8).astype(bool))

    def push(self, block: np.ndarray) -> list[Prediction]:
        """Sound (M, n) float in [-1, 1], any n; with one microphone also (n,)."""
        block = np.asarray(block, np.float32)
        block = block[None] if block.ndim == 1 else block
        if self._closed or block.ndim != 2 or len(block) != self.mics:
            wrong = "came after close()" if self._closed else f"has the shape {block.shape}"
            raise FarfeelError(f"a block {wrong}, expected ({self.mics}, n) while the stream is open")
        samples = np.concatenate([self._pending, np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)], axis=1)
        whole = samples.shape[1] // self._chunk * self._chunk
        self._pending = samples[:, whole:].copy()
        found: list[Prediction] = []
        ready: list[_Window] = []
        for start in range(0, whole, self._chunk):
            self._hear(self._resample(samples[:, start : start + self._chunk]))
            ready += self._windows()
            if len(ready) >= BATCH_WINDOWS:
                found += self._answer(ready)
                ready = []
        return found + self._answer(ready)

    def push_frame(self, pixels: np.ndarray, time_s: float) -> None:
        """A picture (H, W, 3) uint8 RGB, on screen from time_s on."""
        if not isinstance(self.eyes, Camera):
            raise FarfeelError("this stream has no camera, and a frame came; open it for a checkpoint that takes film")
        self.eyes.push(pixels, time_s)

    def close(self) -> list[Prediction]:
        """The end: predictions of what was still under way."""
        if self._closed:
            return []
        self._closed = True
        self._hear(self._resample(self._pending, last=True))
        ready = self._windows()
        end = self._first + self._kept.shape[1]
        reached = self._start(self._count - 1) + self.window if self._count else 0
        if end - reached >= (0.5 * self.step_s if self._count else SHORTEST_S) * self.rate:
            ready.append(self._cut(max(0, end - self.window), end))
        return self._answer(ready)

    def _start(self, index: int) -> int:
        return round(index * self.step_s * self.rate)

    def _resample(self, chunk: np.ndarray, last: bool = False) -> np.ndarray:
        return self._resampler.resample_chunk(np.ascontiguousarray(chunk.T), last=last).T.reshape(self.mics, -1)

    def _hear(self, samples: np.ndarray) -> None:
        self._kept = np.concatenate([self._kept, samples], axis=1)
        self._flags += self._speech.push(samples).astype(np.uint8).tobytes()

    def _windows(self) -> list[_Window]:
        """The windows that are complete. The last one is kept: the end may need it again."""
        ready = []
        while (start := self._start(self._count)) + self.window <= self._first + self._kept.shape[1]:
            ready.append(self._cut(start, start + self.window))
            self._count += 1
            self._kept = self._kept[:, start - self._first :]
            self._first = start
            if isinstance(self.eyes, Camera):
                self.eyes.forget(start / self.rate)
        return ready

    def _cut(self, start: int, end: int) -> _Window:
        audio = self._kept[:, start - self._first : end - self._first]
        start_s, end_s = start / self.rate, end / self.rate
        flags = self._flags[int(np.ceil(start_s / FRAME_S - 1e-9)) : int(end_s / FRAME_S + 1e-9)]
        share = sum(flags) / max(1, len(flags))
        spoken = share * (end_s - start_s) >= min(SPOKEN_S, 0.5 * (end_s - start_s))
        alive, notes = self._living(audio, start_s)
        heard = alive.any() and self.recipe.modalities != "video"
        frames = None
        if self.eyes is not None and (spoken or not heard):
            try:
                frames = self.eyes.frames(start_s, end_s)
                notes += self._news(self.eyes.warnings)
            except FarfeelError as error:
                notes += self._news((f"the film is not used: {error}",))
        is_asked = (heard and spoken) or (frames is not None and not heard)
        if is_asked:
            audio = enhanced(audio, alive, self.recipe)
        surplus = self.window - audio.shape[1]
        about = Prediction(
            (),
            self.recipe.data.emotions,
            start_s,
            end_s,
            int(alive.sum()),
            ("audio",) * bool(heard) + ("video",) * (frames is not None),
            tuple(notes),
            share,
        )
        return _Window(np.pad(audio, ((0, 0), (surplus // 2, surplus - surplus // 2))), alive, frames, is_asked, about)

    def _living(self, audio: np.ndarray, start_s: float) -> tuple[np.ndarray, list[str]]:
        """(M, T) → (M,) bool, and what is new about them. A microphone is missing where it is constant while another is
        not, and left out where it is missing in more of the window than the best one by more than a glitch."""
        step = round(CHUNK_S * self.rate)
        chunks = audio[:, : max(1, audio.shape[1] // step) * step].reshape(self.mics, -1, min(step, audio.shape[1]))
        still = np.ptp(chunks, axis=2) < 2 * 10 ** (DEAD_DB / 20)  # (M, chunks)
        missing = (still & ~still.all(axis=0)).mean(axis=1)
        alive = (missing <= missing.min() + GLITCH) & ~still.all(axis=1)
        dead = frozenset(np.flatnonzero(~alive).tolist()) if alive.any() else self._dead
        fell, rose = sorted(dead - self._dead), sorted(self._dead - dead)
        self._dead = dead
        notes = [f"microphone {mic} is silent and left out from {start_s:.1f} s on" for mic in fell]
        return alive, notes + [f"microphone {mic} is back at {start_s:.1f} s" for mic in rose]

    def _news(self, warnings: tuple[str, ...]) -> list[str]:
        new = [warning for warning in warnings if warning not in self._seen_warnings]
        self._seen_warnings.update(new)
        return new

    def _answer(self, ready: list[_Window]) -> list[Prediction]:
        asked = [window for window in ready if window.is_asked]
        if not asked:
            return [window.about for window in ready]
        found = iter(
            self.classify(
                np.stack([window.audio for window in asked]),
                np.stack([window.alive for window in asked]),
                *stack_frames([window.frames for window in asked], self.recipe),
            )
        )
        return [
            replace(window.about, probabilities=tuple(map(float, next(found)))).abstaining(self.abstain_below)
            if window.is_asked
            else window.about
            for window in ready
        ]


def require_step(step_s: float) -> None:
    if not CHUNK_S <= step_s < float("inf"):
        raise FarfeelError(f"a step of {step_s:g} s is asked for, expected {CHUNK_S} s or more; make it longer")
