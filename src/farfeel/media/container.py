"""Media containers, read with FFmpeg (PyAV): video and audio streams, packets, decoded frames.

The content of a file alone decides about its format. File names and references inside a file are never followed, so a
playlist that is disguised as a video opens no other file. Decoding uses one thread, because several processes decode at
the same time. Time 0 is the beginning of the audio or of the video, whichever comes first. Times of a stream are
counted in ticks, the time unit of that stream.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from farfeel.types import FarfeelError

# FFmpeg's names of the accepted formats. None of them refers to other files, as playlists (hls, dash, concat) do, and
# none is a guess about a file without a header.
AUDIO_FORMATS = (
    "wav,w64,aiff,caf,au,flac,ogg,mp3,aac,ac3,eac3,dts,dtshd,truehd,amr,amrnb,amrwb,wv,ape,tta,tak,mpc,mpc8,gsm,"
    "nistsphere,voc,ircam,sox,dsf,oma,qcp,loas,avr,pvf"
)
VIDEO_FORMATS = (
    "mov,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,gif,dv,mxf,gxf,ivf,obu,h261,h263,h264,hevc,m4v,vc1,mjpeg,nut,rm,"
    "yuv4mpegpipe,wtv"
)
PICTURE_FORMATS = "jpeg_pipe,png_pipe,apng,webp_pipe,bmp_pipe,tiff_pipe,ppm_pipe,pgm_pipe"
FORMATS = f"{AUDIO_FORMATS},{VIDEO_FORMATS},{PICTURE_FORMATS}"
WITHOUT_CLOCK = (
    "h261,h263,h264,hevc,m4v,vc1,mjpeg,mpegvideo,obu,aac,ac3,eac3,dts,dtshd,truehd,amr,amrnb,amrwb,mp3,gsm,loas,ogg,rm"
)
"""Formats whose times FFmpeg estimates, or whose times begin again within a file. A seek is not exact there."""
EXACT = "mov,matroska,avi,flv,asf,wav,w64,aiff,caf,au,flac,mxf,nut,nistsphere,wv,tta,ape"
"""Formats whose header contains the exact length. In all others FFmpeg estimates it."""
Kind = Literal["audio", "video", "audio or video"]
EXPECTED = "expected MP4, MOV, MKV, WebM, AVI, FLV, MPEG, WMV or GIF"
EXPECTED_OF = {
    "audio": "expected WAV, FLAC, OGG, MP3, M4A or a video",
    "video": EXPECTED,
    "audio or video": "expected audio (WAV, FLAC, OGG, MP3, M4A) or a video (MP4, MOV, MKV, WebM, AVI, GIF)",
}
MAX_GAP_S = 0.5  # A longer gap without frames counts as damage.
MAX_JUMP_S = 600.0  # A longer jump of the times is a clock that was set, not a pause.
MAX_PIXELS = 2**26  # Twice as many as 8K. A header that claims more would exhaust the memory.
METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""PyAV 19 replaces characters that are not UTF-8 by itself."""


def _unknown_side_data(cls: Any, value: object) -> Any:
    """A member for a type of side data that FFmpeg knows and PyAV does not. PyAV 19 makes such members by itself.

    Without it, a photo with Exif data raises ValueError as soon as any of its side data is used.
    """
    if not isinstance(value, int):
        return None
    member = object.__new__(cls)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return cls._value2member_map_.setdefault(value, member)


if "_missing_" not in vars(SideDataType):
    SideDataType._missing_ = classmethod(_unknown_side_data)  # type: ignore[method-assign,assignment]


@contextmanager
def open_container(path: Path, skip_probing: bool = False, kind: Kind = "video") -> Iterator[InputContainer]:
    """Context manager: the open container of a file.

    Args:
        path: The media file.
        skip_probing: Do not decode the first frames if the header already describes the video.
        kind: What the file is expected to be, for the error.

    Raises:
        FarfeelError: The file is missing or empty, or FFmpeg fails on it, also later while the container is in use.
    """
    path = Path(path)
    options = {"format_whitelist": FORMATS, "max_pixels": str(MAX_PIXELS), "threads": "1"}
    try:
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
            raise FarfeelError(f"{path} {problem}; expected {_a(kind)} file; check the path")
        if path.stat().st_size == 0:
            raise FarfeelError(f"{path} is empty (0 bytes), expected {_a(kind)} file; copy it again")
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
    except FOREIGN as error:
        if isinstance(error, UnicodeEncodeError):
            raise FarfeelError(f"the file name {str(path)!r} is not valid UTF-8; rename the file") from None
        reason = (getattr(error, "strerror", None) or str(error)).strip().rstrip(".")
        if not isinstance(error, FFmpegError | OSError | ValueError):
            reason = f"damaged: {type(error).__name__}"
        raise FarfeelError(
            f"{path} cannot be read as {kind} ({reason}); {EXPECTED_OF[kind]}; copy it again or convert it"
        ) from None


FOREIGN = (FFmpegError, OSError, ValueError, ArithmeticError, LookupError, TypeError, struct.error)
"""What PyAV raises about damaged files: also for times that do not fit, streams that appear late, values that lack."""


def _a(kind: Kind) -> str:
    return "an audio" if kind == "audio" else "a video" if kind == "video" else "an audio or video"


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
        buffer_size=2**16,
        io_open=_refuse_reference,
        **METADATA,
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


def audio_streams(container: InputContainer) -> list[AudioStream]:
    """The audio streams that can be decoded."""
    streams = container.streams.audio
    return [stream for stream in streams if stream.codec_context and stream.rate and stream.channels]


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The main audio stream, or None."""
    candidates = audio_streams(container)
    if not candidates:
        return None
    best = _best_stream(container, "audio")
    return next((stream for stream in candidates if best is not None and stream.index == best.index), candidates[0])


def _best_stream(container: InputContainer, kind: Literal["video", "audio"]) -> Stream | None:
    try:
        return container.streams.best(kind)
    except IndexError:
        return None  # In a damaged file, FFmpeg may choose a stream that appeared after the container was opened.


def is_one_of(container: InputContainer, formats: str) -> bool:
    """Whether the format of a container is in a list. FFmpeg has several names for some formats."""
    return not set(container.format.name.split(",")).isdisjoint(formats.split(","))


def fraction_of(ratio: Any) -> Fraction | None:
    """A ratio of PyAV, whose type depends on its version, as a Fraction. None if it is missing, zero or infinite."""
    if ratio is None or not ratio.numerator or not ratio.denominator:
        return None
    return Fraction(ratio.numerator, ratio.denominator)


def tick_s(stream: Stream) -> Fraction:
    """Seconds per tick, the stream's unit of time."""
    return fraction_of(stream.time_base) or Fraction(1, av.time_base)


def clock_zero_s(container: InputContainer, stream: Stream | None) -> Fraction:
    """Time 0 of the recording on the clock of a stream: the beginning of the audio or of the video, the earlier one.

    Streams that begin more than MAX_JUMP_S apart have different clocks. Each then begins at time 0.
    """
    starts = [
        (each.start_time or 0) * tick_s(each) for each in (video_stream(container), audio_stream(container)) if each
    ]
    if stream is None:
        return min(starts, default=Fraction(0))
    own = (stream.start_time or 0) * tick_s(stream)
    first = min(starts, default=own)
    return first if own - first <= MAX_JUMP_S else own


def stream_duration_s(stream: Stream) -> float | None:
    """Duration of a stream in seconds, or None if the header does not contain it."""
    return float(stream.duration * tick_s(stream)) if stream.duration else None


def exact_end_s(container: InputContainer, stream: Stream) -> float | None:
    """The end of a stream in seconds after time 0, if the header contains it. None: unknown, or only an estimate."""
    if not is_one_of(container, EXACT):
        return None
    zero_s = clock_zero_s(container, stream)
    duration_s = stream_duration_s(stream)
    if duration_s is not None:
        return float((stream.start_time or 0) * tick_s(stream) - zero_s) + duration_s
    stated_s = (container.duration or 0) / av.time_base
    # A container counts its duration from its own zero. That is a wall clock's in some recordings.
    return (stated_s - float(zero_s) if 0 < zero_s <= stated_s else stated_s) or None


def is_complete(path: Path) -> bool:
    """Whether at least one stream lasts as long as the header says. True if the header contains no exact length."""
    if _is_whole_matroska(Path(path)):
        return True
    with open_container(path, kind="audio or video") as container:
        streams = [stream for stream in (video_stream(container), audio_stream(container)) if stream is not None]
        stated_s = max((exact_end_s(container, stream) or 0.0 for stream in streams), default=0.0)
        ends_s = {stream.index: PacketEnd(container, stream) for stream in streams}
        for packet in read_packets(container, *streams):
            ends_s[packet.stream.index].note(packet)
        return max((end.seconds for end in ends_s.values()), default=0.0) >= stated_s - MAX_GAP_S


def _is_whole_matroska(path: Path) -> bool:
    """Whether a Matroska file has all bytes that it states, or states none. Its duration is only a remark."""
    with path.open("rb") as file:
        begin, size = file.read(128), file.seek(0, 2)
    if not begin.startswith(b"\x1a\x45\xdf\xa3"):
        return False
    mark = begin.find(b"\x18\x53\x80\x67")  # the element Segment, which contains everything else
    if mark < 0 or len(begin) < mark + 12:
        return False
    width = 9 - begin[mark + 4].bit_length()  # The first set bit of a number states how many bytes it has.
    unknown = (1 << 7 * width) - 1
    stated = int.from_bytes(begin[mark + 4 : mark + 4 + width]) & unknown
    return stated == unknown or mark + 4 + width + stated <= size


class PacketEnd:
    """The end of the packets of one stream, in seconds after time 0."""

    def __init__(self, container: InputContainer, stream: Stream) -> None:
        self._tick, self._zero_s = tick_s(stream), clock_zero_s(container, stream)
        self._last: Fraction | None = None  # end of the packets with times
        self._counted = Fraction(0)  # sum of the durations of the packets without times

    def note(self, packet: av.Packet) -> None:
        """Count a packet."""
        duration = (packet.duration or 0) * self._tick
        if packet.pts is None:
            self._counted += duration
            return
        end = packet.pts * self._tick - self._zero_s + duration
        if self._last is None or 0 < end - self._last <= MAX_JUMP_S:
            self._last = end

    @property
    def seconds(self) -> float:
        """The end so far."""
        return max(float((self._last or 0) + self._counted), 0.0)


def discard_others(container: InputContainer, *streams: Stream) -> None:
    """Skip the packets of all other streams while the file is read."""
    discard = getattr(av.stream, "Discard", None)
    if discard is None:  # before PyAV 18: the packets are read, and `read_packets` leaves them out
        return
    kept = {stream.index for stream in streams}
    for stream in container.streams:
        if stream.index not in kept:
            stream.discard = discard.all


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
