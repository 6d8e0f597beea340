"""Middleware around all requests: it checks the key, limits the size and the time of uploads, and writes the log.

The bytes of a request body are counted as they arrive, because its header may be wrong. A slot for a recording is
reserved before its first byte is read. So a client learns before the upload that the server is busy.
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
from farfeel.serve.workers import WorkerPool

LOG = logging.getLogger("farfeel.serve")
KEYLESS_ROUTES = ("/v1/health",)  # Monitoring needs no key.
RECORDINGS = ("/v1/predict", "/v1/timeline")
ROUTES = (
    *RECORDINGS,
    "/v1/health",
    "/v1/model",
    "/v1/stream",
    "/metrics",
)  # All other routes share one label in the metrics.
DRAIN_S = 5.0  # A refused upload is still read for so long, so that its sender sees the response.
FORM_OVERHEAD_BYTES = 2**16  # bytes of a body in addition to its files
HEADERS = {
    # The page loads no font, script or picture from another host.
    "Content-Security-Policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: "
    "blob: ws: wss:; frame-ancestors 'self'; form-action 'self'; base-uri 'self'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def response_to(refusal: Refusal) -> JSONResponse:
    """The HTTP response for a refusal."""
    headers = {} if refusal.retry_s is None else {"Retry-After": str(refusal.retry_s)}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="farfeel"'  # Browsers ask for any name, and for the key as password.
    if refusal.status in (401, 408, 413, 429):
        headers["Connection"] = "close"  # The rest of the body is not read.
    return JSONResponse({"detail": refusal.detail}, refusal.status, headers)


class AccessMiddleware:
    """ASGI middleware around the whole application.

    Args:
        app: The application.
        pool: Reserves slots for recordings.
        api_key: The key that clients must send. None: no key is required.
    """

    def __init__(self, app: ASGIApp, pool: WorkerPool, api_key: str | None) -> None:
        self.app, self.pool, self.limits, self.metrics = app, pool, pool.limits, pool.metrics
        self.api_key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        began, path = time.monotonic(), scope["path"]
        log_entry: dict[str, Any] = {"status": 499}

        body = _CountedBody(self, receive)

        async def send_response(message: Message) -> None:
            if message["type"] == "http.response.start":
                log_entry["status"] = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            elif message["type"] == "websocket.close":
                log_entry["status"] = message.get("code", 1000)
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if is_last and scope["method"] not in ("GET", "HEAD") and log_entry["status"] != 408:
                await send({**message, "more_body": True})
                await body.drain()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        scope["farfeel"] = log_entry
        try:
            async with AsyncExitStack() as stack:
                self._check(scope)
                if scope["type"] == "http" and scope["method"] == "POST" and path in RECORDINGS:
                    stack.enter_context(self.pool.slot())
                await self.app(scope, body.receive if scope["type"] == "http" else receive, send_response)
        except Refusal as refusal:
            log_entry["detail"] = refusal.detail
            await self._refuse(refusal, scope, receive, send_response)
        finally:
            self._log(scope, log_entry, body, time.monotonic() - began)

    def _check(self, scope: Scope) -> None:
        """Raise Refusal if the headers alone are a reason to refuse the request."""
        headers = Headers(scope=scope)
        if self.api_key is not None and scope["path"] not in KEYLESS_ROUTES and not _has_key(headers, self.api_key):
            raise Refusal(
                401,
                "the key is missing or wrong, expected Authorization: Bearer KEY; ask the operator for a key",
            )
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.limits.bytes + FORM_OVERHEAD_BYTES:
            raise self.too_large(int(length))

    def too_large(self, size: int) -> Refusal:
        """The refusal of an upload of `size` bytes or more."""
        return Refusal(
            413,
            f"the upload has {size / 2**20:.0f} MB or more, this server accepts {self.limits.megabytes:g} MB; "
            "send a shorter recording or a smaller video",
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

    def _log(self, scope: Scope, entry: dict[str, Any], body: _CountedBody, seconds: float) -> None:
        path, status = scope["path"], entry["status"]
        route = path if path in ROUTES else "other"
        method = scope.get("method", "WS")
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        self.metrics.upload_bytes.inc(body.count)
        if path in RECORDINGS or path == "/v1/stream" or (route == "other" and status >= 400):
            detail = f": {entry['detail']}" if "detail" in entry else ""
            LOG.info("%s %s %s in %.2f s, %d bytes%s", method, _printable(path), status, seconds, body.count, detail)


class _CountedBody:
    """The body of a request. Its bytes are counted while they arrive, and its time is limited."""

    def __init__(self, middleware: AccessMiddleware, receive: Receive) -> None:
        self.middleware, self._receive = middleware, receive
        self.count, self.is_complete = 0, False
        self.deadline_s = time.monotonic() + middleware.limits.upload_s

    async def receive(self) -> Message:
        """The next message. Raises HTTPException if the body is too large or too slow."""
        if self.is_complete:
            return await self._receive()
        limits = self.middleware.limits
        try:
            left_s = min(limits.stall_s, self.deadline_s - time.monotonic())
            message = await asyncio.wait_for(self._receive(), max(left_s, 0))
        except TimeoutError:
            raise _as_http_exception(
                Refusal(408, f"the upload stopped after {self.count} bytes; send it again")
            ) from None
        if message["type"] == "http.disconnect":
            self.is_complete = True
            return message
        self.count += len(message.get("body", b""))
        self.is_complete = not message.get("more_body", False)
        if self.count > limits.bytes + FORM_OVERHEAD_BYTES:
            raise _as_http_exception(self.middleware.too_large(self.count))
        return message

    async def drain(self) -> None:
        """Read and discard the rest of the body for a while. Some clients read the response only after the upload."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                left = self.middleware.limits.bytes + FORM_OVERHEAD_BYTES
                while not self.is_complete and left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self.is_complete = not message.get("more_body", False)


def _as_http_exception(refusal: Refusal) -> HTTPException:
    """A refusal as an exception that Starlette and FastAPI pass on while they read a body."""
    response = response_to(refusal)
    kept_headers = ("retry-after", "connection")
    headers = {name: value for name, value in response.headers.items() if name in kept_headers}
    return HTTPException(refusal.status, refusal.detail, headers)


def _has_key(headers: Headers, key: bytes) -> bool:
    """Whether the headers contain the key: as bearer token, X-API-Key, or password of basic authentication.

    The comparison takes constant time.
    """
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
    """Text from a client, safe for one line of a log."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:100])
