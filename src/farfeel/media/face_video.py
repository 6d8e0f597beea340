"""The face in one video, window by window: which frames a window gets, and how they are cropped.

Times are those of the recording: time 0 is the beginning of its audio. A short video is decoded once, with one crop, at
the frame spacing of a window. Every window then takes the frames closest to its times. A longer video is decoded again
for each window, and each window has its own crop.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np

from farfeel.media.audio import MAX_SECONDS
from farfeel.media.face import Crop, FaceDetector, crop_face
from farfeel.media.face_windows import frame_times, middles, nearest_frames
from farfeel.media.video import VideoInfo, media_info, read_frames
from farfeel.recipe import Recipe, Video
from farfeel.types import Clip, FarfeelError

WHOLE_S = 10.0  # A video up to this long is decoded once. A longer one may contain cuts or camera movements.
KEPT_CROPS = 64


class FaceVideo:
    """The face in a video, or in a part of it. Nothing is decoded before `frames` or `all_frames` is called.

    Args:
        path: The video file, or a still picture.
        settings: The recipe's `video` section.
        window_s: Length of a window, in seconds.
        offset_s: Time in the video at which the recording begins, in seconds.
        end_s: End of the recording, in seconds of the recording's time. None: the end of the video.
        face: One of FACES.
        detector: Default: the Haar cascade.
        video_info: Description of the video, if the caller has it already.
        by_window: Decode each window separately, as for a live camera. The video may then have any length.

    Attributes:
        begin_s, end_s: The part of the recording that the video covers, in seconds of the recording's time.
        video_end_s: End of the video in the recording's time; infinite for a still picture.
        crops: The latest crops, for previews.
        was_used: Whether any window got frames.

    Raises:
        FarfeelError: The file contains no video, or the video does not overlap the recording, or it is too long.
    """

    def __init__(
        self,
        path: Path,
        settings: Video,
        window_s: float,
        offset_s: float = 0.0,
        end_s: float | None = None,
        face: str = "largest",
        detector: FaceDetector | None = None,
        video_info: VideoInfo | None = None,
        by_window: bool = False,
    ) -> None:
        info = video_info or media_info(path).video
        if info is None:
            raise FarfeelError(f"{path} has audio but no video, expected a video; use a video file")
        self.path, self.settings, self.offset_s = path, settings, offset_s
        self.face = "whole" if settings.crop == "none" else face
        self.spacing_s = window_s / settings.frames
        self.video_end_s = video_end_s = float("inf") if info.is_still else info.seconds - offset_s
        self.end_s = min(video_end_s, window_s if info.is_still and end_s is None else end_s or video_end_s)
        # The video may begin later than the recording.
        self.begin_s = 0.0 if info.is_still else max(0.0, info.start_s - offset_s)
        self.is_still = info.is_still
        if not self.end_s > self.begin_s:  # also refuses an offset that is NaN
            raise FarfeelError(
                f"{path} lasts {info.seconds:.1f} s, but the recording begins at {offset_s:.1f} s of it; "
                "correct the offset between audio and video"
            )
        if not info.is_still and not by_window and self.end_s - self.begin_s > MAX_SECONDS:
            raise FarfeelError(
                f"{path} lasts {(self.end_s - self.begin_s) / 60:.0f} minutes, expected at most "
                f"{MAX_SECONDS / 60:.0f}; cut it into clips or request a timeline"
            )
        is_short = self.end_s - self.begin_s <= WHOLE_S and not by_window
        self.is_decoded_once = info.is_still or is_short
        self.crops: deque[Crop] = deque(maxlen=KEPT_CROPS)
        self.was_used = False
        self._detector = detector
        self._warnings: dict[str, None] = {}  # used as an ordered set
        self._all_frames: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def seconds(self) -> float:
        """Seconds from the beginning of the recording to the last frame."""
        return self.end_s

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the frames decoded so far, each once."""
        return tuple(self._warnings)

    @property
    def decoded_bytes(self) -> int:
        """Upper bound of the memory that the decoded frames take, in bytes."""
        count = min(self.end_s - self.begin_s, WHOLE_S) / self.spacing_s + 1
        return int(count * 3 * self.settings.size**2)

    def frames(self, start_s: float, end_s: float) -> np.ndarray | None:
        """The frames of one window, evenly spaced over the part of it that the video covers.

        Args:
            start_s: Beginning of the window, in seconds of the recording's time.
            end_s: End of the window.

        Returns:
            (N, S, S, 3) uint8, with N frames and side S as in the recipe. None if the video covers less than half of
            the window, or shows a face in less than half of it.

        Raises:
            FarfeelError: The video is damaged.
        """
        times_s = frame_times(start_s, end_s, self.begin_s, self.end_s, self.settings.frames)
        if times_s is None:
            return None
        with_face = self.all_frames() if self.is_decoded_once else self._decode(times_s)
        # Times are compared with a small margin: those of a window and those of the video are rounded apart.
        spacing_s = np.inf if self.is_still else max(self.spacing_s, (end_s - start_s) / len(times_s)) + 1e-6
        frames = nearest_frames(times_s, *with_face, spacing_s)
        self.was_used |= frames is not None
        return frames

    def all_frames(self) -> tuple[np.ndarray, np.ndarray]:
        """The frames of a short video that show a face, with one crop: (A,) seconds, (A, S, S, 3) uint8.

        Windows are made of them.
        """
        if self._all_frames is None:
            count = 1 if self.is_still else max(1, int(np.ceil((self.end_s - self.begin_s) / self.spacing_s)))
            self._all_frames = self._decode(middles(self.begin_s, self.end_s, count))
        return self._all_frames

    def _decode(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N,) times in the recording → those at which there is a face (A,), and their crops (A, S, S, 3) uint8."""
        frames = read_frames(self.path, list(times_s + self.offset_s)).pixels
        crop = crop_face(frames, self.settings.size, self.face, self.settings.margin, self._detector)
        self.crops.append(crop)
        self._warnings |= dict.fromkeys(crop.warnings)
        return times_s[crop.shows_face], crop.pixels[crop.shows_face]


def face_video_of(clip: Clip, recipe: Recipe) -> FaceVideo:
    """The face video of a clip, with the settings of a recipe. The clip must have a video.

    Raises:
        FarfeelError: As FaceVideo does.
    """
    assert clip.video is not None
    end_s = None if clip.end_s is None else clip.end_s - clip.start_s
    offset_s = clip.video_offset_s + clip.start_s
    return FaceVideo(clip.video, recipe.video, recipe.audio.seconds, offset_s, end_s, clip.face)
