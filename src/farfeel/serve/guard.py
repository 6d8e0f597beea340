"""uvicorn's HTTP protocol with a time limit for the header of a request. uvicorn itself has none."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

WAITING = 256  # connections without a complete header, at most


def guarded_protocol(header_s: float, waiting: int = WAITING) -> type[H11Protocol]:
    """Create a protocol class for `uvicorn.Config`.

    Args:
        header_s: Time for the header of a request. A connection that takes longer is closed.
        waiting: Largest number of connections that wait for a header. If there are more, the oldest one is closed.
    """
    unfinished: dict[GuardedProtocol, asyncio.TimerHandle] = {}  # the oldest one first

    class GuardedProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._begin_header()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            is_switched = self.transport.get_protocol() is not self  # now a WebSocket
            if self.conn.their_state is h11.IDLE and not is_switched and not self.transport.is_closing():
                self._begin_header()
            else:
                self._end_header()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end_header()
            super().connection_lost(exc)

        def _begin_header(self) -> None:
            if self not in unfinished:
                unfinished[self] = self.loop.call_later(header_s, self._close)
                if len(unfinished) > waiting:
                    next(iter(unfinished))._close()

        def _end_header(self) -> None:
            if self in unfinished:
                unfinished.pop(self).cancel()

        def _close(self) -> None:
            self._end_header()
            self.transport.close()

    return GuardedProtocol
