"""Films in: what a container holds, the frames at given moments, and all channels of its sound.

Frames are uint8 RGB, shape (N, H, W, 3), upright: rotation, mirroring and pixel shape that the container asks for are
applied. Moments are in seconds from the film's first frame, which is also moment 0 of its sound. Decoding is FFmpeg
(PyAV), one thread.
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
    MISSING_S,
    all_frames,
    container_s,
    decoded,
    film_of,
    is_whole,
    length_s,
    opened,
    packets_of,
    seek,
    sound_of,
    tick_s,
    zero_s,
)
from farfeel.types import FarfeelError

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".flv", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".gif")
MIN_SIDE = 16  # pixels: a block of H.264; in less there is no face
MAX_STRETCH = 4  # Pixels are nearly square; a header that says more is wrong.
EARLY_S = 0.001  # A frame this much late is on screen: Matroska and FLV round times to milliseconds.
JUMP_S = 2.0  # Where no index tells, a gap worth a seek: most films have a key frame at least that often.
PREROLL_S = 0.25  # Before its first sample is right a sound decoder needs some packets: AAC and MP3 two, Opus 80 ms.
EXACT_S = 60.0  # A seek in sound that is timed in milliseconds is a millisecond off; up to here all of it is decoded.
HOLE_S = 0.1  # Where the times of sound jump by more, packets were lost; less is rounding.


@dataclass(frozen=True)
class VideoInfo:
    """width, height: pixels of the upright picture. `frames`: None where the header does not count them."""

    width: int
    height: int
    fps: float
    frames: int | None
    seconds: float
    start_s: float  # the first frame's time in the container's own clock
    codec: str
    rotation_deg: int  # by which the stored picture is turned clockwise to be upright
    is_still: bool


@dataclass(frozen=True)
class SoundInfo:
    channels: int
    sample_rate: int
    seconds: float  # from the film's beginning to the sound's end
    codec: str


@dataclass(frozen=True)
class MediaInfo:
    """What a container holds; None where there is no such stream."""

    path: Path
    format: str
    seconds: float
    video: VideoInfo | None
    audio: SoundInfo | None


@dataclass(frozen=True)
class Frames:
    """pixels (N, H, W, 3) uint8 RGB; times_s (N,) the moments at which these frames come on screen."""

    pixels: np.ndarray
    times_s: np.ndarray


def media_info(path: Path) -> MediaInfo:
    """What the file holds, told by its header and its first frame. Raises FarfeelError."""
    with opened(path) as container:
        film, sound = film_of(container), sound_of(container)
        if film is None and sound is None:
            raise FarfeelError(f"{path} has neither film nor sound; {EXPECTED}; copy or convert the file")
        seconds = container_s(container)
        return MediaInfo(
            Path(path),
            container.format.name,
            seconds,
            None if film is None else _video_info(path, container, film, seconds),
            None if sound is None else _sound_info(container, sound, seconds),
        )


def sound_info(path: Path) -> SoundInfo | None:
    """What `media_info` tells about the sound, without a look at the film."""
    with opened(path) as container:
        sound = sound_of(container)
        return None if sound is None else _sound_info(container, sound, container_s(container))


def read_frames(path: Path, times_s: Sequence[float], max_side: int = 720, exact: bool = False) -> Frames:
    """The frame on screen at each of the N moments (seconds), its longer side at most `max_side` pixels.

    Before the first frame it is the first one, after the end the last; a still is one frame for ever. Only what these
    frames need is decoded, and unless `exact` without the smoothing of block edges (H.264's deblocking), which
    leaves a pixel about half a grey level off and saves a sixth of the time. Raises FarfeelError for what is no
    film, and where a film breaks off before a moment that its header promises.
    """
    if len(times_s) == 0 or not np.isfinite(times_s).all():
        raise FarfeelError(f"{len(times_s)} moments asked of {path}, expected one or more, all finite; name others")
    moments = sorted({float(time) for time in times_s})
    found = _find(path, moments, max_side, exact, True) or _find(path, moments, max_side, exact, False)
    places = [bisect_left(moments, float(time)) for time in times_s]
    return Frames(np.stack([found[place][1] for place in places]), np.array([found[place][0] for place in places]))


def read_sound(path: Path, start_s: float = 0.0, end_s: float | None = None) -> tuple[np.ndarray, int]:
    """The sound from start_s to end_s (None: to its end) → (M, T) float32, all channels, and its sample rate in hertz.

    Sample 0 is moment 0 of the film: where the sound begins later there are zeros, where it begins earlier it is cut.
    """
    blocks = list(sound_blocks(path, start_s, end_s))
    return np.concatenate([block for block, _ in blocks], axis=1), blocks[0][1]


def sound_blocks(path: Path, start_s: float = 0.0, end_s: float | None = None) -> Iterator[tuple[np.ndarray, int]]:
    """`read_sound` in pieces, as they are decoded; the first is empty."""
    with opened(path) as container:
        sound = sound_of(container)
        if sound is None:
            raise FarfeelError(f"{path} has no audio (film only), expected a sound track; name a file with sound")
        rate, tick = sound.rate, tick_s(sound)
        zero = zero_s(container)
        start, stop = round(start_s * rate), None if end_s is None else round(end_s * rate)
        frames = _sound_from(container, sound, math.floor((zero + Fraction(max(start_s - PREROLL_S, 0))) / tick))
        yield np.zeros((sound.channels, 0), dtype=np.float32), rate
        end: int | None = None  # of the last decoded block, in samples from the film's beginning
        held = start  # Samples before this one are given.
        for frame in frames:
            samples = _floats(frame)
            due = end if frame.pts is None else round((frame.pts * tick - zero) * rate)
            # Times are rounded to the container's tick: only across a hole do they tell better than counting.
            begin = end if end is not None and due is not None and abs(due - end) < HOLE_S * rate else due or 0
            end = begin + samples.shape[1]
            if stop is not None and begin >= stop:
                break
            if end <= held:
                continue
            if samples.shape[0] != sound.channels:
                raise FarfeelError(f"{path} changes from {sound.channels} to {samples.shape[0]} channels; cut it there")
            if begin > held:
                yield np.zeros((samples.shape[0], begin - held), np.float32), rate
            yield samples[:, max(held - begin, 0) : None if stop is None else stop - begin], rate
            held = end


def _sound_from(container: InputContainer, sound: AudioStream, tick: int) -> Iterator[AudioFrame]:
    """Blocks of sound from `tick` on, or from before it."""
    worth_s = PREROLL_S if tick_s(sound) * sound.rate <= 1 else EXACT_S
    if (tick - (sound.start_time or 0)) * tick_s(sound) > worth_s:
        if seek(container, sound, tick):
            frames = all_frames(container, sound)
            first = next(frames, None)
            if first is not None and first.pts is not None and first.pts <= tick:
                yield first
                yield from frames
                return
        container.seek(0)  # Some containers have no index, and land after what was asked for.
    yield from all_frames(container, sound)


def _find(path: Path, moments: list[float], max_side: int, exact: bool, quick: bool) -> list[tuple[float, np.ndarray]]:
    """(when it came on screen, pixels) for each of the ascending moments; [] where the quick way misses one.

    The slow way decodes all frames in their order, for films whose packets do not tell what the quick way goes by.
    """
    with opened(path, quick) as container:
        film = film_of(container)
        if film is None:
            raise FarfeelError(f"{path} has no film (sound only), expected a picture; name a film")
        if not exact and film.name == "h264":  # Without HEVC's loop filters means drift, too.
            film.codec_context.options = {"skip_loop_filter": "all"}
        for stream in container.streams:
            if stream.index != film.index:
                stream.discard = Discard.all
        tick, zero = tick_s(film), film.start_time or 0
        targets = [zero + int((Fraction(max(moment, 0)) + Fraction(EARLY_S)) // tick) for moment in moments]
        search = _Search(container, film, max_side)
        complete = search.quickly(targets) if quick else search.slowly(targets)
        if quick and not complete:
            return []
        if not search.answers:
            raise FarfeelError(f"{path} has no frame that can be decoded; {EXPECTED}; copy or convert the file")
        _require_size(path, *search.size)
        for target in targets:
            missing_s = float((search.due[target] - search.answers[target][0]) * tick)
            if missing_s > MISSING_S:
                raise FarfeelError(
                    f"{path} is damaged: no frame can be decoded for {missing_s:.1f} s before "
                    f"{float((target - zero) * tick):.1f} s; copy the file again"
                )
        end_s, promised_s = (
            float((search.end - zero) * tick),
            length_s(film) or (container.duration or 0) / av.time_base,
        )
        if min(moments[-1], promised_s) > end_s + MISSING_S and not is_whole(path):
            raise FarfeelError(f"{path} is cut off: {end_s:.1f} of {promised_s:.1f} s; copy the file again")
        return [(float((search.answers[target][0] - zero) * tick), search.answers[target][1]) for target in targets]


class _Search:
    """The frames of a film that are on screen at given ticks of its clock.

    `answers`: target → tick at which the frame came on screen, its pixels. `due`: target → the tick at which, by the
    packets, it should have. `end`: the tick until which packets were seen.
    """

    def __init__(self, container: InputContainer, film: VideoStream, max_side: int) -> None:
        self.container, self.film, self.max_side = container, film, max_side
        self.answers: dict[int, tuple[int, np.ndarray]] = {}
        self.due: dict[int, int] = {}
        self.end = self.zero = film.start_time or 0
        self.size = (0, 0)
        self._scaler = VideoReformatter()
        self._target: tuple[int, int, tuple[bool, bool, bool]] | None = None
        self._seeks_pay = True

    def slowly(self, targets: list[int]) -> bool:
        """All packets decoded; frames without a time follow each other at the film's rate."""
        step = round(1 / (tick_s(self.film) * (self.film.average_rate or 25)))
        ticks: list[int] = []
        screen = _Screen(self, targets)
        for packet in packets_of(self.container, self.film):
            self._count(packet, ticks)
            for frame in decoded(self.film, packet):
                screen.show(frame, self.zero if screen.at is None else screen.at + step)
            if not screen.left:
                break
        for frame in decoded(self.film, None):
            screen.show(frame, self.zero if screen.at is None else screen.at + step)
        self._close(screen, targets, ticks)
        return True

    def quickly(self, targets: list[int]) -> bool:
        """From key frame to key frame. False where a frame did not come that the packets promise."""
        done = 0
        while done < len(targets):
            jump = self._pays(targets[done - 1] if done else self.zero, targets[done])
            stop = done + 1
            while stop < len(targets) and not self._pays(targets[stop - 1], targets[stop]):
                stop += 1
            if not self._reach(targets[done:stop], jump, targets[done - 1] if done else self.zero):
                return False
            done = stop
        return all(target in self.answers and self.answers[target][0] == self.due.get(target) for target in targets)

    def _pays(self, at: int, target: int) -> bool:
        """Is there a key frame between the two ticks, so that a seek saves decoding?"""
        index = self.film.index_entries
        near = int(JUMP_S / tick_s(self.film))
        # Some containers index all frames, some the key frames, some nothing until they are read.
        if len(index) and index[len(index) - 1].timestamp >= target - near:
            place = index.search_timestamp(target)
            return place >= 0 and index[place].timestamp > at
        return self._seeks_pay and target - at > near

    def _reach(self, targets: list[int], jump: bool, at: int) -> bool:
        back = 0
        while jump and targets[0] - back > self.zero:
            if not seek(self.container, self.film, targets[0] - back):
                return False
            first = self._go(targets)
            if first is not None and first <= targets[0]:
                self._seeks_pay = self._seeks_pay and first > at
                return True
            # The seek went to no key frame, or to one after the target.
            back = max(2 * back, int(JUMP_S / tick_s(self.film)))
        if (jump or self.answers) and not seek(self.container, self.film, self.zero):
            return False
        return self._go(targets) is not None

    def _go(self, targets: list[int]) -> int | None:
        """Decode from here to the last target → tick of the first frame; None where there is none."""
        decoder = self.film.codec_context
        packets = packets_of(self.container, self.film)
        queue: deque[av.Packet] = deque()
        ticks: list[int] = []
        screen = _Screen(self, targets)
        horizon: float = -math.inf  # No packet still to come is shown before this.
        sent_last = False
        while not sent_last and horizon < math.inf:
            packet = next(packets, None)
            if packet is None:
                horizon = math.inf
            elif packet.pts is None or packet.dts is None:
                return None
            else:
                self._count(packet, ticks)
                queue.append(packet)
                horizon = packet.dts
            while queue and not sent_last:
                shown = queue[0].pts
                assert shown is not None
                later = bisect_right(ticks, shown)
                place = bisect_left(targets, shown)
                needed = place < len(targets) and later == bisect_right(ticks, targets[place])
                if needed and horizon <= targets[place]:
                    break  # A packet to come may take its place.
                # Frames that no other frame refers to, unless they are wanted themselves.
                decoder.skip_frame = "DEFAULT" if needed else "NONREF"
                for frame in decoded(self.film, queue.popleft()):
                    screen.show(frame, None)
                if screen.first is not None and screen.first > targets[0] > self.zero:
                    return screen.first
                sent_last = horizon > targets[-1] and later == bisect_right(ticks, targets[-1]) and later > 0
        # The last wanted frame is in the decoder: the packets after it need not push it out.
        for frame in decoded(self.film, None):
            screen.show(frame, None)
        self._close(screen, targets, ticks)
        return screen.first

    def _count(self, packet: av.Packet, ticks: list[int]) -> None:
        if packet.pts is not None and not packet.is_discard:
            insort(ticks, packet.pts)
            self.end = max(self.end, packet.pts + (packet.duration or 0))

    def _close(self, screen: _Screen, targets: list[int], ticks: list[int]) -> None:
        screen.close()
        for target in targets:
            if target in self.answers:
                self.due[target] = ticks[max(bisect_right(ticks, target) - 1, 0)] if ticks else self.answers[target][0]

    def convert(self, frame: VideoFrame) -> np.ndarray:
        """A decoded frame → (H, W, 3) uint8 RGB, upright, scaled down while it is converted."""
        if self._target is None:  # A call's picture may change its size; the first one's is kept.
            width, height = _square_pixels(self.film, frame)
            orient = _orientation(frame)
            self.size = (height, width) if orient[0] else (width, height)
            scale = min(1.0, self.max_side / max(width, height))
            self._target = max(round(width * scale), 1), max(round(height * scale), 1), orient
        small = self._scaler.reformat(frame, *self._target[:2], "rgb24", threads=1)
        return _upright(small.to_ndarray(), self._target[2])


class _Screen:
    """Frames in the order they are shown; each target is answered by the one on screen at its tick."""

    def __init__(self, search: _Search, targets: list[int]) -> None:
        self.search, self.left = search, deque(targets)
        self.first: int | None = None
        self.at: int | None = None
        self._frame: VideoFrame | None = None
        self._converted: tuple[int, np.ndarray] | None = None

    def show(self, frame: VideoFrame, guess: int | None) -> None:
        """`guess` is the tick of a frame that has none."""
        tick = guess if frame.pts is None else frame.pts
        if tick is None:
            return
        if self.first is None:
            self.first, self.at, self._frame = tick, tick, frame
        while self.left and tick > self.left[0]:
            self._answer()
        self.at, self._frame = tick, frame

    def close(self) -> None:
        while self.left and self._frame is not None:
            self._answer()

    def _answer(self) -> None:
        assert self._frame is not None
        assert self.at is not None
        if self._converted is None or self._converted[0] != self.at:
            self._converted = (self.at, self.search.convert(self._frame))
        self.search.answers[self.left.popleft()] = self._converted


def _video_info(path: Path, container: InputContainer, film: VideoStream, seconds: float) -> VideoInfo:
    frame = next(all_frames(container, film), None)
    if frame is None:
        raise FarfeelError(f"{path} has no frame that can be decoded; {EXPECTED}; copy or convert the file")
    size, orient = _square_pixels(film, frame), _orientation(frame)
    width, height = reversed(size) if orient[0] else size
    _require_size(path, width, height)
    is_still = container.format.name.endswith("_pipe") or film.frames == 1
    swapped, mirrored, upside_down = orient
    quarter = (1 if mirrored else 3) if swapped else (2 if upside_down else 0)
    return VideoInfo(
        width=width,
        height=height,
        fps=float(film.average_rate or film.guessed_rate or 0),
        frames=1 if is_still else film.frames or None,
        seconds=length_s(film) or seconds,
        start_s=float((film.start_time or 0) * tick_s(film)),
        codec=film.name or "",
        rotation_deg=90 * quarter,
        is_still=is_still,
    )


def _sound_info(container: InputContainer, sound: AudioStream, seconds: float) -> SoundInfo:
    own_s = length_s(sound)
    if own_s is not None:
        seconds = float((sound.start_time or 0) * tick_s(sound) - zero_s(container)) + own_s
    return SoundInfo(sound.channels, sound.rate, seconds, sound.name or "")


def _require_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise FarfeelError(
            f"{path} has pictures of {width}×{height} pixels, expected {MIN_SIDE}×{MIN_SIDE} or more; name another film"
        )


def _floats(frame: AudioFrame) -> np.ndarray:
    """Samples of any format → (M, T) float32 in [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return (samples / 2.0 ** (8 * samples.dtype.itemsize - 1)).astype(np.float32)
    return samples.astype(np.float32)


def _square_pixels(film: VideoStream, frame: VideoFrame) -> tuple[int, int]:
    """Width and height of the frame when its pixels are made square."""
    shape = float(film.sample_aspect_ratio or 1)
    return (round(frame.width * shape) if 1 / MAX_STRETCH < shape < MAX_STRETCH else frame.width), frame.height


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Swap the axes, then mirror, then turn upside down: what makes the stored picture upright.

    The display matrix maps (x, y) to (ax + cy, bx + dy), stored as a, b, u, c, d, v, x, y, w.
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _upright(pixels: np.ndarray, orientation: tuple[bool, bool, bool]) -> np.ndarray:
    swapped, mirrored, upside_down = orientation
    if swapped:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1])
