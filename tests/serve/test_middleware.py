"""Laws of the middleware: sizes are counted, keys are required, slots are limited, and nothing is left behind."""

import base64
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from running import LIMITS, Serve, Served

HEAD = (
    "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n{length}\r\n"
    '--b\r\nContent-Disposition: form-data; name="file"; filename="clip.wav"\r\n\r\n'
)


def begin_upload(served: Served, stated: int, sent: int) -> socket.socket:
    """An upload that stops after `sent` bytes."""
    client = socket.create_connection(("127.0.0.1", served.port), timeout=60)
    client.sendall(HEAD.format(length=f"Content-Length: {stated}\r\n").encode() + bytes(sent))
    return client


def wait_for_uploads(served: Served, count: int) -> None:
    for _ in range(1000):
        if served.pool.uploads.count == count:
            return
        time.sleep(0.01)
    raise AssertionError(f"there are {served.pool.uploads.count} uploads, expected {count}")


@contextmanager
def busy(served: Served) -> Iterator[None]:
    """All slots are taken."""
    with ExitStack() as stack:
        for _ in range(served.pool.limits.slots):
            stack.enter_context(served.pool.slot())
        yield


def test_a_body_of_two_gigabytes_is_refused_because_of_its_header(server: Served) -> None:
    with begin_upload(server, 2**31, 0) as client:
        answer = client.recv(10_000) + client.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"this server accepts 4 MB" in answer
    server.require_nothing_left()


def test_a_body_without_a_length_is_refused_when_it_becomes_too_large(server: Served) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield HEAD.partition("{length}\r\n")[2].encode()
        while sent < 2**31:
            sent += 2**16
            yield bytes(2**16)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = httpx.post(f"{server.url}/v1/predict", content=body(), headers=headers, timeout=60)
    assert response.status_code == 413
    assert "this server accepts 4 MB" in response.json()["detail"]
    assert sent < 2**26, "the server went on reading"
    server.require_nothing_left()


def test_an_interrupted_upload_leaves_one_log_line_and_nothing_else(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "farfeel.serve"):
        for sent in (0, 1000, 3_000_000):
            with begin_upload(server, 3_500_000, sent):
                wait_for_uploads(server, 1)
            server.require_nothing_left()
    assert len(caplog.records) == 3
    assert all(record.levelno == logging.INFO for record in caplog.records)


def test_a_stalled_upload_is_refused(serve: Serve) -> None:
    with (
        serve(replace(LIMITS, stall_s=0.2)) as served,
        begin_upload(served, 3_500_000, 2_000_000) as client,
    ):
        assert client.recv(10_000).startswith(b"HTTP/1.1 408 ")
        served.require_nothing_left()


def test_a_client_that_leaves_during_the_processing_frees_the_worker(
    server: Served, array: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = HEAD.partition("{length}\r\n")[2].encode() + array.read_bytes() + b"\r\n--b--\r\n"
    head = HEAD.partition("\r\n--b")[0].format(length=f"Content-Length: {len(body)}\r\n").encode()
    with caplog.at_level(logging.INFO, "farfeel.serve"):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(head + b"\r\n" + body)
        while not caplog.records:
            time.sleep(0.01)
    server.require_nothing_left()
    assert len(caplog.records) == 1


def test_when_all_slots_are_taken_the_response_states_when_to_try_again(serve: Serve, array: Path) -> None:
    with serve() as served:
        with busy(served):
            for content in (
                array.read_bytes(),
                bytes(4_000_000),
            ):  # a short upload, and one that is longer than the response takes
                response = served.post(file=content)
                assert response.status_code == 429
            assert int(response.headers["Retry-After"]) >= 1
            assert "try again" in response.json()["detail"]
            assert httpx.get(f"{served.url}/v1/health").status_code == 200, "other routes still respond"
        served.require_nothing_left()
        assert served.post(file=array).status_code == 200


def test_a_busy_server_refuses_before_the_body_is_sent(server: Served) -> None:
    with busy(server), begin_upload(server, 3_500_000, 0) as client:
        assert client.recv(10_000).startswith(b"HTTP/1.1 429 ")
    server.require_nothing_left()


def test_without_the_key_only_the_health_route_responds(serve: Serve, array: Path) -> None:
    with serve(key="sésame") as served:
        assert httpx.get(f"{served.url}/v1/health").status_code == 200
        basic = base64.b64encode("anyone:sésame".encode()).decode()
        wrong = base64.b64encode(b"anyone:other").decode()
        for route in ("/v1/model", "/metrics", "/openapi.json", "/nothing", "/v1/stream"):
            for headers in (
                {},
                {"Authorization": "Bearer other"},
                {"X-API-Key": ""},
                {"Authorization": f"Basic {wrong}"},
                {"Authorization": "Basic ?"},
            ):
                assert httpx.get(f"{served.url}{route}", headers=headers).status_code == 401
        for key in (
            {"Authorization": b"Bearer " + "sésame".encode()},
            {"X-API-Key": "sésame".encode()},
            {"Authorization": f"Basic {basic}".encode()},
        ):
            assert httpx.get(f"{served.url}/v1/model", headers=key).status_code == 200
        assert served.post(file=array).status_code == 401
        served.require_nothing_left()


def test_a_request_that_is_not_a_form_is_refused(server: Served) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=b", "text/plain"):
        response = httpx.post(f"{server.url}/v1/predict", content=b"nonsense", headers={"Content-Type": kind})
        assert response.status_code in (400, 422), response.text
        assert isinstance(response.json()["detail"], str)
    server.require_nothing_left()
