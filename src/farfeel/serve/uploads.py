"""Uploads in progress: their rate, their time, their number and their total size.

An upload takes no slot of a recording. A slot is taken when the upload is complete. So slow uploads cannot keep other
recordings out. When all places for uploads are taken, the slowest upload gives its place to the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from farfeel.serve.limits import Limits, Refusal
from farfeel.serve.metrics import Metrics

T = TypeVar("T")
MARKS = 100  # A pace has one mark for each such part of its span, at most.
# An upload is slow when the amount required for a span takes longer than this share of the span. The share is small, so
# that slow clients that come again at once cannot fill all places with uploads that are too young to be slow.
SLOW_SHARE = 0.01
RETRY_S = 5


class Pace:
    """Measures whether enough arrives in every span of time.

    Only the time in which the server waits for the client is counted. So a busy server makes no client slow.

    Args:
        span_s: Length of the sliding span.
        required: The amount that must arrive in each span.
    """

    def __init__(self, span_s: float, required: float) -> None:
        self.span_s, self.required = span_s, required
        self.amount = 0.0
        self._waited_s = 0.0
        self._waiting_since_s: float | None = None
        self._marks = deque([(0.0, 0.0)])  # (time waited, amount at that time)

    @property
    def waited_s(self) -> float:
        """Time in which the server waited for the client."""
        if self._waiting_since_s is None:
            return self._waited_s
        return self._waited_s + time.monotonic() - self._waiting_since_s

    @property
    def left_s(self) -> float:
        """Time until the span has too little, if nothing more arrives."""
        while len(self._marks) > 1 and self._marks[0][1] <= self.amount - self.required:
            self._marks.popleft()
        return self._marks[0][0] + self.span_s - self.waited_s

    @property
    def is_slow(self) -> bool:
        """Whether the client is slow, although it may go on."""
        return self.span_s - self.left_s > SLOW_SHARE * self.span_s

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Context manager: the server waits for the client."""
        self._waiting_since_s = time.monotonic()
        try:
            yield
        finally:
            self._waited_s, self._waiting_since_s = self.waited_s, None

    def add(self, amount: float) -> None:
        """Count what has arrived."""
        self.amount += amount
        last_s, _ = self._marks[-1]
        if self._waited_s - last_s < self.span_s / MARKS:
            self._marks[-1] = (last_s, self.amount)
        else:
            self._marks.append((self._waited_s, self.amount))


class Upload:
    """The body of one request while it arrives.

    Attributes:
        bytes: Number of bytes received and counted by `Uploads`.
        pace: Its rate.
        is_ended: Whether it had to give its place to another upload.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bytes = 0
        self.pace = Pace(limits.stall_s, limits.stall_bytes)
        self.is_ended = False
        self._deadline_s = time.monotonic() + limits.upload_s
        self._timeout: asyncio.Timeout | None = None

    async def next(self, receive: Callable[[], Awaitable[T]]) -> T:
        """Wait for the next piece.

        Raises:
            Refusal: The upload is too slow (408).
        """
        left_s = 0.0 if self.is_ended else min(self.pace.left_s, self._deadline_s - time.monotonic())
        try:
            with self.pace.waiting():
                async with asyncio.timeout(max(left_s, 0.0)) as self._timeout:
                    return await receive()
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            self._timeout = None

    def end(self) -> None:
        """End the upload, because another one needs its place."""
        self.is_ended = True
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def _too_slow(self) -> Refusal:
        limits, count = self.limits, f"{self.pace.amount:.0f} bytes"
        if self.is_ended:
            reason = f"was slow ({count} in {self.pace.waited_s:.1f} s), and another one needed its place"
        elif time.monotonic() >= self._deadline_s:
            reason = f"took longer than {limits.upload_s:g} s for {count}"
        else:
            reason = (
                f"stopped or was too slow after {count}, expected {limits.upload_kb_s:g} KB/s or more over "
                f"{limits.stall_s:g} s"
            )
        return Refusal(408, f"the upload {reason}; send it again over a faster connection")


class Uploads:
    """All uploads of a server.

    Args:
        limits: The limits of the server.
        metrics: The metrics of the server.

    Attributes:
        bytes: Size of all uploads that are arriving, waiting or processed.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits, self.metrics = limits, metrics
        self.bytes = 0
        self._arriving: list[Upload] = []

    @property
    def count(self) -> int:
        """Number of uploads that are arriving."""
        return len(self._arriving)

    @contextmanager
    def place(self, upload: Upload) -> Iterator[None]:
        """Context manager: count an upload, from its first byte to the response.

        Raises:
            Refusal: All places are taken, and no upload is slow (429).
        """
        while self.count >= self.limits.uploads:
            self._end_slowest(f"{self.count} uploads arrive")
        self._arriving.append(upload)
        self.metrics.uploads.set(self.count)
        try:
            yield
        finally:
            self.complete(upload)
            if not upload.is_ended:
                self.bytes -= upload.bytes

    def add(self, upload: Upload, count: int) -> None:
        """Count bytes of an upload that has a place.

        Raises:
            Refusal: All uploads together are too large, and no other upload is slow (429).
        """
        if upload.is_ended:
            return
        upload.bytes += count
        self.bytes += count
        while self.bytes > self.limits.stored_bytes:
            self._end_slowest(f"{self.bytes / 2**20:.0f} MB of uploads are stored", upload)

    def complete(self, upload: Upload) -> None:
        """The upload has arrived or failed. It needs its place no more."""
        if upload in self._arriving:
            self._arriving.remove(upload)
            self.metrics.uploads.set(self.count)

    def _end_slowest(self, reason: str, kept: Upload | None = None) -> None:
        others = [upload for upload in self._arriving if upload is not kept]
        slowest = min(others, key=lambda upload: upload.pace.left_s, default=None)
        if slowest is None or not slowest.pace.is_slow:
            raise Refusal(429, f"the server is busy: {reason}, it accepts no more; try again in {RETRY_S} s", RETRY_S)
        slowest.end()
        self.complete(slowest)
        self.bytes -= slowest.bytes
