"""The face in one film, looked at window by window: which frames, cropped how.

Times are those of the recording that the film belongs to: 0 is where its sound begins. A film of some seconds is
decoded once, at the spacing that a window's frames have, with one steady crop, and every window takes the frames
nearest to its times; a longer one is decoded anew for each window, which then has a crop of its own.
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

WHOLE_S = 10.0  # A film up to this long is one view of one face; a longer one may cut or pan.
KEPT_CROPS = 64


class FaceVideo:
    """A film and the span of it that a recording is about. Nothing is decoded before `frames` asks for it.

    `offset_s`: the film's moment at which the recording begins. `end_s`: where it ends, in the recording's time; None:
    with the film. `film`: its description, where the caller has it already. `by_window`: a film of any length, each
    window decoded by itself, as a live camera would be. Raises FarfeelError where the file has no
    film, or shows nothing of the recording or too much.
    """

    def __init__(
        self,
        path: Path,
        knobs: Video,
        window_s: float,
        offset_s: float = 0.0,
        end_s: float | None = None,
        face: str = "largest",
        detector: FaceDetector | None = None,
        film: VideoInfo | None = None,
        by_window: bool = False,
    ) -> None:
        info = film or media_info(path).video
        if info is None:
            raise FarfeelError(f"{path} has no film (sound only), expected a picture; name a film")
        self.path, self.knobs, self.offset_s = path, knobs, offset_s
        self.face = "whole" if knobs.crop == "none" else face
        self.spacing_s = window_s / knobs.frames
        self.filmed_s = filmed_s = float("inf") if info.is_still else info.seconds - offset_s  # in the recording's time
        self.end_s = min(filmed_s, window_s if info.is_still and end_s is None else end_s or filmed_s)
        # The recording's part before the film began is not seen.
        self.begin_s = 0.0 if info.is_still else max(0.0, -offset_s)
        self.is_still = info.is_still
        if not self.end_s > self.begin_s:  # nor where the offset is no number
            raise FarfeelError(
                f"{path} lasts {info.seconds:.1f} s, the recording begins {offset_s:.1f} s into it; "
                "correct the offset between sound and film"
            )
        if not info.is_still and not by_window and self.end_s - self.begin_s > MAX_SECONDS:
            raise FarfeelError(
                f"{path} shows {(self.end_s - self.begin_s) / 60:.0f} minutes, one clip may have "
                f"{MAX_SECONDS / 60:.0f}; cut it into clips or ask for a timeline"
            )
        is_short = self.end_s - self.begin_s <= WHOLE_S and not by_window
        self.is_one_view = info.is_still or is_short  # decoded once, and kept
        self.crops: deque[Crop] = deque(maxlen=KEPT_CROPS)  # the latest, for those who want to look
        self.looked = False  # whether any window got frames
        self._detector = detector
        self._warnings: dict[str, None] = {}  # each once, in their order
        self._whole: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def seconds(self) -> float:
        """From the recording's begin to the film's last frame."""
        return self.end_s

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was noticed in the frames decoded so far."""
        return tuple(self._warnings)

    @property
    def decoded_bytes(self) -> int:
        """What its frames take in memory once they are decoded: an upper bound."""
        count = min(self.end_s - self.begin_s, WHOLE_S) / self.spacing_s + 1
        return int(count * 3 * self.knobs.size**2)

    def frames(self, start_s: float, end_s: float) -> np.ndarray | None:
        """(N, S, S, 3) uint8, evenly over what the film shows of a window; None where it shows less than half."""
        times_s = frame_times(start_s, end_s, self.begin_s, self.end_s, self.knobs.frames)
        if times_s is None:
            return None
        self.looked = True
        return nearest_frames(times_s, *self.whole()) if self.is_one_view else self._decode(times_s)

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) seconds, (N, S, S, 3) uint8: all that windows are made of, with one crop."""
        if self._whole is None:
            count = 1 if self.is_still else max(1, int(np.ceil((self.end_s - self.begin_s) / self.spacing_s)))
            at_s = middles(self.begin_s, self.end_s, count)
            self._whole = at_s, self._decode(at_s)
        return self._whole

    def _decode(self, times_s: np.ndarray) -> np.ndarray:
        found = read_frames(self.path, list(times_s + self.offset_s)).pixels
        crop = crop_face(found, self.knobs.size, self.face, self.knobs.margin, self._detector)
        self.crops.append(crop)
        self._warnings |= dict.fromkeys(crop.warnings)
        return crop.pixels


def face_video_of(clip: Clip, recipe: Recipe) -> FaceVideo:
    """The film of a clip that has one, seen as the recipe sees films."""
    assert clip.video is not None
    end_s = None if clip.end_s is None else clip.end_s - clip.start_s
    offset_s = clip.video_offset_s + clip.start_s
    return FaceVideo(clip.video, recipe.video, recipe.audio.seconds, offset_s, end_s, clip.face)
