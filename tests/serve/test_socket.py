"""Laws of the stream: it gives the results of the library for every block size, and one sentence for every error."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from running import LIMITS, Serve, Served, babble
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from farfeel.recognise.recognizer import Recognizer
from farfeel.show.timeline import as_json
from farfeel.types import Prediction, Timeline

HEADER = {"sample_rate": 16000, "mics": 2, "step_s": 0.5}


@contextmanager
def opened(served: Served, header: object = None, **more: object) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{served.port}/v1/stream", open_timeout=60) as socket:
        socket.send(json.dumps(HEADER | more) if header is None else header)  # type: ignore[arg-type]
        yield socket


def rows(predictions: list[Prediction]) -> list[dict[str, Any]]:
    """Predictions as JSON objects, as the command line writes them."""
    objects: list[dict[str, Any]] = json.loads(
        as_json(Path("stream"), Timeline(tuple(predictions), (), 0, 1, 1), "untrained")
    )
    return objects


def require_same(received: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The probabilities may differ by rounding, because the batches differ."""
    for row, expected_row in zip(received, expected, strict=True):
        assert row.pop("probabilities") == pytest.approx(expected_row.pop("probabilities"), abs=1e-5)
        assert row == expected_row


def remaining_messages(socket: ClientConnection) -> list[dict[str, Any]]:
    """All further messages until the server closes the connection."""
    messages = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(json.loads(socket.recv(timeout=60)))
    return messages


def refusal(socket: ClientConnection, code: int) -> str:
    (last,) = remaining_messages(socket)[-1:]
    assert list(last) == ["detail"]
    assert socket.close_code == code
    sentence: str = last["detail"]
    return sentence


@pytest.mark.parametrize("block", [700, 16000])
def test_a_stream_gives_the_results_of_the_library_for_every_block_size(
    server: Served, recognizer: Recognizer, block: int
) -> None:
    audio = babble(3.0, 2).astype(np.float32)
    stream = recognizer.stream(16000, 2, 0.5)
    expected = [*stream.push(audio), *stream.close()]
    with opened(server) as socket:
        for start in range(0, audio.shape[1], block):
            socket.send(audio[:, start : start + block].T.tobytes())
        socket.send('{"end": true}')
        ready, *received = remaining_messages(socket)
    assert ready["labels"] == list(recognizer.emotions)
    require_same(received, rows(expected))
    assert len(received) == 4
    assert socket.close_code == 1000
    server.require_nothing_left()


def test_a_window_of_silence_has_no_label(server: Served) -> None:
    with opened(server) as socket:
        socket.send(np.zeros((32000, 2), np.float32).tobytes())
        socket.send('{"end": true}')
        _, *received = remaining_messages(socket)
    assert [(each["label"], each["probabilities"]) for each in received] == [(None, {})] * 2


def test_16_bit_samples_and_camera_frames_are_accepted(server: Served, recognizer: Recognizer) -> None:
    audio = (babble(2.0, 2) * 32767).astype("<i2")
    picture = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    stream = recognizer.stream(16000, 2, 0.5, face="whole")
    expected = []
    with opened(server, format="int16", face="whole") as socket:
        for tenth in range(20):
            block = audio[:, tenth * 1600 : (tenth + 1) * 1600]
            stream.push_frame(cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1)[..., ::-1], tenth / 10)
            expected += stream.push(block.astype(np.float32) / 32768)
            socket.send(json.dumps({"frame_at_s": tenth / 10}))
            socket.send(jpeg)
            socket.send(block.T.tobytes())
        socket.send('{"end": true}')
        _, *received = remaining_messages(socket)
    expected += stream.close()
    require_same(received, rows(expected))
    assert received[0]["modalities"] == ["audio", "video"]


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"\x00\x01", "binary"),
        ("nonsense", "JSON"),
        ("{}", "sample_rate"),
        ('{"sample_rate": 10}', "8000"),
        ('{"sample_rate": 16000, "mics": 5}', "5 microphones"),
        ('{"sample_rate": 16000, "format": "mp3"}', "int16"),
        ('{"sample_rate": 16000, "step_s": 0}', "step_s"),
        ('{"sample_rate": 16000, "pickle": 1}', "pickle"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_a_wrong_header_gets_one_sentence(server: Served, header: object, problem: str) -> None:
    with opened(server, header) as socket:
        assert problem in refusal(socket, 1008)
    server.require_nothing_left()


@pytest.mark.parametrize(
    ("messages", "code", "problem"),
    [
        ([b"abc"], 1008, "a multiple of 8"),
        (['{"frame_at_s": 0.1}', b"no jpeg"], 1003, "JPEG"),
        (['{"frame_at_s": 0.1}', "text"], 1008, "binary JPEG"),
        (['{"frame_at_s": NaN}'], 1008, "frame_at_s"),
        (["{}", b""], 1008, "frame_at_s"),
        (['{"other": 1}'], 1008, "other"),
        ([bytes(2**22 + 8)], 1009, "smaller blocks"),
    ],
)
def test_a_wrong_message_gets_one_sentence(server: Served, messages: list[Any], code: int, problem: str) -> None:
    with opened(server) as socket:
        for message in messages:
            socket.send(message)
        assert problem in refusal(socket, code)
    server.require_nothing_left()


def test_frames_out_of_order_get_one_sentence(server: Served) -> None:
    jpeg = cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    with opened(server) as socket:
        for moment in (1, 0.5):
            socket.send(json.dumps({"frame_at_s": moment}))
            socket.send(jpeg)
        assert "order" in refusal(socket, 1008)


def test_a_message_far_too_large_closes_the_stream(server: Served) -> None:
    with opened(server) as socket:
        with suppress(ConnectionClosed):
            socket.send(bytes(2**23))
        remaining_messages(socket)
        assert socket.close_code in (1009, 1006)  # 1006: the client was still sending
    server.require_nothing_left()


def test_streams_are_limited_in_number_length_and_idle_time(serve: Serve) -> None:
    with serve(replace(LIMITS, workers=1, stream_s=1.0, idle_s=0.5)) as served:
        with opened(served) as first:
            first.recv()
            with opened(served) as second:
                assert "1 streams are open" in refusal(second, 1013)
            assert "no message arrived" in refusal(first, 1008)
        with opened(served) as socket:
            socket.send(np.zeros((20000, 2), np.float32).tobytes())
            assert "this server accepts 1 s" in refusal(socket, 1009)
        served.require_nothing_left()


def test_a_stream_that_sends_too_little_audio_gives_its_place_to_others(serve: Serve) -> None:
    """Its messages come in time, but each has one sample."""
    with serve(replace(LIMITS, workers=1, idle_s=0.6)) as served:
        with opened(served) as slow:
            slow.recv()
            with suppress(ConnectionClosed):
                for _ in range(200):
                    slow.send(bytes(8))
                    time.sleep(0.02)
            assert "too slow, expected 0.06 s of audio or more in each 0.6 s" in refusal(slow, 1008)
        with opened(served) as steady:
            steady.recv()
            for _ in range(10):
                steady.send(bytes(8 * 1600))
                time.sleep(0.12)
            steady.send('{"end": true}')
            assert len(remaining_messages(steady)) == 1
            assert steady.close_code == 1000
        served.require_nothing_left()


def test_a_stream_that_does_not_begin_is_closed(serve: Serve) -> None:
    with (
        serve(replace(LIMITS, header_s=0.2)) as served,
        connect(f"ws://127.0.0.1:{served.port}/v1/stream") as socket,
    ):
        assert "no message arrived for 0.2 s" in refusal(socket, 1008)


def test_a_foreign_exception_in_a_stream_is_one_sentence(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.pool, "classify", failing)
    with opened(server) as socket:
        socket.send(babble(3.0, 2).T.astype(np.float32).tobytes())
        assert "cannot be processed (ZeroDivisionError in" in refusal(socket, 1008)
    server.require_nothing_left()


def failing(*_: object) -> None:
    raise ZeroDivisionError


def test_a_client_that_closes_without_an_end_leaves_nothing_behind(server: Served) -> None:
    for messages in ([], [babble(1.0, 2).T.astype(np.float32).tobytes()] * 3):
        socket = connect(f"ws://127.0.0.1:{server.port}/v1/stream")
        socket.send(json.dumps(HEADER))
        for message in messages:
            socket.send(message)
        socket.socket.close()
        server.require_nothing_left()


def test_a_stream_requires_the_key(serve: Serve) -> None:
    with serve(key="open") as served:
        url = f"ws://127.0.0.1:{served.port}/v1/stream"
        with pytest.raises(InvalidStatus) as refused:
            connect(url)
        assert refused.value.response.status_code == 401
        with connect(url, additional_headers={"Authorization": "Bearer open"}) as socket:
            socket.send(json.dumps(HEADER))
            assert json.loads(socket.recv())["ready"]
        served.require_nothing_left()
