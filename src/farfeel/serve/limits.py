"""The limits of a server, and the exception that refuses a request."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 2**20


class Refusal(Exception):  # noqa: N818 - a response, not a failure of the server
    """Refuses a request.

    Args:
        status: HTTP status of the response.
        detail: One sentence: what was found, what was expected, the remedy.
        retry_s: Seconds after which the client may try again.
    """

    def __init__(self, status: int, detail: str, retry_s: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_s = status, detail, retry_s


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    megabytes: Size of an upload. The default is half an hour of low-quality video from a telephone.
    seconds: Length of a recording.
    channels: Number of audio channels.
    workers: Recordings processed at a time, and also the number of live streams at a time.
    queue: Recordings that may wait in addition.
    uploads: Uploads at a time. They are counted apart from the recordings.
    windows: Windows of a timeline. Each one is work for the network.
    decode_s: Time of a worker, without its wait for the network.
    memory_mb: Memory of a worker. The default is enough for two copies of two minutes of 16 channels at 48 kHz.
    header_s: Time for the header of a request, and for the first message of a stream.
    upload_s: Time for an upload.
    stall_s: Span of time in which the rate of an upload is measured.
    upload_kb_s: Lowest rate of an upload over `stall_s`, in KB (1024 bytes) per second.
    idle_s: Time between two messages of a stream, and the span in which its pace is measured.
    stream_pace: Seconds of audio that a stream must send per second, over `idle_s`.
    stream_s: Length of the audio in a stream.
    """

    megabytes: float = 100.0
    seconds: float = 600.0
    channels: int = 16
    workers: int = 2
    queue: int = 8
    uploads: int = 256
    windows: int = 1200
    decode_s: float = 60.0
    memory_mb: int = 2048
    header_s: float = 10.0
    upload_s: float = 120.0
    stall_s: float = 15.0
    upload_kb_s: float = 4.0
    idle_s: float = 30.0
    stream_pace: float = 0.1
    stream_s: float = 3600.0

    @property
    def bytes(self) -> int:
        """Size of an upload in bytes."""
        return round(self.megabytes * MEGABYTE)

    @property
    def slots(self) -> int:
        """Recordings that are processed or wait."""
        return self.workers + self.queue

    @property
    def stored_bytes(self) -> int:
        """Size of all uploads to the REST interface at a time. The files of the page may take as much again."""
        return self.slots * self.bytes

    @property
    def stall_bytes(self) -> float:
        """Bytes that an upload must send in each span of `stall_s`."""
        return self.upload_kb_s * 1024 * self.stall_s
