"""Media containers, read with FFmpeg (PyAV): video and audio streams, packets, decoded frames.

The content of a file alone decides about its format. File names and references inside a file are never followed, so a
playlist that is disguised as a video opens no other file. Decoding uses one thread, because several processes decode at
the same time. Time 0 is the first video frame. Times of a stream are counted in ticks, the time unit of that stream.
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

# FFmpeg's names of the accepted formats. None of them refers to other files, as playlists (hls, dash, concat) do.
FORMATS = (
    "mov,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,gif,ogg,dv,mxf,ivf,h264,hevc,m4v,mjpeg,jpeg_pipe,png_pipe,"
    "webp_pipe,bmp_pipe,tiff_pipe,wav,w64,aiff,caf,au,flac,mp3,aac,ac3,amr,amrnb,amrwb,wv"
)
EXPECTED = "expected MP4, MOV, MKV, WebM, AVI, FLV, MPEG, WMV or GIF"
MAX_GAP_S = 0.5  # A longer gap without frames counts as damage.
MAX_PIXELS = 2**26  # Twice as many as 8K. A header that claims more would exhaust the memory.


@contextmanager
def open_container(path: Path, skip_probing: bool = False) -> Iterator[InputContainer]:
    """Context manager: the open container of a file.

    Args:
        path: The media file.
        skip_probing: Do not decode the first frames if the header already describes the video.

    Raises:
        FarfeelError: The file is missing or empty, or FFmpeg fails on it, also later while the container is in use.
    """
    path = Path(path)
    options = {"format_whitelist": FORMATS, "max_pixels": str(MAX_PIXELS), "threads": "1"}
    try:
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
            raise FarfeelError(f"{path} {problem}; expected a video file; check the path")
        if path.stat().st_size == 0:
            raise FarfeelError(f"{path} is empty (0 bytes), expected a video file; copy it again")
        with path.open("rb", buffering=0) as file:
            if skip_probing:
                with _container(file, options | {"skip_frame": "all"}) as container:
                    video = video_stream(container)
                    if video is not None and video.width and video.start_time is not None:
                        yield container
                        return
                file.seek(0)
            with _container(file, options) as container:
                yield container
    except (FFmpegError, OSError, ValueError) as error:
        if isinstance(error, UnicodeEncodeError):
            raise FarfeelError(f"the file name {str(path)!r} is not valid UTF-8; rename the file") from None
        reason = (getattr(error, "strerror", None) or str(error)).strip().rstrip(".")
        raise FarfeelError(
            f"{path} cannot be read as video ({reason}); {EXPECTED}; copy it again or convert it"
        ) from None


class _NamelessFile:
    """An open file without its name. FFmpeg would use the name as a hint of the format, or as a pattern."""

    def __init__(self, file: Any) -> None:
        self._file, self.read, self.tell = file, file.read, file.tell

    def seek(self, offset: int, whence: int) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError:
            return -errno.EINVAL  # PyAV would print an exception that was raised here to stderr.


def _container(file: Any, options: dict[str, str]) -> InputContainer:
    container = av.open(
        _NamelessFile(file),
        "r",
        options=options,
        metadata_errors="replace",
        buffer_size=2**16,
        io_open=_refuse_reference,
    )
    for stream in container.streams:
        if stream.codec_context is not None:
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return container


def _refuse_reference(url: str, flags: int, options: dict[str, str]) -> None:
    raise PermissionError(1, "it refers to other files")


def video_stream(container: InputContainer) -> VideoStream | None:
    """The main video stream, or None. Cover pictures of audio files do not count."""
    candidates = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    if not candidates:
        return None
    best = _best_stream(container, "video")
    return next((stream for stream in candidates if best is not None and stream.index == best.index), candidates[0])


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The main audio stream, or None."""
    streams = container.streams.audio
    candidates = [stream for stream in streams if stream.codec_context and stream.rate and stream.channels]
    if not candidates:
        return None
    best = _best_stream(container, "audio")
    return next((stream for stream in candidates if best is not None and stream.index == best.index), candidates[0])


def _best_stream(container: InputContainer, kind: Literal["video", "audio"]) -> Stream | None:
    try:
        return container.streams.best(kind)
    except IndexError:
        return None  # In a damaged file, FFmpeg may choose a stream that appeared after the container was opened.


def tick_s(stream: Stream) -> Fraction:
    """Seconds per tick, the stream's unit of time."""
    return stream.time_base or Fraction(1, av.time_base)


def origin_s(container: InputContainer) -> Fraction:
    """Time 0 on the container's own clock: the first video frame or, without video, the first audio sample."""
    first: Stream | None = video_stream(container) or audio_stream(container)
    return Fraction(0) if first is None else (first.start_time or 0) * tick_s(first)


def stream_duration_s(stream: Stream) -> float | None:
    """Duration of a stream in seconds, or None if the header does not contain it."""
    return float(stream.duration * tick_s(stream)) if stream.duration else None


def container_duration_s(container: InputContainer) -> float:
    """Duration in seconds. If the header lacks it, as in recordings made by browsers, all packets are read."""
    if container.duration:
        return container.duration / av.time_base
    seconds = _packets_end_s(container)
    container.seek(0)
    return seconds


def is_complete(path: Path) -> bool:
    """Whether at least one stream lasts as long as the header says. True if the header says nothing."""
    with open_container(path) as container:
        return _packets_end_s(container) >= (container.duration or 0) / av.time_base - MAX_GAP_S


def _packets_end_s(container: InputContainer) -> float:
    ends = (
        (packet.pts + (packet.duration or 0)) * tick_s(packet.stream)
        for packet in read_packets(container)
        if packet.pts
    )
    return max(float(max(ends, default=Fraction(0)) - origin_s(container)), 0.0)


def seek(container: InputContainer, stream: Stream, tick: int) -> bool:
    """Go to the key frame before a tick. Returns False if the container cannot seek."""
    try:
        container.seek(tick, stream=stream)
    except (FFmpegError, OSError):
        return False
    return True


def read_packets(container: InputContainer, *streams: Stream) -> Iterator[av.Packet]:
    """The packets of some streams (default: all), until the file ends or is too damaged to go on."""
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, FFmpegError, IndexError):  # IndexError: a stream appeared in a damaged file.
            return
        if packet.size:
            yield packet


def decode_packet(stream: Any, packet: av.Packet | None) -> list[Any]:
    """Frames decoded from a packet, none if it is damaged. With None, the frames left in the decoder are returned."""
    try:
        return stream.codec_context.decode(packet)
    except FFmpegError:
        return []


def decode_stream(container: InputContainer, stream: Stream) -> Iterator[Any]:
    """All frames of a stream, from the container's current position on."""
    for packet in read_packets(container, stream):
        yield from decode_packet(stream, packet)
    yield from decode_packet(stream, None)
