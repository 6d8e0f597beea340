"""Containers opened with FFmpeg (PyAV): their film, their sound, packets and what is decoded from them.

What a file is, is told by its content alone: neither its name nor a reference inside it is followed, so that a playlist
in the clothes of a film opens nothing else. One thread: several processes decode at once. A film's moment 0 is its
first frame's; times are counted in ticks, the unit of each stream.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from farfeel.types import FarfeelError

FORMATS = (  # FFmpeg's names. None of them names other files, as playlists (hls, dash, concat) and patterns do.
    "mov,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,gif,ogg,dv,mxf,ivf,h264,hevc,m4v,mjpeg,jpeg_pipe,png_pipe,"
    "webp_pipe,bmp_pipe,tiff_pipe,wav,w64,aiff,caf,au,flac,mp3,aac,ac3,amr,amrnb,amrwb,wv"
)
EXPECTED = "expected MP4, MOV, MKV, WebM, AVI, FLV, MPEG, WMV or GIF"
MISSING_S = 0.5  # Frames gone for longer are damage, for less a hiccup.
MAX_PIXELS = 2**26  # 8K has half as many; a header that promises more is a trap for the memory


@contextmanager
def opened(path: Path, quick: bool = False) -> Iterator[InputContainer]:
    """The container, closed in the end; whatever FFmpeg finds wrong with it meanwhile is a FarfeelError.

    `quick`: without the trial decoding of the first frames, where the header tells enough.
    """
    path = Path(path)
    options = {"format_whitelist": FORMATS, "max_pixels": str(MAX_PIXELS), "threads": "1"}
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "is no file on a disk" if path.exists() else "does not exist"
            raise FarfeelError(f"{path} {found}; expected a film; check the path")
        if path.stat().st_size == 0:
            raise FarfeelError(f"{path} is empty (0 bytes), expected a film; copy it again")
        with path.open("rb", buffering=0) as file:
            if quick:
                with _container(file, options | {"skip_frame": "all"}) as container:
                    film = film_of(container)
                    if film is not None and film.width and film.start_time is not None:
                        yield container
                        return
                file.seek(0)
            with _container(file, options) as container:
                yield container
    except (FFmpegError, OSError, ValueError) as error:
        if isinstance(error, UnicodeEncodeError):
            raise FarfeelError(f"{str(path)!r} is not a name in UTF-8; rename the file") from None
        reason = (getattr(error, "strerror", None) or str(error)).strip().rstrip(".")
        raise FarfeelError(f"{path} cannot be read as film ({reason}); {EXPECTED}; copy or convert it") from None


class _Bytes:
    """An open file without its name, which FFmpeg would take for a hint or a pattern."""

    def __init__(self, file: Any) -> None:
        self._file, self.read, self.tell = file, file.read, file.tell

    def seek(self, offset: int, whence: int) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError:
            return -errno.EINVAL  # An exception would be printed: PyAV hands on one, and prints what it held before.


def _container(file: Any, options: dict[str, str]) -> InputContainer:
    container = av.open(
        _Bytes(file), "r", options=options, metadata_errors="replace", buffer_size=2**16, io_open=_refuse_reference
    )
    for stream in container.streams:
        if stream.codec_context is not None:
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return container


def _refuse_reference(url: str, flags: int, options: dict[str, str]) -> None:
    raise PermissionError(1, "it refers to other files")


def film_of(container: InputContainer) -> VideoStream | None:
    """The film, not the picture on a record's cover."""
    films = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    if not films:
        return None
    best = _best(container, "video")
    return next((stream for stream in films if best is not None and stream.index == best.index), films[0])


def sound_of(container: InputContainer) -> AudioStream | None:
    sounds = [stream for stream in container.streams.audio if stream.codec_context and stream.rate and stream.channels]
    if not sounds:
        return None
    best = _best(container, "audio")
    return next((stream for stream in sounds if best is not None and stream.index == best.index), sounds[0])


def _best(container: InputContainer, kind: Literal["video", "audio"]) -> Stream | None:
    try:
        return container.streams.best(kind)
    except IndexError:
        return None  # In a damaged file it is one that came up after the container was opened.


def tick_s(stream: Stream) -> Fraction:
    """Seconds per unit of the stream's times."""
    return stream.time_base or Fraction(1, av.time_base)


def zero_s(container: InputContainer) -> Fraction:
    """Moment 0 in the container's clock: the film's first frame or, without a film, the first sample."""
    leader: Stream | None = film_of(container) or sound_of(container)
    return Fraction(0) if leader is None else (leader.start_time or 0) * tick_s(leader)


def length_s(stream: Stream) -> float | None:
    return float(stream.duration * tick_s(stream)) if stream.duration else None


def container_s(container: InputContainer) -> float:
    """Its seconds; without a promise in the header, as in a browser's recordings, by reading the packets."""
    if container.duration:
        return container.duration / av.time_base
    seconds = _packets_end_s(container)
    container.seek(0)
    return seconds


def is_whole(path: Path) -> bool:
    """Does some stream go on until the end that the header promises, if it promises one?"""
    with opened(path) as container:
        return _packets_end_s(container) >= (container.duration or 0) / av.time_base - MISSING_S


def _packets_end_s(container: InputContainer) -> float:
    ends = (
        (packet.pts + (packet.duration or 0)) * tick_s(packet.stream) for packet in packets_of(container) if packet.pts
    )
    return max(float(max(ends, default=Fraction(0)) - zero_s(container)), 0.0)


def seek(container: InputContainer, stream: Stream, tick: int) -> bool:
    """To the key frame before; False where the container has no way to."""
    try:
        container.seek(tick, stream=stream)
    except (FFmpegError, OSError):
        return False
    return True


def packets_of(container: InputContainer, *streams: Stream) -> Iterator[av.Packet]:
    """Packets to the end of the file, or to where it is cut off or beyond repair."""
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError, IndexError):  # The last where a damaged file grew streams meanwhile.
            return
        if packet.size:
            yield packet


def decoded(stream: Any, packet: av.Packet | None) -> list[Any]:
    """The frames that come out; none where the packet is damaged. None as packet: those that are left inside."""
    try:
        return stream.codec_context.decode(packet)
    except FFmpegError:
        return []


def all_frames(container: InputContainer, stream: Stream) -> Iterator[Any]:
    for packet in packets_of(container, stream):
        yield from decoded(stream, packet)
    yield from decoded(stream, None)
