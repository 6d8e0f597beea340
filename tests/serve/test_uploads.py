"""Laws of uploads: slow ones take no place of others, and all have a limited rate, time, number and size."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from running import LIMITS, Serve, Served
from test_middleware import HEAD, begin_upload, wait_for_uploads

from farfeel.serve.limits import Limits, Refusal
from farfeel.serve.metrics import Metrics
from farfeel.serve.uploads import Pace, Upload, Uploads


@contextmanager
def tricklers(served: Served, count: int, every_s: float = 0.02, route: str = "/v1/predict") -> Iterator[None]:
    """Clients that send one byte after the other. A client that the server has closed comes again."""
    stop = threading.Event()

    def trickle() -> None:
        while not stop.is_set():
            head = HEAD.replace("/v1/predict", route).format(length="Content-Length: 3500000\r\n")
            try:
                with socket.create_connection(("127.0.0.1", served.port)) as client:
                    client.sendall(head.encode())
                    while not stop.wait(every_s):
                        client.sendall(b"x")
            except OSError:
                continue

    threads = [threading.Thread(target=trickle) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        wait_for_uploads(served, min(count, served.pool.limits.uploads))
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_slow_uploads_take_no_place_of_recordings(serve: Serve, array: Path) -> None:
    with serve(LIMITS) as served:
        with tricklers(served, LIMITS.slots * 3):
            for _ in range(3):
                assert served.post(file=array).status_code == 200
        served.require_nothing_left()


def test_when_all_places_of_uploads_are_taken_the_slowest_upload_ends(serve: Serve, array: Path) -> None:
    with serve(replace(LIMITS, uploads=3, stall_s=2.0)) as served:
        with tricklers(served, 3):
            time.sleep(0.3)  # until they are slow
            assert served.post(file=array).status_code == 200
        served.require_nothing_left()


def test_slow_uploads_that_come_again_at_once_keep_nobody_out(serve: Serve, array: Path) -> None:
    """There are more of them than places, so some of them always wait for the next place."""
    with serve(replace(LIMITS, uploads=32)) as served:
        with tricklers(served, 48):
            time.sleep(0.3)  # until they are slow
            statuses = [served.post(file=array).status_code for _ in range(10)]
            assert statuses.count(200) >= 9, statuses
        served.require_nothing_left()


def test_slow_uploads_to_the_page_take_no_place_of_recordings(serve: Serve, array: Path) -> None:
    with (
        serve(replace(LIMITS, uploads=3, stall_s=2.0), page=True) as served,
        tricklers(served, 3, route="/ui/gradio_api/upload"),
    ):
        time.sleep(0.3)
        assert served.post(file=array).status_code == 200


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (replace(LIMITS, stall_s=0.3), "expected 4 KB/s or more over 0.3 s"),
        (replace(LIMITS, upload_s=0.3), "took longer than 0.3 s"),
    ],
)
def test_an_upload_of_single_bytes_is_refused(serve: Serve, limits: Limits, reason: str) -> None:
    with serve(limits) as served:
        with begin_upload(served, 3_500_000, 100) as client:
            client.settimeout(0.02)
            answer = b""
            for _ in range(200):
                try:
                    client.sendall(b"x")
                    answer += client.recv(10_000)
                except TimeoutError:
                    continue
                except OSError:
                    break
                if reason.encode() in answer:
                    break
        assert answer.startswith(b"HTTP/1.1 408 "), answer
        assert reason.encode() in answer
        served.require_nothing_left()


def test_an_upload_that_keeps_the_lowest_rate_is_accepted(serve: Serve, array: Path) -> None:
    """It takes several spans, at about the double rate."""
    content = array.read_bytes()[:20_000]
    with serve(replace(LIMITS, stall_s=0.2, upload_kb_s=15)) as served:
        sent = threading.Event()

        def body() -> Iterator[bytes]:
            yield HEAD.partition("{length}\r\n")[2].encode()
            for start in range(0, len(content), 1000):
                yield content[start : start + 1000]
                time.sleep(1000 / 1024 / 30)
            yield b"\r\n--b--\r\n"
            sent.set()

        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        response = httpx.post(f"{served.url}/v1/predict", content=body(), headers=headers, timeout=60)
        assert sent.is_set()
        assert response.status_code != 408, response.text


def test_a_request_that_is_no_upload_has_a_small_body(server: Served) -> None:
    response = httpx.post(f"{server.url}/v1/model", content=bytes(1_100_000), timeout=60)
    assert response.status_code == 413
    assert "expected 1 MB or less" in response.json()["detail"]


def test_all_uploads_together_have_a_limited_size() -> None:
    limits = replace(LIMITS, workers=1, queue=1)  # 8 MB
    uploads = Uploads(limits, Metrics())
    first, second = Upload(limits), Upload(limits)
    with uploads.place(first), uploads.place(second):
        uploads.add(first, 5_000_000)
        with pytest.raises(Refusal, match="uploads are stored") as refused:
            uploads.add(second, 5_000_000)
        assert refused.value.status == 429
    assert (uploads.count, uploads.bytes) == (0, 0)


def test_a_large_upload_that_becomes_slow_gives_its_room_to_others() -> None:
    limits = replace(LIMITS, workers=1, queue=1, stall_s=0.1, upload_kb_s=100_000)
    uploads = Uploads(limits, Metrics())
    first, second = Upload(limits), Upload(limits)
    with uploads.place(first), uploads.place(second):
        uploads.add(first, 5_000_000)
        with first.pace.waiting():
            time.sleep(0.03)
        uploads.add(second, 5_000_000)
        assert first.is_ended
        assert uploads.bytes == 5_000_000
        with pytest.raises(Refusal, match="another one needed its place") as refused:
            asyncio.run(first.next(lambda: asyncio.sleep(60)))
        assert refused.value.status == 408
    assert (uploads.count, uploads.bytes) == (0, 0)


def test_a_pace_counts_the_time_of_the_client_and_not_of_the_server() -> None:
    pace = Pace(0.2, 10)
    time.sleep(0.05)
    assert pace.left_s == 0.2
    with pace.waiting():
        time.sleep(0.05)
    assert 0 < pace.left_s <= 0.15
    pace.add(9)
    assert pace.left_s <= 0.15, "too little"
    pace.add(1)
    assert pace.left_s == pytest.approx(0.2, abs=0.003)


def test_the_memory_of_a_pace_is_limited() -> None:
    pace = Pace(1.0, 10**9)
    for _ in range(100_000):
        pace.add(1)
    assert len(pace._marks) < 10
