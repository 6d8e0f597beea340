"""HTTP as a polite guest: resumed, patient, only http and https, and nothing about the user sent along.

A cut, stalled or crawling connection is asked again for the rest; a host that says "later" (429, 5xx) is asked later,
when it says so or after doubling waits with jitter; any other refusal is final.
"""

from __future__ import annotations

import email.utils
import json
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

from farfeel.support.text import one_line
from farfeel.types import FarfeelError

Found = TypeVar("Found")
Thing = TypeVar("Thing")

CHUNK = 1 << 18  # bytes
TIMEOUT_S = (10.0, 30.0)  # to connect, and between two reads
SLOW_S, SLOWEST = 30.0, 1000  # Below so many bytes a second for so long, a new connection is worth a try.
TRIES = 6  # in a row without a new byte
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 120.0
REDIRECTS = 10
DOCUMENT_BYTES = 64_000_000  # of a list of files; a longer answer is none
_LATER = (408, 429, 500, 502, 503, 504)
_REMEDIES = {
    401: "the host wants a log-in; fetch it with a browser",
    403: "the host refuses, for good or because it was asked too often; look at it with a browser, or try in an hour",
    404: "it has moved; look for it with a browser, or correct --mirror",
}


class StoppedError(Exception):
    """This thread ends because another has failed, or the user has interrupted; there is nothing more to say."""


class _LaterError(Exception):
    """Worth another try, after `wait_s` seconds if the host named a time. The message says what happened."""

    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class _Session(requests.Session):
    """Leaves redirects alone: requests reads and looks at them even where it is told not to follow."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class Web:
    """Requests of one command. `mirror` (scheme://host) takes the place of every host; paths stay. `stop` ends waits
    and transfers in all threads."""

    def __init__(self, mirror: str | None = None, jobs: int = 4) -> None:
        self.jobs = jobs
        self.stop = threading.Event()
        self._mirror = _require_mirror(mirror) if mirror else None
        self._session = _Session()
        self._session.headers.update({"User-Agent": "farfeel", "Accept-Encoding": "identity"})
        self._session.auth = lambda request: request  # else requests looks for a password in ~/.netrc
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=jobs))
        self._session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=jobs))

    def go_on(self) -> None:
        """Raise StoppedError where another thread has failed, or the user has interrupted."""
        if self.stop.is_set():
            raise StoppedError

    def document(self, url: str) -> bytes:
        """A small document. Raises FarfeelError where it cannot be had."""
        place = self._place(url)

        def attempt() -> bytes:
            with self._ask(place) as answer:
                held = bytearray()
                for chunk in self._chunks(answer):
                    held += chunk
                    if len(held) > DOCUMENT_BYTES:
                        raise FarfeelError(f"{place} is longer than {DOCUMENT_BYTES} bytes, expected a list of files")
                return bytes(held)

        return self._patiently(place, attempt)

    def json(self, url: str) -> Any:
        try:
            return json.loads(self.document(url))
        except ValueError as error:
            raise FarfeelError(f"{url} answered no JSON ({error}); try later, or correct --mirror") from None

    def size(self, url: str) -> int | None:
        """Bytes of a file, where its host tells."""
        place = self._place(url)

        def attempt() -> int | None:
            with self._ask(place) as answer:
                return _announced(answer)

        return self._patiently(place, attempt)

    def fetch(self, url: str, size: int | None, partial: Path, is_checked: bool, gained: Callable[[int], None]) -> str:
        """A file → `partial`, which goes on where it ends if its host can tell that the file is still the same, or if
        a checksum will (`is_checked`). Gives its ETag (or date), which is kept beside it. `gained` is told of bytes,
        also of those that were there, and of lost ones (less than 0)."""
        place = self._place(url)
        gained(_length(partial))
        self._patiently(place, lambda: self._fetch(place, size, partial, is_checked, gained), lambda: _length(partial))
        return _read(_validator(partial))

    def _fetch(
        self, place: str, size: int | None, partial: Path, is_checked: bool, gained: Callable[[int], None]
    ) -> None:
        have, validator = _length(partial), _read(_validator(partial))
        if have and have == size:
            return  # killed between the last byte and the move
        if (size is not None and have > size) or not (validator or is_checked):
            gained(-have)
            forget(partial)
            have = 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and validator:
            headers["If-Range"] = validator
        with self._ask(place, headers) as answer:
            goes_on = have > 0 and _begins_at(answer, have) and validator in ("", _state_of(answer))
            if answer.status_code != 200 and not goes_on:
                gained(-have)
                forget(partial)
                raise _LaterError("sent another part than was asked for", 0.0)
            announced = _announced(answer)
            whole = None if announced is None else announced + (have if goes_on else 0)
            if None not in (size, whole) and size != whole:
                raise FarfeelError(
                    f"{place} has {whole} bytes, expected {size} as its host's list says; try later or another --mirror"
                )
            with partial.open("ab" if goes_on else "wb") as file:
                if not goes_on:  # Emptied first: else a kill would leave new state beside old bytes.
                    gained(-have)
                    _validator(partial).write_text(_state_of(answer))
                for chunk in self._chunks(answer):
                    file.write(chunk)
                    gained(len(chunk))
                    if size is not None and file.tell() > size:
                        raise FarfeelError(f"{place} goes on after {size} bytes, expected its end; try later")
                file.flush()
                os.fsync(file.fileno())  # before it takes its name
        if whole is not None and _length(partial) < whole:
            raise _LaterError("ended early")

    def _ask(self, place: str, headers: dict[str, str] | None = None) -> requests.Response:
        """The first bytes of an answer: all of the file (200), a part (206), or no such part (416)."""
        for _ in range(REDIRECTS):
            try:
                answer = self._session.get(
                    place, headers=headers, stream=True, timeout=TIMEOUT_S, allow_redirects=False
                )
            except ValueError as error:  # of requests' errors, those that no patience mends
                raise FarfeelError(f"{place} is no address ({error}); correct --mirror") from None
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                raise _LaterError(f"cannot be reached ({_reason(error)})") from None
            if not answer.is_redirect:
                break
            answer.close()
            place = _redirected(place, answer.headers["location"])
        else:
            raise FarfeelError(f"{place} leads from place to place, expected a file; correct --mirror")
        status = answer.status_code
        if status == 200 or (status in (206, 416) and headers):
            return answer
        answer.close()
        if status in _LATER:
            raise _LaterError(f"answered {status}", _retry_after_s(answer.headers.get("retry-after")))
        remedy = _REMEDIES.get(status, "look at it with a browser")
        raise FarfeelError(f"{place} answered {status} ({answer.reason}), expected a file; {remedy}")

    def _chunks(self, answer: requests.Response) -> Iterator[bytes]:
        began_s, came = time.monotonic(), 0
        while True:
            try:  # read1 gives what has come: read would wait for a whole chunk, however slowly it drips
                chunk = answer.raw.read1(CHUNK, decode_content=True)
            except (urllib3.exceptions.HTTPError, requests.RequestException, TimeoutError, ConnectionError) as error:
                raise _LaterError(f"was cut ({_reason(error)})") from None
            if not chunk:
                return
            self.go_on()
            yield chunk
            came += len(chunk)
            if (waited_s := time.monotonic() - began_s) > SLOW_S:
                if came < waited_s * SLOWEST:
                    raise _LaterError(f"sent {came} bytes in {waited_s:.0f} s")
                began_s, came = time.monotonic(), 0

    def _patiently(self, place: str, attempt: Callable[[], Found], length: Callable[[], int] = lambda: 0) -> Found:
        failures, longest = 0, length()
        while True:
            self.go_on()
            try:
                return attempt()
            except _LaterError as later:
                failures = 1 if length() > longest else failures + 1
                longest = length()
                if failures == TRIES:
                    raise FarfeelError(
                        f"{place} {later}, {TRIES} times in a row; what came is kept: run the same command again later"
                    ) from None
                doubled_s = FIRST_WAIT_S * 2 ** (failures - 1) * random.uniform(0.5, 1.5)
                self._pause(min(doubled_s if later.wait_s is None else later.wait_s, LONGEST_WAIT_S))

    def _pause(self, seconds: float) -> None:
        self.stop.wait(seconds)

    def _place(self, url: str) -> str:
        _require_http(url)
        return urlunsplit((*self._mirror, *urlsplit(url)[2:])) if self._mirror else url


def in_parallel(
    web: Web, work: Callable[[Thing], Found], things: Sequence[Thing], done: Callable[[int], None] = lambda count: None
) -> list[Found]:
    """`work` on each, in order, `web.jobs` at a time. The first failure stops all threads and is raised."""
    with ThreadPoolExecutor(web.jobs) as pool:
        futures = [pool.submit(work, thing) for thing in things]
        try:
            for count, future in enumerate(as_completed(futures), start=1):
                future.result()
                done(count)
        except BaseException:
            web.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        return [future.result() for future in futures]


def forget(partial: Path) -> None:
    """Remove an unfinished transfer."""
    partial.unlink(missing_ok=True)
    _validator(partial).unlink(missing_ok=True)


def _require_http(url: str) -> None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        _ = parts.port  # raises where it is no number
    except ValueError:
        known = False
    if not known:
        raise FarfeelError(f"{url} is no address like https://host/path (without a password); correct --mirror")


def _require_mirror(mirror: str) -> tuple[str, str]:
    _require_http(mirror)
    parts = urlsplit(mirror)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise FarfeelError(
            f"--mirror {mirror} has a path, expected scheme and host as in https://mirror.org; shorten it"
        )
    return parts.scheme, parts.netloc


def _redirected(old: str, location: str) -> str:
    """To https, or to the same host in the same way; nowhere else."""
    try:
        new = urljoin(old, location)
    except ValueError:
        new = location
    _require_http(new)
    if urlsplit(new).scheme != "https" and urlsplit(new)[:2] != urlsplit(old)[:2]:
        raise FarfeelError(f"{old} leads to {new}, expected https or the same host; look at it with a browser")
    return new


def _announced(answer: requests.Response) -> int | None:
    """Bytes of the answer, where it says so and is not packed for the way."""
    length = answer.headers.get("content-length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) and "content-encoding" not in answer.headers else None


def _begins_at(answer: requests.Response, have: int) -> bool:
    return answer.status_code == 206 and answer.headers.get("content-range", "").startswith(f"bytes {have}-")


def _state_of(answer: requests.Response) -> str:
    """What tells this state of the file from another: its ETag, if that stands for bytes, else its date."""
    etag = answer.headers.get("etag", "")
    return etag if etag.startswith('"') else answer.headers.get("last-modified", "")


def _retry_after_s(text: str | None) -> float | None:
    """Seconds, or a date."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    """The innermost words of an error that carries others."""
    inner: Any = error
    while isinstance(getattr(inner, "reason", None) or (inner.args or [None])[0], Exception):
        inner = getattr(inner, "reason", None) or inner.args[0]
    return one_line(inner) or type(inner).__name__


def _validator(partial: Path) -> Path:
    return partial.with_name(partial.name + ".etag")


def _read(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


def _length(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
