"""Laws of the guard: a header that does not end closes its connection, and takes no place of others."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import httpx
import pytest
from running import LIMITS, Serve, Served

HEALTH = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def hasty(serve: Serve) -> Served:  # type: ignore[misc]
    with serve(replace(LIMITS, header_s=0.4)) as served:
        yield served


@contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
        yield client


def require_closed(client: socket.socket, began: float) -> None:
    with suppress(ConnectionResetError):
        assert client.recv(1000) == b""
    assert 0.3 < time.monotonic() - began < 10


@pytest.mark.parametrize("start", [b"", b"G", HEALTH, HEALTH + b"X: " + b"y" * 5000])
def test_a_header_that_stops_is_closed(hasty: Served, start: bytes) -> None:
    began = time.monotonic()
    with connected(hasty) as client:
        client.sendall(start)
        require_closed(client, began)


def test_a_header_that_never_ends_is_closed(hasty: Served) -> None:
    began = time.monotonic()
    with connected(hasty) as client:
        client.sendall(HEALTH)
        with suppress(OSError):  # a broken pipe or a reset
            while time.monotonic() - began < 20:
                client.sendall(b"X-Other: 1\r\n")
                time.sleep(0.05)
    assert 0.3 < time.monotonic() - began < 10


def test_the_second_header_of_a_connection_is_limited_too(hasty: Served) -> None:
    with connected(hasty) as client:
        client.sendall(HEALTH + b"\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += client.recv(10_000)
        began = time.monotonic()
        client.sendall(HEALTH)
        require_closed(client, began)


def test_a_slow_header_that_ends_in_time_is_answered(hasty: Served) -> None:
    with connected(hasty) as client:
        for part in (HEALTH[:10], HEALTH[10:], b"\r\n"):
            client.sendall(part)
            time.sleep(0.05)
        assert client.recv(10_000).startswith(b"HTTP/1.1 200 ")


def test_a_request_in_progress_is_not_closed(hasty: Served) -> None:
    """Its body may take longer than its header."""
    length = 2000
    with connected(hasty) as client:
        client.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: %d\r\n\r\n" % length
        )
        for _ in range(20):
            client.sendall(bytes(length // 20))
            time.sleep(0.04)
        assert client.recv(10_000).startswith(b"HTTP/1.1 4")


def test_many_open_headers_keep_nobody_out(serve: Serve) -> None:
    with serve() as served:
        clients = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(400)]
        try:
            for client in clients:
                with suppress(OSError):  # The oldest ones are closed.
                    client.sendall(HEALTH)
            assert httpx.get(f"{served.url}/v1/health").status_code == 200
            with suppress(ConnectionResetError):
                assert clients[0].recv(1000) == b""
            httpx.get(f"{served.url}/v1/health")
            clients[-1].sendall(b"\r\n")
            assert clients[-1].recv(1000).startswith(b"HTTP/1.1 200 ")
        finally:
            for client in clients:
                client.close()
