"""Video files: their description, and the frames at given times.

Frames are uint8 RGB, shape (N, H, W, 3), and upright: rotation, mirroring and pixel shape are applied as the container
specifies them. Times are in seconds. Time 0 is the beginning of the audio or of the video, whichever comes first.
FFmpeg (PyAV) decodes with one thread.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from farfeel.media.audio import SPEECH_SUFFIXES, sound_info
from farfeel.media.audio_track import AudioTrackInfo, lengths_of, track_info
from farfeel.media.container import (
    EXPECTED,
    EXPECTED_OF,
    MAX_GAP_S,
    Kind,
    clock_zero_s,
    decode_packet,
    decode_stream,
    discard_others,
    exact_end_s,
    fraction_of,
    is_complete,
    open_container,
    read_packets,
    seek,
    stream_duration_s,
    tick_s,
    video_stream,
)
from farfeel.media.isolation import isolated
from farfeel.types import FarfeelError

VIDEO_SUFFIXES = (
    ".mp4", ".mov", ".mkv", ".webm", ".avi", ".flv", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".gif", ".3gp", ".3g2",
    ".mts", ".m2ts", ".vob", ".ogv", ".asf", ".mxf", ".dv", ".f4v", ".qt", ".m2v", ".m1v", ".divx", ".h264", ".264",
    ".hevc", ".h265", ".265", ".ivf", ".mjpeg", ".mjpg", ".y4m", ".nut", ".rm", ".rmvb", ".wtv",
)  # fmt: skip
MIN_SIDE = 16  # Smallest side in pixels: one block of H.264. A smaller picture shows no face.
MAX_PIXEL_ASPECT = 4  # Pixels are nearly square. A header that states a larger aspect ratio is wrong.
TIME_TOLERANCE_S = 0.001  # A frame may be this late: Matroska and FLV round times to milliseconds.
MIN_SEEK_S = 2.0  # Without an index, a longer gap is worth a seek. Most videos have a key frame at least that often.


@dataclass(frozen=True)
class VideoInfo:
    """Description of a video stream.

    width, height: Size of the upright picture, in pixels.
    fps: Frames per second.
    frames: Number of frames. None if the header does not contain it.
    seconds: From time 0 to the end of the video.
    start_s: Time of the first frame.
    codec: FFmpeg's name of the codec.
    rotation_deg: Clockwise rotation that makes the stored picture upright.
    is_still: Whether it is a still picture.
    """

    width: int
    height: int
    fps: float
    frames: int | None
    seconds: float
    start_s: float
    codec: str
    rotation_deg: int
    is_still: bool


@dataclass(frozen=True)
class MediaInfo:
    """Description of a media file. `video` or `audio` is None if the file has no such stream."""

    path: Path
    format: str
    seconds: float
    video: VideoInfo | None
    audio: AudioTrackInfo | None


@dataclass(frozen=True)
class Frames:
    """Decoded frames.

    pixels: (N, H, W, 3) uint8 RGB.
    times_s: (N,) times at which these frames appear on screen, in seconds.
    """

    pixels: np.ndarray
    times_s: np.ndarray


def media_info(path: Path) -> MediaInfo:
    """Describe a media file. Lengths are counted where the header of a video does not contain all of its times.

    Raises:
        FarfeelError: The file cannot be read, contains neither video nor audio, or has pictures that are too small.
    """
    sound = sound_info(path)
    if sound is None:
        return _media_info(path)
    audio = AudioTrackInfo(sound.channels, sound.sample_rate, sound.seconds, sound.subtype.lower(), sound.unused)
    return MediaInfo(Path(path), Path(path).suffix[1:].lower(), audio.seconds, None, audio)


@isolated
def _media_info(path: Path) -> MediaInfo:
    with open_container(path, kind=_kind_of(path)) as container:
        video, audio = video_stream(container), track_info(path, container)
        if video is None and audio is None:
            expected = EXPECTED_OF["audio or video"]
            raise FarfeelError(f"{path} contains neither video nor audio; {expected}; copy it again or convert it")
        shown = None if video is None else _video_info(path, container, video)
        seconds = max(shown.seconds if shown else 0.0, audio.seconds if audio else 0.0)
        return MediaInfo(Path(path), container.format.name, seconds, shown, audio)


def _kind_of(path: Path) -> Kind:
    """What a file is by its name, for errors."""
    suffix = Path(path).suffix.lower()
    return "video" if suffix in VIDEO_SUFFIXES else "audio" if suffix in SPEECH_SUFFIXES else "audio or video"


@isolated
def read_frames(path: Path, times_s: Sequence[float], max_side: int = 720, exact: bool = False) -> Frames:
    """Read the frames that are on screen at given times.

    Before the first frame the first one is returned, after the end the last one. A still picture is one frame that
    lasts for ever. Only the frames that are needed for the result are decoded.

    Args:
        path: The video file, or a still picture.
        times_s: N times in seconds, in any order.
        max_side: Larger frames are reduced until their longer side has this many pixels.
        exact: Apply H.264's deblocking filter. Without it a pixel is wrong by about half a grey level on average, and
            decoding takes a sixth less time.

    Returns:
        N frames, in the order of `times_s`.

    Raises:
        FarfeelError: The file contains no video, is damaged, or ends before a time that its header includes.
    """
    if len(times_s) == 0 or not np.isfinite(times_s).all():
        raise FarfeelError(
            f"{len(times_s)} frame times are given for {path}, expected one or more, all finite; correct the times"
        )
    sorted_s = sorted({float(time_s) for time_s in times_s})
    frames = _read_frames_at(path, sorted_s, max_side, exact, seeking=True)
    frames = frames or _read_frames_at(path, sorted_s, max_side, exact, seeking=False)
    indices = [bisect_left(sorted_s, float(time_s)) for time_s in times_s]
    return Frames(np.stack([frames[index][1] for index in indices]), np.array([frames[index][0] for index in indices]))


def _read_frames_at(
    path: Path, times_s: list[float], max_side: int, exact: bool, seeking: bool
) -> list[tuple[float, np.ndarray]]:
    """(time at which it appears on screen, pixels) of the frame at each of the ascending times.

    With `seeking`, the decoder jumps from key frame to key frame. The result is empty if that misses a frame. Without
    `seeking`, all frames are decoded in their order. This is for videos whose packets carry no times.
    """
    with open_container(path, skip_probing=seeking) as container:
        video = video_stream(container)
        if video is None:
            raise FarfeelError(f"{path} has audio but no video, expected a video; use a video file")
        if not exact and video.name == "h264":  # In HEVC, pictures without loop filters would drift.
            video.codec_context.options = {"skip_loop_filter": "all"}
        zero_s, tick, first_tick = clock_zero_s(container, video), tick_s(video), video.start_time or 0
        discard_others(container, video)
        targets = [
            max(math.floor((zero_s + Fraction(time) + Fraction(TIME_TOLERANCE_S)) / tick), first_tick)
            for time in times_s
        ]
        search = _FrameSearch(container, video, max_side)
        is_complete_search = search.by_seeking(targets) if seeking else search.in_order(targets)
        if seeking and not is_complete_search:
            return []
        if not search.frames:
            raise FarfeelError(f"{path} has no frame that can be decoded; {EXPECTED}; copy it again or convert it")
        _require_size(path, *search.size)
        for target in targets:
            missing_s = float((search.expected[target] - search.frames[target][0]) * tick)
            if missing_s > MAX_GAP_S:
                raise FarfeelError(
                    f"{path} is damaged: no frame can be decoded for {missing_s:.1f} s before "
                    f"{float(target * tick - zero_s):.1f} s; copy the file again"
                )
        end_s, stated_s = float(search.end * tick - zero_s), exact_end_s(container, video) or 0.0
        if min(times_s[-1], stated_s) > end_s + MAX_GAP_S and not is_complete(path):
            raise FarfeelError(f"{path} is cut off: {end_s:.1f} of {stated_s:.1f} s; copy the file again")
        return [(float(search.frames[target][0] * tick - zero_s), search.frames[target][1]) for target in targets]


class _FrameSearch:
    """Finds the frames of a video that are on screen at given ticks (targets).

    frames: target → tick at which its frame appears on screen, and the pixels of the frame.
    expected: target → tick at which that frame should appear, according to the packets.
    end: Tick at which the last packet read ends.
    size: Width and height of the upright frames before they are reduced, in pixels.
    """

    def __init__(self, container: InputContainer, video: VideoStream, max_side: int) -> None:
        self.container, self.video, self.max_side = container, video, max_side
        self.frames: dict[int, tuple[int, np.ndarray]] = {}
        self.expected: dict[int, int] = {}
        self.end = self.first_tick = video.start_time or 0
        self.size = (0, 0)
        self._scaler = VideoReformatter()
        self._output: tuple[int, int, tuple[bool, bool, bool]] | None = None  # width, height and orientation
        self._seeks_help = True

    def in_order(self, targets: list[int]) -> bool:
        """Decode all packets. Frames without a time are assumed to follow each other at the frame rate."""
        step = round(1 / (tick_s(self.video) * (fraction_of(self.video.average_rate) or 25)))
        ticks: list[int] = []
        display = _Display(self, targets)
        for packet in read_packets(self.container, self.video):
            self._note_packet(packet, ticks)
            for frame in decode_packet(self.video, packet):
                display.show(frame, self.first_tick if display.tick is None else display.tick + step)
            if not display.targets:
                break
        for frame in decode_packet(self.video, None):
            display.show(frame, self.first_tick if display.tick is None else display.tick + step)
        self._finish(display, targets, ticks)
        return True

    def by_seeking(self, targets: list[int]) -> bool:
        """Jump from key frame to key frame. Returns False if a frame is missing that the packets contain."""
        start = 0
        while start < len(targets):
            previous = targets[start - 1] if start else self.first_tick
            use_seek = self._is_seek_useful(previous, targets[start])
            stop = start + 1
            while stop < len(targets) and not self._is_seek_useful(targets[stop - 1], targets[stop]):
                stop += 1
            if not self._reach(targets[start:stop], use_seek, previous):
                return False
            start = stop
        return all(target in self.frames and self.frames[target][0] == self.expected.get(target) for target in targets)

    def _is_seek_useful(self, tick: int, target: int) -> bool:
        """Whether there is a key frame between the two ticks, so that a seek saves decoding."""
        entries = self.video.index_entries
        min_gap = int(MIN_SEEK_S / tick_s(self.video))
        # Some containers index all frames, some only the key frames, and some nothing until they are read.
        if len(entries) and entries[len(entries) - 1].timestamp >= target - min_gap:
            position = entries.search_timestamp(target)
            return position >= 0 and entries[position].timestamp > tick
        return self._seeks_help and target - tick > min_gap

    def _reach(self, targets: list[int], use_seek: bool, previous: int) -> bool:
        """Decode the frames of neighbouring targets, with a seek if that is useful. False: nothing can be decoded."""
        back = 0
        while use_seek and targets[0] - back > self.first_tick:
            if not seek(self.container, self.video, targets[0] - back):
                return False
            first = self._decode_until(targets)
            if first is not None and first <= targets[0]:
                self._seeks_help = self._seeks_help and first > previous
                return True
            # The seek did not go to a key frame, or it went to one after the target.
            back = max(2 * back, int(MIN_SEEK_S / tick_s(self.video)))
        if (use_seek or self.frames) and not seek(self.container, self.video, self.first_tick):
            return False
        return self._decode_until(targets) is not None

    def _decode_until(self, targets: list[int]) -> int | None:
        """Decode from the current position to the last target → tick of the first frame. None: no frame."""
        decoder = self.video.codec_context
        packets = read_packets(self.container, self.video)
        queue: deque[av.Packet] = deque()
        ticks: list[int] = []
        display = _Display(self, targets)
        horizon: float = -math.inf  # All packets that were not read yet are shown at this tick or later.
        sent_last = False
        while not sent_last and horizon < math.inf:
            packet = next(packets, None)
            if packet is None:
                horizon = math.inf
            elif packet.pts is None or packet.dts is None:
                return None
            else:
                self._note_packet(packet, ticks)
                queue.append(packet)
                horizon = packet.dts
            while queue and not sent_last:
                shown = queue[0].pts
                assert shown is not None
                rank = bisect_right(ticks, shown)
                following = bisect_left(targets, shown)
                is_needed = following < len(targets) and rank == bisect_right(ticks, targets[following])
                if is_needed and horizon <= targets[following]:
                    break  # A later packet may be on screen at the target instead.
                # A frame that is not needed is skipped if no other frame refers to it.
                decoder.skip_frame = "DEFAULT" if is_needed else "NONREF"
                for frame in decode_packet(self.video, queue.popleft()):
                    display.show(frame, None)
                if display.first is not None and display.first > targets[0] > self.first_tick:
                    return display.first
                sent_last = horizon > targets[-1] and rank == bisect_right(ticks, targets[-1]) and rank > 0
        # The decoder is flushed for the last frame, so that no later packets need to be decoded.
        for frame in decode_packet(self.video, None):
            display.show(frame, None)
        self._finish(display, targets, ticks)
        return display.first

    def _note_packet(self, packet: av.Packet, ticks: list[int]) -> None:
        if packet.pts is not None and not packet.is_discard:
            insort(ticks, packet.pts)
            self.end = max(self.end, packet.pts + (packet.duration or 0))

    def _finish(self, display: _Display, targets: list[int], ticks: list[int]) -> None:
        """Give the remaining targets the last frame, and note which frames the packets contain for all targets."""
        display.finish()
        for target in targets:
            if target in self.frames:
                rank = max(bisect_right(ticks, target) - 1, 0)
                self.expected[target] = ticks[rank] if ticks else self.frames[target][0]

    def convert(self, frame: VideoFrame) -> np.ndarray:
        """Decoded frame → (H, W, 3) uint8 RGB, upright and reduced to `max_side`."""
        if self._output is None:  # The size of a video call may change. The size of the first frame is kept.
            width, height = _square_pixels(self.video, frame)
            orientation = _orientation(frame)
            self.size = (height, width) if orientation[0] else (width, height)
            scale = min(1.0, self.max_side / max(width, height))
            self._output = max(round(width * scale), 1), max(round(height * scale), 1), orientation
        reduced = self._scaler.reformat(frame, *self._output[:2], "rgb24", threads=1)
        return _upright(reduced.to_ndarray(), self._output[2])


class _Display:
    """Receives frames in the order in which they are shown, and stores the frame on screen at each target tick.

    targets: Ticks that have no frame yet, in ascending order.
    first: Tick of the first frame.
    tick: Tick of the frame on screen.
    """

    def __init__(self, search: _FrameSearch, targets: list[int]) -> None:
        self.search, self.targets = search, deque(targets)
        self.first: int | None = None
        self.tick: int | None = None
        self._frame: VideoFrame | None = None
        self._converted: tuple[int, np.ndarray] | None = None

    def show(self, frame: VideoFrame, default_tick: int | None) -> None:
        """The next frame. `default_tick` is used if the frame has no time."""
        tick = default_tick if frame.pts is None else frame.pts
        if tick is None:
            return
        if self.first is None:
            self.first, self.tick, self._frame = tick, tick, frame
        while self.targets and tick > self.targets[0]:
            self._store()
        self.tick, self._frame = tick, frame

    def finish(self) -> None:
        """Store the last frame for all remaining targets."""
        while self.targets and self._frame is not None:
            self._store()

    def _store(self) -> None:
        assert self._frame is not None
        assert self.tick is not None
        if self._converted is None or self._converted[0] != self.tick:
            self._converted = (self.tick, self.search.convert(self._frame))
        self.search.frames[self.targets.popleft()] = self._converted


def _video_info(path: Path, container: InputContainer, video: VideoStream) -> VideoInfo:
    zero_s = clock_zero_s(container, video)
    start_s = float((video.start_time or 0) * tick_s(video) - zero_s)
    frame = next(decode_stream(container, video), None)
    if frame is None:
        raise FarfeelError(f"{path} has no frame that can be decoded; {EXPECTED}; copy it again or convert it")
    size, orientation = _square_pixels(video, frame), _orientation(frame)
    width, height = reversed(size) if orientation[0] else size
    _require_size(path, width, height)
    is_still = container.format.name.endswith("_pipe") or video.frames == 1
    swapped, mirrored, upside_down = orientation
    quarter = (1 if mirrored else 3) if swapped else (2 if upside_down else 0)
    counted_s = lengths_of(path).video_s
    stated_s = start_s + (stream_duration_s(video) or 0.0)
    return VideoInfo(
        width=width,
        height=height,
        fps=float(fraction_of(video.average_rate) or fraction_of(video.guessed_rate) or 0),
        frames=1 if is_still else video.frames or None,
        seconds=stated_s if counted_s is None else counted_s,
        start_s=start_s,
        codec=video.name or "",
        rotation_deg=90 * quarter,
        is_still=is_still,
    )


def _require_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise FarfeelError(
            f"{path} has pictures of {width}×{height} pixels, expected {MIN_SIDE}×{MIN_SIDE} or more; use another video"
        )


def _square_pixels(video: VideoStream, frame: VideoFrame) -> tuple[int, int]:
    """Width and height of a frame after its pixels are made square."""
    aspect = float(fraction_of(video.sample_aspect_ratio) or 1)
    is_plausible = 1 / MAX_PIXEL_ASPECT < aspect < MAX_PIXEL_ASPECT
    return (round(frame.width * aspect) if is_plausible else frame.width), frame.height


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Three steps that make the stored picture upright: swap the axes, then mirror, then turn upside down.

    The display matrix maps (x, y) to (ax + cy, bx + dy). It is stored as a, b, u, c, d, v, x, y, w.
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _upright(pixels: np.ndarray, orientation: tuple[bool, bool, bool]) -> np.ndarray:
    """Apply the steps of `_orientation` to (H, W, 3) pixels."""
    swapped, mirrored, upside_down = orientation
    if swapped:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1])
