"""What every request passes: the key, the size of its body and the time it takes, one line in the log.

Bodies are counted as they come, whatever their header promises. A recording takes a place before its first byte is
read, so that who has to wait too long learns it before the upload.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import time
from contextlib import AsyncExitStack, suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farfeel.serve.limits import Refusal
from farfeel.serve.workers import Desk

LOG = logging.getLogger("farfeel.serve")
OPEN = ("/v1/health",)  # without a key, for those who watch over servers
RECORDINGS = ("/v1/predict", "/v1/timeline")
ROUTES = (*RECORDINGS, "/v1/health", "/v1/model", "/v1/stream", "/metrics")  # others are one in the metrics
LINGER_S = 5.0  # how long a refused upload is still read, for its sender to see the answer
ENVELOPE = 2**16  # bytes of a body that are not its files
HEADERS = {
    # The page is all from here: no font, script or picture of another host is fetched.
    "Content-Security-Policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: "
    "blob: ws: wss:; frame-ancestors 'self'; form-action 'self'; base-uri 'self'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def response_to(refusal: Refusal) -> JSONResponse:
    headers = {} if refusal.retry_s is None else {"Retry-After": str(refusal.retry_s)}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="farfeel"'  # browsers ask for it: any name, the key as password
    if refusal.status in (401, 408, 413, 429):
        headers["Connection"] = "close"  # The rest of its body is not waited for.
    return JSONResponse({"detail": refusal.detail}, refusal.status, headers)


class Gate:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, desk: Desk, api_key: str | None) -> None:
        self.app, self.desk, self.limits, self.metrics = app, desk, desk.limits, desk.metrics
        self.api_key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        began, path = time.monotonic(), scope["path"]
        told: dict[str, Any] = {"status": 499}

        body = _Body(self, receive)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            elif message["type"] == "websocket.close":
                told["status"] = message.get("code", 1000)
            ends = message["type"] == "http.response.body" and not message.get("more_body", False)
            if ends and scope["method"] not in ("GET", "HEAD") and told["status"] != 408:
                await send({**message, "more_body": True})
                await body.drain()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        scope["farfeel"] = told
        try:
            async with AsyncExitStack() as stack:
                self._check(scope)
                if scope["type"] == "http" and scope["method"] == "POST" and path in RECORDINGS:
                    stack.enter_context(self.desk.place())
                await self.app(scope, body.receive if scope["type"] == "http" else receive, answer)
        except Refusal as refusal:
            told["detail"] = refusal.detail
            await self._refuse(refusal, scope, receive, answer)
        finally:
            self._log(scope, told, body, time.monotonic() - began)

    def _check(self, scope: Scope) -> None:
        """Raise Refusal for a request that needs no look at its body."""
        headers = Headers(scope=scope)
        if self.api_key is not None and scope["path"] not in OPEN and not _has_key(headers, self.api_key):
            raise Refusal(401, "this server wants a key, as Authorization: Bearer KEY; ask its operator for one")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.limits.bytes + ENVELOPE:
            raise self.too_large(int(length))

    def too_large(self, size: int) -> Refusal:
        return Refusal(
            413,
            f"the upload has {size / 2**20:.0f} MB or more, this server takes {self.limits.megabytes:g} MB; "
            "cut the recording or make its pictures smaller",
        )

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await response_to(refusal)(scope, receive, send)
        elif "websocket.http.response" in scope.get("extensions", {}):
            response = response_to(refusal)
            await send(
                {"type": "websocket.http.response.start", "status": refusal.status, "headers": response.raw_headers}
            )
            await send({"type": "websocket.http.response.body", "body": response.body})
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.detail})

    def _log(self, scope: Scope, told: dict[str, Any], body: _Body, seconds: float) -> None:
        path, status = scope["path"], told["status"]
        route = path if path in ROUTES else "other"
        method = scope.get("method", "WS")
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        self.metrics.upload_bytes.inc(body.count)
        if path in RECORDINGS or path == "/v1/stream" or (route == "other" and status >= 400):
            detail = f": {told['detail']}" if "detail" in told else ""
            LOG.info("%s %s %s in %.2f s, %d bytes%s", method, _printable(path), status, seconds, body.count, detail)


class _Body:
    """A request's body, counted and timed while it is received."""

    def __init__(self, gate: Gate, receive: Receive) -> None:
        self.gate, self._receive = gate, receive
        self.count, self.is_whole = 0, False
        self.until = time.monotonic() + gate.limits.upload_s

    async def receive(self) -> Message:
        if self.is_whole:
            return await self._receive()
        limits = self.gate.limits
        try:
            left_s = min(limits.stall_s, self.until - time.monotonic())
            message = await asyncio.wait_for(self._receive(), max(left_s, 0))
        except TimeoutError:
            raise _as_http(Refusal(408, f"the upload stopped after {self.count} bytes; send it again")) from None
        if message["type"] == "http.disconnect":
            self.is_whole = True
            return message
        self.count += len(message.get("body", b""))
        self.is_whole = not message.get("more_body", False)
        if self.count > limits.bytes + ENVELOPE:
            raise _as_http(self.gate.too_large(self.count))
        return message

    async def drain(self) -> None:
        """Throw away what is still to come, for a while: who sends into a closed connection never sees the answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                left = self.gate.limits.bytes + ENVELOPE
                while not self.is_whole and left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self.is_whole = not message.get("more_body", False)


def _as_http(refusal: Refusal) -> HTTPException:
    """As the frameworks that read bodies let it pass."""
    response = response_to(refusal)
    kept = ("retry-after", "connection")
    headers = {name: value for name, value in response.headers.items() if name in kept}
    return HTTPException(refusal.status, refusal.detail, headers)


def _has_key(headers: Headers, key: bytes) -> bool:
    """As bearer token, X-API-Key, or password of basic authentication. Compared in constant time."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    candidate = headers.get("x-api-key", "").encode("latin-1")
    if scheme.lower() == "bearer":
        candidate = given.strip().encode("latin-1")
    elif scheme.lower() == "basic":
        try:
            candidate = base64.b64decode(given, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    return hmac.compare_digest(candidate, key)


def _printable(text: str) -> str:
    """A client's words in one line of a log."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:100])
