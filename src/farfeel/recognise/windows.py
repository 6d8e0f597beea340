"""Recordings, of a user or of a test, and the windows that they are cut into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from farfeel.media.audio import speech_span
from farfeel.media.beamforming import beamform
from farfeel.media.dereverberation import dereverberate
from farfeel.media.face_windows import FaceWindows
from farfeel.recipe import Recipe, recipe_from_tree
from farfeel.recognise.microphones import FRAME_S, Microphones, frame_levels, judged

FRONT_ENDS = {"mvdr": beamform, "wpe": dereverberate}


@dataclass(frozen=True)
class Recording:
    """What the microphones and the camera recorded: audio (M, T) at the recipe's rate, and video; one may be None."""

    audio: np.ndarray | None
    video: FaceWindows | None = None


@dataclass(frozen=True)
class Windows:
    """A recording cut for the model.

    audio: (W, M, T) float32. mic_mask: (W, M) bool, True where a microphone is used. spans_s: (W, 2), the span of each
    window that the recording fills, in seconds. faults: of each microphone that is not used in all windows, why.
    """

    audio: np.ndarray
    mic_mask: np.ndarray
    spans_s: np.ndarray
    faults: dict[int, str] = field(default_factory=dict)


def recording_windows(recording: Recording, recipe: Recipe) -> Windows:
    """Windows that overlap by half or more and cover the recording evenly, after silence is trimmed.

    A recording that is shorter than a window lies in its centre. Without audio, the recording is as long as its video,
    and has one dead microphone. Microphones that cannot be used are left out of each window by itself.
    """
    samples, rate = recipe.audio.window_samples, recipe.audio.sample_rate
    audio, first = recording.audio, 0
    if audio is None:
        assert recording.video is not None, "a recording has audio or video"
        first, last = (round(moment * rate) for moment in (recording.video.begin_s, recording.video.end_s))
        length = last - first
    else:
        levels = frame_levels(audio, rate)
        whole = judged(levels)
        audio = enhanced(without_nan(audio), whole.usable, recipe)
        if recipe.audio.trim_silence:
            first, last = speech_span(audio[whole.usable] if whole.usable.any() else audio, rate)
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
    if audio is None:
        return Windows(windows, np.zeros((len(starts), 1), dtype=bool), spans_s)
    mic_mask = _used_microphones(levels, whole, spans_s)
    return Windows(windows, mic_mask, spans_s, _faults(whole, mic_mask))


def _used_microphones(levels: np.ndarray, whole: Microphones, spans_s: np.ndarray) -> np.ndarray:
    """levels (M, F) of a recording, what is known of its microphones, spans (W, 2) → (W, M) bool.

    A window in which all are silent has those of the whole recording.
    """
    rows = []
    for start_s, end_s in spans_s / FRAME_S:
        usable = judged(levels[:, int(start_s) : max(int(start_s) + 1, round(end_s))], whole).usable
        rows.append(usable if usable.any() else whole.usable)
    return np.stack(rows)


def _faults(whole: Microphones, mic_mask: np.ndarray) -> dict[int, str]:
    faults = {}
    for mic in np.flatnonzero(~mic_mask.all(axis=0)).tolist():
        partly = " in part of the recording" if mic_mask[:, mic].any() else ""
        faults[mic] = (whole.fault(mic) or "is silent and left out") + partly
    return faults


def without_nan(audio: np.ndarray) -> np.ndarray:
    """The same; samples that are not finite become 0, so that they do not reach the network."""
    return audio if np.isfinite(audio).all() else np.nan_to_num(audio, nan=0.0, posinf=0.0, neginf=0.0)


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
