"""The frames that a window shows of a face, from whatever keeps them: a video file or a prepared corpus."""

from __future__ import annotations

from typing import Protocol

import numpy as np

COVERED = 0.5  # Share of a window that a video must cover for its frames to stand for the window.


class FaceWindows(Protocol):
    """The face of a recording, asked for window by window.

    Times are those of the recording. begin_s and end_s: the span that there are frames of. was_used: whether any window
    got frames. warnings: what was noticed in them.
    """

    begin_s: float
    end_s: float
    was_used: bool

    @property
    def seconds(self) -> float: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def frames(self, start_s: float, end_s: float) -> np.ndarray | None:
        """(N, S, S, 3) uint8 for a window; None where there are frames of less than half of it."""


def frame_times(start_s: float, end_s: float, begin_s: float, until_s: float, count: int) -> np.ndarray | None:
    """(count,) moments, evenly over the part of a window from begin_s to until_s; None where it is less than half."""
    first_s, last_s = max(start_s, begin_s), min(end_s, until_s)
    if last_s - first_s < COVERED * (end_s - start_s):
        return None
    return middles(first_s, last_s, count)


def nearest_frames(times_s: np.ndarray, at_s: np.ndarray, pixels: np.ndarray, spacing_s: float) -> np.ndarray | None:
    """The frames that are nearest to the times of a window; None where too few of the times have one.

    times_s: (N,) of the window. at_s, pixels: (A,) and (A, S, S, 3), the frames that show a face. spacing_s: a time has
    a frame if one is no farther away. Returns (N, S, S, 3), or None where less than half of the times have one.
    """
    if not len(at_s):
        return None
    distance_s = np.abs(times_s[:, None] - at_s)
    if np.mean(distance_s.min(axis=1) <= spacing_s) < COVERED:
        return None
    return np.asarray(pixels[distance_s.argmin(axis=1)])


def middles(start_s: float, end_s: float, count: int) -> np.ndarray:
    """(count,) middles of as many equal parts of a span."""
    return start_s + (np.arange(count) + 0.5) * (end_s - start_s) / count
