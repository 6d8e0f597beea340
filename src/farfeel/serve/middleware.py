"""Middleware around all requests: it checks the host, the page and the key, limits uploads, and writes the log.

The bytes of a request body are counted as they arrive, because its header may be wrong. If all slots for recordings are
taken, a client learns before its upload that the server is busy. No request gets the text of a foreign exception.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import time
from contextlib import ExitStack, suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farfeel.serve.hosts import Hosts
from farfeel.serve.limits import Refusal
from farfeel.serve.page_files import PageFiles
from farfeel.serve.uploads import Upload
from farfeel.serve.worker import failure, position_of
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
OTHER_BODY_BYTES = 2**20  # bytes of a body that is no upload
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
    if refusal.status in (401, 403, 408, 413, 429):
        headers["Connection"] = "close"  # The rest of the body is not read.
    return JSONResponse({"detail": refusal.detail}, refusal.status, headers)


class AccessMiddleware:
    """ASGI middleware around the whole application.

    Args:
        app: The application.
        pool: Its uploads are counted, and its slots are checked.
        api_key: The key that clients must send. None: no key is required.
        hosts: The names that the server answers to.
        page_files: The files of the page. None: there is no page.
    """

    def __init__(
        self, app: ASGIApp, pool: WorkerPool, api_key: str | None, hosts: Hosts, page_files: PageFiles | None
    ) -> None:
        self.app, self.pool, self.limits, self.metrics = app, pool, pool.limits, pool.metrics
        self.api_key = None if api_key is None else api_key.encode()
        self.hosts, self.page_files = hosts, page_files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        began = time.monotonic()
        log_entry: dict[str, Any] = {"status": 499}
        scope["farfeel"] = log_entry
        body = _CountedBody(self, scope, receive)
        response = _Response(scope, send, body, log_entry)
        try:
            with ExitStack() as stack:
                self._check(scope, body)
                if body.is_upload:
                    stack.enter_context(self.pool.uploads.place(body.upload))
                await self.app(scope, body.receive if scope["type"] == "http" else receive, response.send)
            if response.has_failed:
                await self._answer_failure(RuntimeError("the application failed"), scope, body, response)
        except Refusal as refusal:
            log_entry["detail"] = refusal.detail
            await self._refuse(refusal, scope, receive, response.send)
        except Exception as error:  # Gradio, FastAPI and the libraries below raise many kinds for a damaged request.
            await self._answer_failure(error, scope, body, response)
        finally:
            self._log(scope, log_entry, body, time.monotonic() - began)

    def _check(self, scope: Scope, body: _CountedBody) -> None:
        """Raise Refusal if the headers alone are a reason to refuse the request."""
        headers = Headers(scope=scope)
        self.hosts.check(headers)
        if self.api_key is not None and scope["path"] not in KEYLESS_ROUTES and not _has_key(headers, self.api_key):
            raise Refusal(
                401,
                "the key is missing or wrong, expected Authorization: Bearer KEY; ask the operator for a key",
            )
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > body.max_bytes:
            raise body.too_large(int(length))
        if body.is_upload and scope["path"] in RECORDINGS:
            self.pool.require_free_slot()

    async def _answer_failure(self, error: Exception, scope: Scope, body: _CountedBody, response: _Response) -> None:
        """Answer a request on which the application has failed, with one sentence."""
        if body.is_disconnected:
            scope["farfeel"]["status"] = 499
            return
        if scope["type"] == "http" and scope["path"] in RECORDINGS:
            refusal = failure(error)
        elif scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            refusal = Refusal(400, "the request cannot be understood, expected one as the page sends it; correct it")
        else:
            refusal = Refusal(500, "the server failed on the request; its log names the cause")
        scope["farfeel"]["detail"] = f"{refusal.detail} [{type(error).__name__} in {position_of(error)}]"
        if response.has_started:
            LOG.warning("%s failed after its response had begun: %s", _printable(scope["path"]), type(error).__name__)
            return
        response.has_failed = False
        await self._refuse(refusal, scope, body.receive, response.send)

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


class _Response:
    """The response to one request, as it is sent. It gets the headers of all responses.

    Attributes:
        has_started: Whether its status is sent.
        has_failed: Whether the application has answered 500. That answer is not sent.
    """

    def __init__(self, scope: Scope, send: Send, body: _CountedBody, log_entry: dict[str, Any]) -> None:
        self.scope, self._send, self.body, self.log_entry = scope, send, body, log_entry
        self.has_started = self.has_failed = False

    async def send(self, message: Message) -> None:
        """Send one message of the application."""
        if message["type"] == "http.response.start":
            if message["status"] == 500 and "detail" not in self.log_entry:
                self.has_failed = True
                return
            self.has_started = True
            self.log_entry["status"] = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS)
            for name in [name for name in headers if name.startswith("access-control-")]:
                del headers[name]  # Gradio allows other pages. This server allows none.
        elif message["type"] == "websocket.accept":
            self.has_started = True
        elif message["type"] == "websocket.close":
            self.log_entry["status"] = message.get("code", 1000)
        if self.has_failed:
            return
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last and self.scope["method"] not in ("GET", "HEAD") and self.log_entry["status"] != 408:
            await self._send({**message, "more_body": True})
            await self.body.drain()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)


class _CountedBody:
    """The body of a request. Its bytes are counted while they arrive, and its rate and its time are limited.

    Attributes:
        is_upload: Whether it is a recording or a file of the page.
        max_bytes: Largest size.
        is_complete: Whether all of it has arrived, or the client has left.
        is_disconnected: Whether the client has left.
    """

    def __init__(self, middleware: AccessMiddleware, scope: Scope, receive: Receive) -> None:
        self.middleware, self._receive = middleware, receive
        self.upload = Upload(middleware.limits)
        self.count, self.is_complete, self.is_disconnected = 0, False, False
        is_post, path = scope.get("method") == "POST", scope["path"]
        self.is_for_page = (
            is_post and middleware.page_files is not None and path.startswith("/ui/") and path.endswith("/upload")
        )
        self.is_upload = (is_post and path in RECORDINGS) or self.is_for_page
        self.max_bytes = middleware.limits.bytes + FORM_OVERHEAD_BYTES if self.is_upload else OTHER_BODY_BYTES

    async def receive(self) -> Message:
        """The next message. Raises HTTPException if the body is too large or too slow."""
        if self.is_complete:
            message = await self._receive()
            self.is_disconnected |= message["type"] == "http.disconnect"
            return message
        try:
            message = await self.upload.next(self._receive)
            if message["type"] == "http.disconnect":
                self.is_complete = self.is_disconnected = True
            else:
                await self._count(len(message.get("body", b"")))
                self.is_complete = not message.get("more_body", False)
        except Refusal as refusal:
            raise _as_http_exception(refusal) from None
        if self.is_complete:
            self.middleware.pool.uploads.complete(self.upload)
        return message

    async def _count(self, count: int) -> None:
        self.count += count
        self.upload.pace.add(count)
        if self.count > self.max_bytes:
            raise self.too_large(self.count)
        if self.is_for_page and self.middleware.page_files is not None:
            await self.middleware.page_files.add(count)
        elif self.is_upload:
            self.middleware.pool.uploads.add(self.upload, count)

    def too_large(self, size: int) -> Refusal:
        """The refusal of a body of `size` bytes or more."""
        if not self.is_upload:
            return Refusal(
                413,
                f"the request has {size / 2**20:.0f} MB or more, expected {OTHER_BODY_BYTES / 2**20:.0f} MB or less on "
                "this route; send less",
            )
        return Refusal(
            413,
            f"the upload has {size / 2**20:.0f} MB or more, this server accepts {self.middleware.limits.megabytes:g} "
            "MB; send a shorter recording or a smaller video",
        )

    async def drain(self) -> None:
        """Read and discard the rest of the body for a while. Some clients read the response only after the upload."""
        self.middleware.pool.uploads.complete(self.upload)  # It takes no place of another upload meanwhile.
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
