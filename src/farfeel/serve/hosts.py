"""Which names the server answers to, and which pages may use it.

A web page in a browser on this machine can send requests to this server, too. Two checks stop foreign pages:

- The `Host` of a request must be a name of this server. A foreign page can let its own name point to this machine (DNS
  rebinding), but then the browser sends that name as `Host`.
- The `Origin` of a request, if there is one, must be this server. A browser states the page that opens a WebSocket or
  sends a form. Programs state none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from farfeel.serve.limits import Refusal

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NETLOC = re.compile(r"(?:\[([0-9a-f:.]{2,45})\]|([a-z0-9_.-]{1,253}?)\.?)(?::(\d{1,5}))?")


class Hosts:
    """The names and addresses of a server.

    Args:
        names: Names and addresses to accept in addition to those of this machine itself (`LOOPBACK`).
        any_address: Whether to accept every IP address. A foreign page cannot make a browser send one as `Host` that is
            not the page's own.
    """

    def __init__(self, names: Iterable[str] = (), any_address: bool = False) -> None:
        self.names = {_canonical(name.lower()) for name in (*LOOPBACK, *names)}
        self.any_address = any_address

    def check(self, headers: Headers) -> None:
        """Check the headers of a request.

        Raises:
            Refusal: The request is for another host, or from the page of another host (403).
        """
        host = split_netloc(headers.get("host", ""))
        if host is None or not self._accepts(host[0]):
            shown = headers.get("host", "")[:100]
            raise Refusal(
                403,
                f"the request is for the host {shown!r}, expected {', '.join(sorted(self.names))}"
                f"{' or an IP address' if self.any_address else ''}; the operator may add a name with --allow-host",
            )
        for origin in headers.getlist("origin"):
            if _netloc_of(origin) != host:
                raise Refusal(
                    403,
                    f"the request comes from the page {origin[:100]!r}, expected no other page than that of this "
                    "server; open the server's own page, or send the request from a program",
                )

    def _accepts(self, name: str) -> bool:
        return name in self.names or (self.any_address and is_address(name))


def split_netloc(text: str) -> tuple[str, str] | None:
    """`NAME:PORT` → name and port, in a form that can be compared. The port may be empty. None: it has another form."""
    match = NETLOC.fullmatch(text.lower())
    return None if match is None else (_canonical(match[1] or match[2]), match[3] or "")


def is_address(name: str) -> bool:
    """Whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether a name or an address means this machine only."""
    return name == "localhost" or (is_address(name) and ipaddress.ip_address(name).is_loopback)


def _canonical(name: str) -> str:
    return ipaddress.ip_address(name).compressed if is_address(name) else name


def _netloc_of(origin: str) -> tuple[str, str] | None:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return split_netloc(parts.netloc) if parts.scheme in ("http", "https") else None
