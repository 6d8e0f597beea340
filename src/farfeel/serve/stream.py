"""/v1/stream: live audio, and frames of a camera, over a WebSocket.

    -> {"sample_rate": 48000, "mics": 4, "step_s": 1.0, "format": "float32"}     first message, JSON (`StreamHeader`)
    <- {"ready": true, "window_s": 4.0, "labels": [...]}
    -> binary: samples (n, M), microphones interleaved, little-endian            any n
    -> {"frame_at_s": 1.28}, then binary: a JPEG                                 in the order of their times
    -> {"end": true}
    <- {...}                                                                     a prediction, as from /v1/predict
    <- {"detail": "..."}, and the connection is closed                           after an error

A stream takes the place of others. So it must bring a tenth of a second of audio per second (`Limits.stream_pace`).
Messages are processed one after the other. If a client sends them faster than they are processed, the connection slows
it down. Each stream has a worker process of its own, as an upload has.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import ExitStack, nullcontext
from typing import Any, TypeVar

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError

from farfeel.recognise.options import Options
from farfeel.serve.limits import Refusal
from farfeel.serve.schema import StreamHeader, StreamTag
from farfeel.serve.uploads import Pace
from farfeel.serve.worker import AUDIO, END, FRAME, Job
from farfeel.serve.workers import Worker, WorkerPool

M = TypeVar("M", bound=BaseModel)
MESSAGE_BYTES = 2**22  # 1.4 s of 16 microphones at 48 kHz; a 12-megapixel JPEG
# HTTP status → close code of the WebSocket
CLOSE_CODES = {408: 1008, 413: 1009, 415: 1003, 422: 1008, 429: 1013, 503: 1013}


async def serve(socket: WebSocket, pool: WorkerPool, checkpoint: str) -> None:
    """Handle one connection, from the handshake to its end.

    Args:
        socket: The connection.
        pool: Provides the worker.
        checkpoint: Name of the checkpoint, for the predictions.
    """
    await socket.accept()
    try:
        await _handle_messages(socket, pool, checkpoint)
        await socket.close(1000)
    except WebSocketDisconnect:
        return
    except Refusal as refusal:
        socket.scope.get("farfeel", {})["detail"] = refusal.detail
        try:
            await socket.send_json({"detail": refusal.detail})
            await socket.close(
                CLOSE_CODES.get(refusal.status, 1011), refusal.detail.encode()[:120].decode(errors="ignore")
            )
        except (WebSocketDisconnect, RuntimeError):
            return  # The client closed the connection before it was informed.


async def _handle_messages(socket: WebSocket, pool: WorkerPool, checkpoint: str) -> None:
    limits = pool.limits
    header = _parsed(StreamHeader, await _next_message(socket, limits.header_s))
    if header.mics > limits.channels:
        raise Refusal(
            422, f"the stream has {header.mics} microphones, this server accepts {limits.channels}; send fewer"
        )
    job = Job(
        results=("stream",),
        limits=limits,
        name="stream",
        checkpoint=checkpoint,
        files=0,
        options=Options(face=header.face, abstain_below=header.abstain_below),
        step_s=header.step_s,
        sample_rate=header.sample_rate,
        stream_mics=header.mics,
        sample_format=header.format,
    )
    with ExitStack() as stack:
        worker = await pool.open_stream(job, stack)
        recipe = pool.recognizer.recipe
        await pool.in_stream_thread(worker.receive_answer)
        await socket.send_json(
            {"ready": True, "window_s": recipe.audio.seconds, "labels": list(pool.recognizer.emotions)}
        )
        pace = Pace(limits.idle_s, limits.stream_pace * limits.idle_s)  # in seconds of audio
        bytes_per_s = header.sample_rate * header.mics * (2 if header.format == "int16" else 4)
        while True:
            message = await _next_message(socket, limits.idle_s, pace)
            if isinstance(message, bytes):
                pace.add(len(message) / bytes_per_s)
                await _exchange(socket, pool, worker, AUDIO + message)
                continue
            tag = _parsed(StreamTag, message)
            if tag.end:
                await _exchange(socket, pool, worker, END)
                return
            picture = await _next_message(socket, limits.idle_s, pace)
            if tag.frame_at_s is None or not isinstance(picture, bytes):
                raise Refusal(
                    422, 'a text message must be {"end": true}, or {"frame_at_s": 1.28} followed by a binary JPEG'
                )
            await _exchange(socket, pool, worker, FRAME + struct.pack("<d", tag.frame_at_s) + picture)


async def _exchange(socket: WebSocket, pool: WorkerPool, worker: Worker, message: bytes) -> None:
    """Send a message to the worker, and the resulting predictions to the client."""

    def send_and_receive() -> Any:
        worker.send(message)
        return worker.receive_answer()

    for prediction in await pool.in_stream_thread(send_and_receive):
        await socket.send_json(prediction)


async def _next_message(socket: WebSocket, idle_s: float, pace: Pace | None = None) -> str | bytes:
    """The next message, text or binary. Raises Refusal if it is too late or too large, or if the stream is too slow."""
    is_slow = pace is not None and pace.left_s < idle_s
    try:
        with pace.waiting() if pace else nullcontext():
            message = await asyncio.wait_for(
                socket.receive(), max(pace.left_s, 0.0) if pace is not None and is_slow else idle_s
            )
    except TimeoutError:
        if pace is not None and is_slow:
            raise Refusal(
                408,
                f"the stream is too slow, expected {pace.required:.3g} s of audio or more in each {pace.span_s:g} s; "
                "open the stream again when there is audio",
            ) from None
        raise Refusal(408, f"no message arrived for {idle_s:g} s; open the stream again") from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    content: str | bytes | None = message.get("bytes")
    content = message.get("text") if content is None else content
    assert content is not None, "a message is text or binary"
    if len(content) > MESSAGE_BYTES:
        raise Refusal(
            413, f"a message has {len(content)} bytes, expected {MESSAGE_BYTES} or fewer; send smaller blocks"
        )
    return content


def _parsed(model: type[M], message: str | bytes) -> M:
    """A text message as an object. Raises Refusal if it does not fit the schema."""
    if isinstance(message, bytes):
        raise Refusal(422, 'the first message is binary, expected JSON like {"sample_rate": 16000, "mics": 1}')
    try:
        return model.model_validate_json(message)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'message'}: {fault['msg']}" for fault in error.errors()]
        raise Refusal(422, f"the message does not fit the schema: {'; '.join(faults)}") from None
