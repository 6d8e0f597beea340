"""Audio decoded by FFmpeg: the audio tracks of videos, and sound formats that libsndfile does not decode exactly.

Samples are float32 in [-1, 1], shape (M, T), channel first. Time 0 is the beginning of the audio or of the video,
whichever comes first. A length is counted: what a header contains is often an estimate. Several mono tracks of one
length are the microphones of one recording.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from farfeel.media.container import (
    MAX_JUMP_S,
    WITHOUT_CLOCK,
    PacketEnd,
    audio_stream,
    audio_streams,
    clock_zero_s,
    decode_packet,
    decode_stream,
    discard_others,
    exact_end_s,
    is_one_of,
    open_container,
    read_packets,
    seek,
    stream_duration_s,
    tick_s,
    video_stream,
)
from farfeel.media.isolation import isolated, isolated_blocks
from farfeel.types import FarfeelError

PREROLL_S = 0.25  # Audio to decode before the first sample is correct. AAC and MP3 need two packets, Opus needs 80 ms.
NO_SEEK_S = 60.0  # If times are rounded to milliseconds, a seek is inexact. Up to here everything is decoded instead.
LOST_S = 0.1  # If the times of audio jump by more, packets were lost. A smaller jump is rounding.
BLOCK_S = 10.0  # The longest block of silence or of several tracks.
PLANES = 8  # A frame with so many planes has no end mark behind them, and PyAV would read beyond the last one.
TRACKS_DIFFER_S = 0.1  # Microphones of one recorder begin and end together.
MAX_TRACKS = 64  # Each track is read from an open file of its own.


@dataclass(frozen=True)
class AudioTrackInfo:
    """Description of the audio that `audio_track_blocks` returns.

    channels: Number of channels, M.
    sample_rate: In hertz.
    seconds: From time 0 to the end of the decoded audio.
    codec: FFmpeg's name of the codec.
    unused: What of the file's audio is not decoded, as a sentence. Empty: nothing.
    """

    channels: int
    sample_rate: int
    seconds: float
    codec: str
    unused: str = ""


@dataclass(frozen=True)
class Header:
    """What the header of a file contains about its audio, before anything is decoded.

    stated_s: End of the audio in seconds, if the header contains it exactly. It may be wrong.
    unused: What of the file's audio is not decoded, as a sentence. Empty: nothing.
    """

    codec: str
    stated_s: float | None
    unused: str = ""


@dataclass(frozen=True)
class Lengths:
    """What decoding the audio and reading the video packets of a file shows.

    channels, audio_s: Number of channels of the main audio track and its end, in seconds. None: there is no audio.
    video_s: End of the video packets in seconds. None: there is no video, or its index contains the length.
    """

    channels: int | None
    audio_s: float | None
    video_s: float | None


@isolated
def audio_track_info(path: Path) -> AudioTrackInfo | None:
    """Describe only the audio of a media file. Returns None if there is none.

    Raises:
        FarfeelError: The file cannot be read.
    """
    with open_container(path, kind="audio") as container:
        return track_info(path, container)


def track_info(path: Path, container: InputContainer) -> AudioTrackInfo | None:
    """The same, of a container that is open already."""
    tracks = microphone_tracks(container)
    if not tracks:
        return None
    main, lengths = tracks[0], lengths_of(path)
    channels = len(tracks) if len(tracks) > 1 else lengths.channels or main.channels
    return AudioTrackInfo(channels, main.rate, lengths.audio_s or 0.0, main.name or "", _unused(container))


@isolated
def read_header(path: Path) -> Header | None:
    """The header of the main audio track. None: the file has no audio."""
    with open_container(path, kind="audio") as container:
        audio = audio_stream(container)
        if audio is None:
            return None
        return Header(audio.name or "", exact_end_s(container, audio), _unused(container))


def lengths_of(path: Path) -> Lengths:
    """Decode the audio of a file and count its samples. A file that was counted already is not decoded again."""
    stat = os.stat(path)
    return _lengths_of(str(path), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def read_audio_track(path: Path, start_s: float = 0.0, end_s: float | None = None) -> tuple[np.ndarray, int]:
    """Read all channels of the audio of a media file.

    Zeros are inserted if the audio begins later than the video.

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


@isolated_blocks
def audio_track_blocks(
    path: Path, start_s: float = 0.0, end_s: float | None = None
) -> Generator[tuple[np.ndarray, int]]:
    """The result of `read_audio_track` in blocks of any size, as they are decoded. The first block is empty."""
    with open_container(path, kind="audio") as container:
        tracks = [track.index for track in microphone_tracks(container)]
        if not tracks:
            raise FarfeelError(f"{path} has video but no audio, expected an audio track; use a file with audio")
        if len(tracks) == 1:
            yield from _track_blocks(path, container, tracks[0], start_s, end_s)
            return
    yield from _stacked(path, tracks, start_s, end_s)


def microphone_tracks(container: InputContainer) -> list[AudioStream]:
    """The audio tracks to decode: all mono tracks if they are alike, because a recorder writes one for each microphone.

    Otherwise only the main track: a video may have one track for each language.
    """
    main = audio_stream(container)
    if main is None:
        return []
    tracks = audio_streams(container)
    alike = all(_is_like(track, main) for track in tracks)
    return tracks if 1 < len(tracks) <= MAX_TRACKS and main.channels == 1 and alike else [main]


def _unused(container: InputContainer) -> str:
    """Which audio tracks are not decoded."""
    tracks, used = audio_streams(container), microphone_tracks(container)
    if len(tracks) == len(used):
        return ""
    number = [track.index for track in tracks].index(used[0].index) + 1
    return f"only audio track {number} of {len(tracks)} is used: the tracks are not microphones of one recording"


def _is_like(track: AudioStream, main: AudioStream) -> bool:
    """Whether two tracks may be two microphones of one recording."""
    starts = [(each.start_time or 0) * tick_s(each) for each in (track, main)]
    lengths = [stream_duration_s(each) or 0.0 for each in (track, main)]
    forms = [(each.channels, each.rate, each.name, each.metadata.get("language")) for each in (track, main)]
    return (
        forms[0] == forms[1]
        and abs(starts[0] - starts[1]) <= TRACKS_DIFFER_S
        and abs(lengths[0] - lengths[1]) <= TRACKS_DIFFER_S
    )


def _stacked(path: Path, tracks: list[int], start_s: float, end_s: float | None) -> Iterator[tuple[np.ndarray, int]]:
    """Several mono tracks as the channels of one recording, until the first of them ends."""
    with ExitStack() as files:
        readers = []
        for index in tracks:
            container = files.enter_context(open_container(path, kind="audio"))
            readers.append(_track_blocks(path, container, index, start_s, end_s))
        waiting = [np.zeros((1, 0), np.float32) for _ in tracks]
        rate = next(rate for _, rate in readers[0])
        yield np.zeros((len(tracks), 0), np.float32), rate
        size = round(BLOCK_S * rate)
        is_open = True
        while is_open:
            for i, reader in enumerate(readers):
                parts = [waiting[i]]
                while sum(part.shape[1] for part in parts) < size:
                    following = next(reader, None)
                    if following is None:
                        is_open = False
                        break
                    parts.append(following[0])
                waiting[i] = np.concatenate(parts, axis=1)
            length = min(part.shape[1] for part in waiting)
            if length:
                yield np.concatenate([part[:, :length] for part in waiting]), rate
            waiting = [part[:, length:] for part in waiting]


def _track_blocks(
    path: Path, container: InputContainer, index: int, start_s: float, end_s: float | None
) -> Iterator[tuple[np.ndarray, int]]:
    """One track in blocks, the first of them empty. Zeros replace lost audio, so that later audio keeps its time."""
    audio = next(stream for stream in container.streams.audio if stream.index == index)
    channels, rate, tick = audio.channels, audio.rate, tick_s(audio)
    zero_s = clock_zero_s(container, audio)
    discard_others(container, audio)
    next_sample, stop = round(start_s * rate), None if end_s is None else round(end_s * rate)
    first_tick = math.floor((zero_s + Fraction(max(start_s - PREROLL_S, 0))) / tick)
    padding = np.zeros((channels, 0), dtype=np.float32)
    clock, to_packed = _Clock(container, audio, start_s), _Packer(rate)
    for frame in _frames_from(container, audio, first_tick):
        pts = frame.pts
        samples = to_packed(frame)
        if clock.end is None:
            channels = len(samples)
            padding = np.zeros((channels, 0), dtype=np.float32)
            yield padding, rate
        begin = clock.place(pts, samples.shape[1])
        end = begin + samples.shape[1]
        if stop is not None and begin >= stop:
            return
        if end <= next_sample:
            continue
        if len(samples) != channels:
            raise FarfeelError(
                f"{path} changes from {channels} to {len(samples)} channels, expected one number of channels; "
                "cut the file at the change"
            )
        if padding.shape[1]:  # It was none: the recording goes on.
            yield padding, rate
        while begin > next_sample:
            silent = min(begin - next_sample, round(BLOCK_S * rate))
            yield np.zeros((channels, silent), np.float32), rate
            next_sample += silent
        block = samples[:, max(next_sample - begin, 0) : None if stop is None else stop - begin]
        used = max(block.shape[1] - max(min(end, stop or end) - clock.length, 0), 0)
        padding = block[:, used:]
        yield block[:, :used], rate
        next_sample = end
    if clock.end is None:
        yield np.zeros((channels, 0), dtype=np.float32), rate


class _Clock:
    """Finds the index of the first sample of each decoded block, counted from time 0.

    end: Index of the sample after the last block. None: there was no block yet.

    Stated times are rounded to ticks, so counting samples is more exact. But counting fails where packets were lost.
    Where the times go back, or far ahead, a clock was set or another recording begins: its audio follows.
    """

    def __init__(self, container: InputContainer, audio: AudioStream, start_s: float = 0.0) -> None:
        zero_s = clock_zero_s(container, audio)
        self._tick, self._zero_s, self.rate = tick_s(audio), zero_s, audio.rate
        self._latest = round((MAX_JUMP_S + start_s) * audio.rate)  # for the first block
        self._shift = self._block = 0
        self._stated_end: int | None = None
        duration_s = stream_duration_s(audio)
        if duration_s is not None and is_one_of(container, "mov"):
            self._stated_end = round((float((audio.start_time or 0) * self._tick - zero_s) + duration_s) * audio.rate)
        self.end: int | None = None

    def place(self, pts: int | None, samples: int) -> int:
        """The index of the first sample of the next block."""
        end = self.end or 0
        begin = end if pts is None else round((pts * self._tick - self._zero_s) * self.rate) + self._shift
        jump = begin - end
        is_first = self.end is None
        is_reset = begin > self._latest if is_first else jump <= -LOST_S * self.rate or jump > MAX_JUMP_S * self.rate
        if is_reset:
            self._shift -= jump
        if is_reset or (not is_first and abs(jump) < LOST_S * self.rate):
            begin = end
        self.end, self._block = begin + samples, samples
        return begin

    @property
    def length(self) -> int:
        """Index of the sample after the last one that was recorded.

        A codec fills its last block. An MP4 states where the recording ends in that block.
        """
        end = self.end or 0
        return self._stated_end if self._stated_end and end - self._block < self._stated_end < end else end


class _Packer:
    """Decoded frames → (M, T) float32 in [-1, 1], at one sample rate."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._form: tuple[str, str, int] | None = None
        self._resampler: av.AudioResampler | None = None

    def __call__(self, frame: AudioFrame) -> np.ndarray:
        channels = len(frame.layout.channels)
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if frame.sample_rate == self._rate and not (frame.format.is_planar and channels >= PLANES):
            return _to_float(frame, channels)
        if form != self._form:
            self._form = form
            self._resampler = av.AudioResampler(frame.format.packed.name, frame.layout, self._rate)
        assert self._resampler is not None
        packed = [_to_float(each, channels) for each in self._resampler.resample(frame)]
        return np.concatenate(packed, axis=1) if packed else np.zeros((channels, 0), np.float32)


def _to_float(frame: AudioFrame, channels: int) -> np.ndarray:
    """Samples of any format → (M, T) float32 in [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return (samples / 2.0 ** (8 * samples.dtype.itemsize - 1)).astype(np.float32)
    return samples.astype(np.float32)


def _frames_from(container: InputContainer, audio: AudioStream, tick: int) -> Iterator[AudioFrame]:
    """Decoded blocks of audio. The first one begins at `tick` or before it."""
    min_seek_s = PREROLL_S if tick_s(audio) * audio.rate <= 1 else NO_SEEK_S
    if not is_one_of(container, WITHOUT_CLOCK) and (tick - (audio.start_time or 0)) * tick_s(audio) > min_seek_s:
        if seek(container, audio, tick):
            frames = decode_stream(container, audio)
            first = next(frames, None)
            if first is not None and first.pts is not None and first.pts <= tick:
                yield first
                yield from frames
                return
        container.seek(0)  # Some containers have no index, so that a seek goes too far.
    yield from decode_stream(container, audio)


@lru_cache(maxsize=256)
def _lengths_of(path: str, *_: int) -> Lengths:
    """`path` and what changes if its content changes."""
    with open_container(Path(path), kind="audio or video") as container:
        video, audio = video_stream(container), audio_stream(container)
        # The index of an MP4 contains all times of its video, so that its packets need not be read.
        counted = None if video is None or is_one_of(container, "mov") else video
        streams = [stream for stream in (counted, audio) if stream is not None]
        discard_others(container, *streams)
        ends = PacketEnd(container, counted) if counted is not None else None
        clock = None if audio is None else _Clock(container, audio)
        channels: int | None = None
        for packet in read_packets(container, *streams) if streams else ():
            if ends is not None and counted is not None and packet.stream.index == counted.index:
                ends.note(packet)
            elif clock is not None:
                for frame in decode_packet(audio, packet):
                    channels = _count(frame, clock, channels)
        if clock is not None:
            for frame in decode_packet(audio, None):
                channels = _count(frame, clock, channels)
        audio_s = None if clock is None else clock.length / clock.rate
        return Lengths(channels, audio_s, None if ends is None else ends.seconds)


def _count(frame: AudioFrame, clock: _Clock, channels: int | None) -> int:
    clock.place(frame.pts, frame.samples * clock.rate // frame.sample_rate)
    return channels or len(frame.layout.channels)
