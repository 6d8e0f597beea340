"""What one server takes, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 2**20


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """An answer that is no prediction: an HTTP status and a sentence."""

    def __init__(self, status: int, detail: str, retry_s: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_s = status, detail, retry_s


@dataclass(frozen=True)
class Limits:
    """Of one request; `workers` and `queue` of all together."""

    megabytes: float = 100.0  # of a body: half an hour of film from a telephone in low quality
    seconds: float = 600.0  # of a recording
    channels: int = 16
    workers: int = 2  # recordings being worked on at a time, and as many live streams
    queue: int = 8  # recordings that are uploaded or wait meanwhile
    windows: int = 1200  # of a timeline: what keeps the network busy
    decode_s: float = 60.0  # of a worker, not counting its wait for the network
    memory_mb: int = 2048  # of a worker: 16 channels for two minutes at 48 kHz, and two copies of them
    upload_s: float = 120.0  # for a body to arrive
    stall_s: float = 15.0  # between two pieces of it
    idle_s: float = 30.0  # between two messages of a stream
    stream_s: float = 3600.0  # of sound in a stream

    @property
    def bytes(self) -> int:
        return round(self.megabytes * MEGABYTE)
