"""Recordings, of a user or of a test, and the windows that they are cut into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from farfeel.media.audio import speech_span
from farfeel.media.beamforming import beamform
from farfeel.media.dereverberation import dereverberate
from farfeel.media.face_windows import FaceWindows
from farfeel.recipe import Recipe, recipe_from_tree

FRONT_ENDS = {"mvdr": beamform, "wpe": dereverberate}
DEAD_DB = -90.0  # A channel whose peak is below this carries no signal: the microphone is dead.


@dataclass(frozen=True)
class Recording:
    """What the microphones and the camera recorded: audio (M, T) at the recipe's rate, and video; one may be None."""

    audio: np.ndarray | None
    video: FaceWindows | None = None


@dataclass(frozen=True)
class Windows:
    """A recording cut for the model: audio (W, M, T) float32, mic_mask (W, M), and the span of each window that the
    recording fills, (W, 2) in seconds."""

    audio: np.ndarray
    mic_mask: np.ndarray
    spans_s: np.ndarray


def recording_windows(recording: Recording, recipe: Recipe) -> Windows:
    """Windows that overlap by half or more and cover the recording evenly, after silence is trimmed.

    A recording that is shorter than a window lies in its centre. Without audio, the recording is as long as its video,
    and has one dead microphone.
    """
    samples, rate = recipe.audio.window_samples, recipe.audio.sample_rate
    audio, first = recording.audio, 0
    if audio is None:
        assert recording.video is not None, "a recording has audio or video"
        first, last = (round(moment * rate) for moment in (recording.video.begin_s, recording.video.end_s))
        length, alive = last - first, np.zeros(1, dtype=bool)
    else:
        alive = is_alive(audio)
        audio = enhanced(audio, alive, recipe)
        if recipe.audio.trim_silence:
            first, last = speech_span(audio, rate)
            audio = audio[:, first:last]
        length = audio.shape[1]
    surplus = max(0, length - samples)
    starts = np.linspace(0, surplus, 1 + int(np.ceil(2 * surplus / samples))).round().astype(int)
    if audio is None:
        windows = np.zeros((len(starts), 1, samples), dtype=np.float32)
    elif length < samples:
        before = (samples - length) // 2
        windows = np.pad(audio, ((0, 0), (before, samples - length - before)))[None]
    else:
        windows = np.stack([audio[:, start : start + samples] for start in starts])
    spans_s = (first + np.stack([starts, starts + min(samples, length)], axis=1)) / rate
    return Windows(windows, np.tile(alive, (len(starts), 1)), spans_s)


def enhanced(audio: np.ndarray, alive: np.ndarray, recipe: Recipe) -> np.ndarray:
    """(M, T), (M,) → (M, T): the working microphones after the recipe's front-end."""
    front_end = FRONT_ENDS.get(recipe.microphones.front_end)
    if front_end is None or not alive.any():
        return audio
    result = audio.copy()
    result[alive] = front_end(audio[alive], recipe.audio.sample_rate)
    return result


def with_front_end(recipe: Recipe, front_end: str | None) -> Recipe:
    """The recipe with another front-end; None: as it is."""
    if front_end is None:
        return recipe
    tree = recipe.model_dump(mode="json")
    tree["microphones"]["front_end"] = front_end
    return recipe_from_tree(tree, source="the checkpoint's recipe")


def is_alive(audio: np.ndarray) -> np.ndarray:
    """(M, T) → (M,) bool: microphones that carry a signal."""
    return np.abs(audio).max(axis=1) >= 10 ** (DEAD_DB / 20)


def stack_frames(views: Sequence[np.ndarray | None], recipe: Recipe) -> tuple[np.ndarray | None, np.ndarray]:
    """(N, S, S, 3) of each window, None where it has none → frames (W, N, S, S, 3) uint8, seen (W,).

    The frames are None for a recipe without video.
    """
    if recipe.modalities == "audio":
        return None, np.zeros(len(views), dtype=bool)
    video = recipe.video
    black = np.zeros((video.frames, video.size, video.size, 3), dtype=np.uint8)
    frames = np.stack([black if view is None else view for view in views])
    return frames, np.array([view is not None for view in views])
