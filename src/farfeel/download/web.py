"""An HTTP client for large files: it resumes transfers, waits between tries, and sends nothing about the user.

Only http and https are used. If a connection breaks, stalls or is very slow, the rest of the file is requested again.
If a host answers 408, 429 or 5xx, the request is repeated. The client waits for the time that the host states, or for a
time that doubles with each try, with jitter. Any other error status is final.
"""

from __future__ import annotations

import email.utils
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3

from farfeel.support.reading import read_json
from farfeel.support.text import one_line
from farfeel.types import FarfeelError

T = TypeVar("T")
Argument = TypeVar("Argument")

CHUNK = 1 << 18  # bytes
TIMEOUT_S = (10.0, 30.0)  # to connect, and between two reads
SLOW_S, MIN_BYTES_PER_S = 30.0, 1000  # A connection that is slower than this for so long is replaced by a new one.
TRIES = 6  # consecutive tries without a new byte
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 120.0
MAX_REDIRECTS = 10
DOCUMENT_BYTES = 64_000_000  # Largest accepted list of files.
_RETRY_STATUSES = (408, 429, 500, 502, 503, 504)
_REMEDIES = {
    401: "the host requires a log-in: download the file with a browser",
    403: "the host refuses access, perhaps after too many requests: open the address in a browser, or try in an hour",
    404: "the file has moved: look for it with a browser, or correct --mirror",
}


class StoppedError(Exception):
    """Ends a thread after another thread has failed or the user has interrupted. The other error is reported."""


class _RetryError(Exception):
    """The request should be repeated, after `wait_s` seconds if the host stated a time. The message is the reason."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _Session(requests.Session):
    """A session that ignores redirects. requests would read them even if it does not follow them."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class HttpClient:
    """Makes the requests of one command.

    Args:
        mirror: scheme://host that replaces every host. The paths are kept.
        jobs: Number of transfers at a time.

    Attributes:
        stop: Set it to end waiting and transfers in all threads.

    Raises:
        FarfeelError: `mirror` is not a valid address.
    """

    def __init__(self, mirror: str | None = None, jobs: int = 4) -> None:
        self.jobs = jobs
        self.stop = threading.Event()
        self._mirror = _require_mirror(mirror) if mirror else None
        self._session = _Session()
        self._session.headers.update({"User-Agent": "farfeel", "Accept-Encoding": "identity"})
        self._session.auth = lambda request: request  # Otherwise requests would read passwords from ~/.netrc.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=jobs))
        self._session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=jobs))

    def check_stopped(self) -> None:
        """Raise StoppedError if another thread has failed or the user has interrupted."""
        if self.stop.is_set():
            raise StoppedError

    def document(self, url: str) -> bytes:
        """Read a small document.

        Raises:
            FarfeelError: It cannot be read.
        """
        address = self._address(url)

        def attempt() -> bytes:
            with self._request(address) as response:
                content = bytearray()
                for chunk in self._chunks(response):
                    content += chunk
                    if len(content) > DOCUMENT_BYTES:
                        raise FarfeelError(
                            f"{address} is longer than {DOCUMENT_BYTES} bytes, expected a list of files; "
                            "try later, or correct --mirror"
                        )
                return bytes(content)

        return self._retry(address, attempt)

    def json(self, url: str) -> Any:
        """Read a JSON document.

        Raises:
            FarfeelError: It cannot be read, or is not JSON.
        """
        try:
            return read_json(self.document(url))
        except ValueError as error:
            raise FarfeelError(f"{url} is not JSON ({error}), expected JSON; try later, or correct --mirror") from None

    def size(self, url: str) -> int | None:
        """Size of a file in bytes. None if the host does not state it.

        Raises:
            FarfeelError: The file cannot be read.
        """
        address = self._address(url)

        def attempt() -> int | None:
            with self._request(address) as response:
                return _content_length(response)

        return self._retry(address, attempt)

    def fetch(self, url: str, size: int | None, partial: Path, is_checked: bool, count: Callable[[int], None]) -> str:
        """Download a file. An existing `partial` is resumed if the ETag or a checksum can detect a changed file.

        Args:
            url: Address of the file.
            size: Expected size in bytes, if known.
            partial: The file to write to. Its ETag is stored beside it.
            is_checked: Whether the caller will verify a checksum.
            count: Called with the number of bytes received, at first those of an existing `partial`. The number is
                negative if received bytes are thrown away.

        Returns:
            The ETag, or the date of the last change; empty if the host states neither.

        Raises:
            FarfeelError: The file cannot be downloaded, or has another size.
        """
        address = self._address(url)
        count(_length(partial))
        self._retry(address, lambda: self._fetch(address, size, partial, is_checked, count), lambda: _length(partial))
        return _read(_etag_file(partial))

    def _fetch(
        self, address: str, size: int | None, partial: Path, is_checked: bool, count: Callable[[int], None]
    ) -> None:
        """One try of `fetch`."""
        received, etag = _length(partial), _read(_etag_file(partial))
        if received and received == size:
            return  # The process was killed after the last byte.
        if (size is not None and received > size) or not (etag or is_checked):
            count(-received)
            delete_partial(partial)
            received = 0
        headers = {"Range": f"bytes={received}-"} if received else {}
        if received and etag:
            headers["If-Range"] = etag
        with self._request(address, headers) as response:
            is_resumed = received > 0 and _begins_at(response, received) and etag in ("", _version(response))
            if response.status_code != 200 and not is_resumed:
                count(-received)
                delete_partial(partial)
                raise _RetryError("sent another part than was requested", 0.0)
            length = _content_length(response)
            total = None if length is None else length + (received if is_resumed else 0)
            if None not in (size, total) and size != total:
                raise FarfeelError(
                    f"{address} has {total} bytes, expected {size} as in its host's list; try later, or try another "
                    "--mirror"
                )
            with partial.open("ab" if is_resumed else "wb") as file:
                if not is_resumed:  # `partial` is empty now, so a kill cannot leave a new ETag beside old bytes.
                    count(-received)
                    _etag_file(partial).write_text(_version(response))
                for chunk in self._chunks(response):
                    file.write(chunk)
                    count(len(chunk))
                    if size is not None and file.tell() > size:
                        raise FarfeelError(f"{address} is longer than {size} bytes, expected that size; try later")
                file.flush()
                os.fsync(file.fileno())  # before the file gets its final name
        if total is not None and _length(partial) < total:
            raise _RetryError("ended early")

    def _request(self, address: str, headers: dict[str, str] | None = None) -> requests.Response:
        """The beginning of a response: the whole file (200), a part (206), or no such part (416)."""
        for _ in range(MAX_REDIRECTS):
            try:
                response = self._session.get(
                    address, headers=headers, stream=True, timeout=TIMEOUT_S, allow_redirects=False
                )
            except ValueError as error:  # requests raises it for an invalid address
                raise FarfeelError(
                    f"{address} is not a valid address ({error}), expected https://host/path; correct --mirror"
                ) from None
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                raise _RetryError(f"cannot be reached ({_reason(error)})") from None
            if not response.is_redirect:
                break
            response.close()
            address = _redirected(address, response.headers["location"])
        else:
            raise FarfeelError(
                f"{address} redirects more than {MAX_REDIRECTS} times, expected a file; correct --mirror"
            )
        status = response.status_code
        if status == 200 or (status in (206, 416) and headers):
            return response
        response.close()
        if status in _RETRY_STATUSES:
            raise _RetryError(f"answered {status}", _retry_after_s(response.headers.get("retry-after")))
        remedy = _REMEDIES.get(status, "open the address in a browser")
        raise FarfeelError(f"{address} answered {status} ({response.reason}), expected a file; {remedy}")

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The content of a response as it arrives. Raises _RetryError if the connection breaks or is too slow."""
        began_s, received = time.monotonic(), 0
        while True:
            try:  # read1 returns what has arrived. read would wait for a whole chunk.
                chunk = response.raw.read1(CHUNK, decode_content=True)
            except (urllib3.exceptions.HTTPError, requests.RequestException, TimeoutError, ConnectionError) as error:
                raise _RetryError(f"was cut off ({_reason(error)})") from None
            if not chunk:
                return
            self.check_stopped()
            yield chunk
            received += len(chunk)
            if (waited_s := time.monotonic() - began_s) > SLOW_S:
                if received < waited_s * MIN_BYTES_PER_S:
                    raise _RetryError(f"sent {received} bytes in {waited_s:.0f} s")
                began_s, received = time.monotonic(), 0

    def _retry(self, address: str, attempt: Callable[[], T], length: Callable[[], int] = lambda: 0) -> T:
        """Repeat an attempt until it succeeds, or until TRIES in a row have not made the received `length` longer."""
        failures, longest = 0, length()
        while True:
            self.check_stopped()
            try:
                return attempt()
            except _RetryError as error:
                failures = 1 if length() > longest else failures + 1
                longest = length()
                if failures == TRIES:
                    raise FarfeelError(
                        f"{address} {error}, {TRIES} times in a row; run the same command again later: it resumes"
                    ) from None
                doubled_s = FIRST_WAIT_S * 2 ** (failures - 1) * random.uniform(0.5, 1.5)
                self._pause(min(doubled_s if error.wait_s is None else error.wait_s, LONGEST_WAIT_S))

    def _pause(self, seconds: float) -> None:
        self.stop.wait(seconds)

    def _address(self, url: str) -> str:
        """The address that is really requested: the URL, or the same path on the mirror."""
        _require_http(url)
        return urlunsplit((*self._mirror, *urlsplit(url)[2:])) if self._mirror else url


def in_parallel(
    client: HttpClient,
    function: Callable[[Argument], T],
    arguments: Sequence[Argument],
    advance: Callable[[int], None] = lambda count: None,
) -> list[T]:
    """Call a function with each argument, in `client.jobs` threads.

    Args:
        client: Its `stop` is set if a call fails.
        function: Called once for each argument.
        arguments: The arguments.
        advance: Called with the number of finished calls.

    Returns:
        The results, in the order of the arguments. The first failure stops all threads and is raised.
    """
    with ThreadPoolExecutor(client.jobs) as pool:
        futures = [pool.submit(function, argument) for argument in arguments]
        try:
            for count, future in enumerate(as_completed(futures), start=1):
                future.result()
                advance(count)
        except BaseException:
            client.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def delete_partial(partial: Path) -> None:
    """Delete an unfinished transfer and its ETag."""
    partial.unlink(missing_ok=True)
    _etag_file(partial).unlink(missing_ok=True)


def _require_http(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        _ = parts.port  # raises ValueError if it is not a number
    except ValueError:
        is_valid = False
    if not is_valid:
        raise FarfeelError(
            f"{url} is not a valid address, expected https://host/path without a password; correct --mirror"
        )


def _require_mirror(mirror: str) -> tuple[str, str]:
    _require_http(mirror)
    parts = urlsplit(mirror)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise FarfeelError(
            f"--mirror {mirror} has a path, expected only scheme and host, as in https://mirror.org; remove the path"
        )
    return parts.scheme, parts.netloc


def _redirected(old: str, location: str) -> str:
    """The address that a redirect leads to. It must use https, or the same host and scheme as before."""
    try:
        new = urljoin(old, location)
    except ValueError:
        new = location
    _require_http(new)
    if urlsplit(new).scheme != "https" and urlsplit(new)[:2] != urlsplit(old)[:2]:
        raise FarfeelError(f"{old} redirects to {new}, expected https or the same host; open the address in a browser")
    return new


def _content_length(response: requests.Response) -> int | None:
    """Bytes of the response. None if it does not state them, or is compressed for the transfer."""
    length = response.headers.get("content-length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) and "content-encoding" not in response.headers else None


def _begins_at(response: requests.Response, offset: int) -> bool:
    content_range = response.headers.get("content-range", "")
    return response.status_code == 206 and content_range.startswith(f"bytes {offset}-")


def _version(response: requests.Response) -> str:
    """What identifies this version of a file: its ETag if it is a strong one, otherwise the date of the last change."""
    etag = response.headers.get("etag", "")
    return etag if etag.startswith('"') else response.headers.get("last-modified", "")


def _retry_after_s(text: str | None) -> float | None:
    """Seconds to wait, from a Retry-After header. The header is a number of seconds or a date."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    """Message of the innermost error."""
    inner: Any = error
    while isinstance(getattr(inner, "reason", None) or (inner.args or [None])[0], Exception):
        inner = getattr(inner, "reason", None) or inner.args[0]
    return one_line(inner) or type(inner).__name__


def _etag_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".etag")


def _read(file: Path) -> str:
    """The text of a small file of printable characters; else "", as where there is no file."""
    text = file.read_text(encoding="latin-1") if file.is_file() else ""
    return text if text.isascii() and text.isprintable() else ""


def _length(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
