"""Video files: their description, the frames at given times, and all channels of their audio track.

Frames are uint8 RGB, shape (N, H, W, 3), and upright: rotation, mirroring and pixel shape are applied as the container
specifies them. Times are in seconds. Time 0 is the first video frame, for the audio track too. FFmpeg (PyAV) decodes
with one thread.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from farfeel.media.container import (
    EXPECTED,
    MAX_GAP_S,
    audio_stream,
    container_duration_s,
    decode_packet,
    decode_stream,
    is_complete,
    open_container,
    origin_s,
    read_packets,
    seek,
    stream_duration_s,
    tick_s,
    video_stream,
)
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
PREROLL_S = 0.25  # Audio to decode before the first sample is correct. AAC and MP3 need two packets, Opus needs 80 ms.
NO_SEEK_S = 60.0  # If times are rounded to milliseconds, a seek is inexact. Up to here everything is decoded instead.
LOST_S = 0.1  # If the times of audio jump by more, packets were lost. A smaller jump is rounding.


@dataclass(frozen=True)
class VideoInfo:
    """Description of a video stream.

    width, height: Size of the upright picture, in pixels.
    fps: Frames per second.
    frames: Number of frames. None if the header does not contain it.
    seconds: Duration.
    start_s: Time of the first frame on the container's own clock.
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
class AudioTrackInfo:
    """Description of an audio stream.

    channels: Number of channels, M.
    sample_rate: In hertz.
    seconds: From time 0 (the first video frame) to the end of the audio.
    codec: FFmpeg's name of the codec.
    """

    channels: int
    sample_rate: int
    seconds: float
    codec: str


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
    """Describe a media file from its header and its first frame.

    Raises:
        FarfeelError: The file cannot be read, contains neither video nor audio, or has pictures that are too small.
    """
    with open_container(path) as container:
        video, audio = video_stream(container), audio_stream(container)
        if video is None and audio is None:
            raise FarfeelError(f"{path} contains neither video nor audio; {EXPECTED}; copy it again or convert it")
        seconds = container_duration_s(container)
        return MediaInfo(
            Path(path),
            container.format.name,
            seconds,
            None if video is None else _video_info(path, container, video, seconds),
            None if audio is None else _audio_track_info(container, audio, seconds),
        )


def audio_track_info(path: Path) -> AudioTrackInfo | None:
    """Describe only the audio track of a media file. Returns None if there is none.

    Raises:
        FarfeelError: The file cannot be read.
    """
    with open_container(path) as container:
        audio = audio_stream(container)
        return None if audio is None else _audio_track_info(container, audio, container_duration_s(container))


def read_frames(path: Path, times_s: Sequence[float], max_side: int = 720, exact: bool = False) -> Frames:
    """Read the frames that are on screen at given times.

    Before the first frame the first one is returned, after the end the last one. A still picture is one frame that
    lasts for ever. Only the frames that are needed for the result are decoded.

    Args:
        path: The video file, or a still picture.
        times_s: N times in seconds from the first frame, in any order.
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


def read_audio_track(path: Path, start_s: float = 0.0, end_s: float | None = None) -> tuple[np.ndarray, int]:
    """Read all channels of the audio track of a video.

    Sample 0 is at the first video frame. Zeros are inserted if the audio begins later. It is cut if it begins earlier.

    Args:
        path: The media file.
        start_s: Where to begin, in seconds.
        end_s: Where to end, in seconds. None: the end of the audio.

    Returns:
        (M, T) float32 samples, and their sample rate in hertz.

    Raises:
        FarfeelError: The file cannot be read, has no audio, or its number of channels changes.
    """
    blocks = list(audio_track_blocks(path, start_s, end_s))
    return np.concatenate([block for block, _ in blocks], axis=1), blocks[0][1]


def audio_track_blocks(
    path: Path, start_s: float = 0.0, end_s: float | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """The result of `read_audio_track` in blocks of any size, as they are decoded. The first block is empty."""
    with open_container(path) as container:
        audio = audio_stream(container)
        if audio is None:
            raise FarfeelError(f"{path} has video but no audio, expected an audio track; use a file with audio")
        rate, tick = audio.rate, tick_s(audio)
        origin = origin_s(container)
        start, stop = round(start_s * rate), None if end_s is None else round(end_s * rate)
        frames = _audio_frames_from(
            container, audio, math.floor((origin + Fraction(max(start_s - PREROLL_S, 0))) / tick)
        )
        yield np.zeros((audio.channels, 0), dtype=np.float32), rate
        block_end: int | None = None  # index of the sample after the last decoded block
        next_sample = start  # index of the next sample to yield
        for frame in frames:
            samples = _to_float(frame)
            stated = block_end if frame.pts is None else round((frame.pts * tick - origin) * rate)
            # Stated times are rounded to ticks, so counting samples is more exact. But counting fails after a loss.
            is_continuous = block_end is not None and stated is not None and abs(stated - block_end) < LOST_S * rate
            block_begin = (block_end if is_continuous else stated) or 0
            block_end = block_begin + samples.shape[1]
            if stop is not None and block_begin >= stop:
                break
            if block_end <= next_sample:
                continue
            if samples.shape[0] != audio.channels:
                raise FarfeelError(
                    f"{path} changes from {audio.channels} to {samples.shape[0]} channels, expected one number of "
                    "channels; cut the file at the change"
                )
            if block_begin > next_sample:
                yield np.zeros((samples.shape[0], block_begin - next_sample), np.float32), rate
            yield samples[:, max(next_sample - block_begin, 0) : None if stop is None else stop - block_begin], rate
            next_sample = block_end


def _audio_frames_from(container: InputContainer, audio: AudioStream, tick: int) -> Iterator[AudioFrame]:
    """Decoded blocks of audio. The first one begins at `tick` or before it."""
    min_seek_s = PREROLL_S if tick_s(audio) * audio.rate <= 1 else NO_SEEK_S
    if (tick - (audio.start_time or 0)) * tick_s(audio) > min_seek_s:
        if seek(container, audio, tick):
            frames = decode_stream(container, audio)
            first = next(frames, None)
            if first is not None and first.pts is not None and first.pts <= tick:
                yield first
                yield from frames
                return
        container.seek(0)  # Some containers have no index, so that a seek goes too far.
    yield from decode_stream(container, audio)


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
        for stream in container.streams:
            if stream.index != video.index:
                stream.discard = Discard.all
        tick, first_tick = tick_s(video), video.start_time or 0
        targets = [first_tick + int((Fraction(max(time, 0)) + Fraction(TIME_TOLERANCE_S)) // tick) for time in times_s]
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
                    f"{float((target - first_tick) * tick):.1f} s; copy the file again"
                )
        end_s = float((search.end - first_tick) * tick)
        stated_s = stream_duration_s(video) or (container.duration or 0) / av.time_base
        if min(times_s[-1], stated_s) > end_s + MAX_GAP_S and not is_complete(path):
            raise FarfeelError(f"{path} is cut off: {end_s:.1f} of {stated_s:.1f} s; copy the file again")
        return [(float((search.frames[target][0] - first_tick) * tick), search.frames[target][1]) for target in targets]


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
        step = round(1 / (tick_s(self.video) * (self.video.average_rate or 25)))
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


def _video_info(path: Path, container: InputContainer, video: VideoStream, seconds: float) -> VideoInfo:
    frame = next(decode_stream(container, video), None)
    if frame is None:
        raise FarfeelError(f"{path} has no frame that can be decoded; {EXPECTED}; copy it again or convert it")
    size, orientation = _square_pixels(video, frame), _orientation(frame)
    width, height = reversed(size) if orientation[0] else size
    _require_size(path, width, height)
    is_still = container.format.name.endswith("_pipe") or video.frames == 1
    swapped, mirrored, upside_down = orientation
    quarter = (1 if mirrored else 3) if swapped else (2 if upside_down else 0)
    return VideoInfo(
        width=width,
        height=height,
        fps=float(video.average_rate or video.guessed_rate or 0),
        frames=1 if is_still else video.frames or None,
        seconds=stream_duration_s(video) or seconds,
        start_s=float((video.start_time or 0) * tick_s(video)),
        codec=video.name or "",
        rotation_deg=90 * quarter,
        is_still=is_still,
    )


def _audio_track_info(container: InputContainer, audio: AudioStream, seconds: float) -> AudioTrackInfo:
    duration_s = stream_duration_s(audio)
    if duration_s is not None:
        seconds = float((audio.start_time or 0) * tick_s(audio) - origin_s(container)) + duration_s
    return AudioTrackInfo(audio.channels, audio.rate, seconds, audio.name or "")


def _require_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise FarfeelError(
            f"{path} has pictures of {width}×{height} pixels, expected {MIN_SIDE}×{MIN_SIDE} or more; use another video"
        )


def _to_float(frame: AudioFrame) -> np.ndarray:
    """Samples of any format → (M, T) float32 in [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return (samples / 2.0 ** (8 * samples.dtype.itemsize - 1)).astype(np.float32)
    return samples.astype(np.float32)


def _square_pixels(video: VideoStream, frame: VideoFrame) -> tuple[int, int]:
    """Width and height of a frame after its pixels are made square."""
    aspect = float(video.sample_aspect_ratio or 1)
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
