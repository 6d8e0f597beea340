"""/v1/stream: live sound, and frames of a camera, over a WebSocket.

    -> {"sample_rate": 48000, "mics": 4, "step_s": 1.0, "format": "float32"}     first message, JSON (`StreamHeader`)
    <- {"ready": true, "window_s": 4.0, "labels": [...]}
    -> binary: samples (n, M), microphones interleaved, little-endian            any n
    -> {"frame_at_s": 1.28}, then binary: a JPEG                                 in the order of their times
    -> {"end": true}
    <- {...}                                                                     a prediction, as /v1/predict answers
    <- {"detail": "..."}, and the connection is closed                           where something is wrong

Messages are taken one after the other, each when the one before is done with: who sends faster than that is slowed down
by the connection. The work is done in a process of its own, as for an upload.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import ExitStack
from typing import Any, TypeVar

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError

from farfeel.recognise.options import Options
from farfeel.serve.limits import Refusal
from farfeel.serve.schema import StreamHeader, StreamTag
from farfeel.serve.worker import END, FRAME, SOUND, Job
from farfeel.serve.workers import Desk, Worker

M = TypeVar("M", bound=BaseModel)
MESSAGE_BYTES = 2**22  # 1.4 s of 16 microphones at 48 kHz; a 12-megapixel JPEG
CODES = {408: 1008, 413: 1009, 415: 1003, 422: 1008, 429: 1013, 503: 1013}  # WebSocket's, for HTTP's


async def serve(socket: WebSocket, desk: Desk, checkpoint: str) -> None:
    """One connection, from its handshake to its end."""
    await socket.accept()
    try:
        await _talk(socket, desk, checkpoint)
        await socket.close(1000)
    except WebSocketDisconnect:
        return
    except Refusal as refusal:
        socket.scope.get("farfeel", {})["detail"] = refusal.detail
        try:
            await socket.send_json({"detail": refusal.detail})
            await socket.close(CODES.get(refusal.status, 1011), refusal.detail.encode()[:120].decode(errors="ignore"))
        except (WebSocketDisconnect, RuntimeError):
            return  # It left before it was told.


async def _talk(socket: WebSocket, desk: Desk, checkpoint: str) -> None:
    limits = desk.limits
    header = _parsed(StreamHeader, await _next(socket, limits.idle_s))
    if header.mics > limits.channels:
        raise Refusal(422, f"the stream has {header.mics} microphones, this server takes {limits.channels}; send fewer")
    job = Job(
        wants=("stream",),
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
        hand = await desk.open_stream(job, stack)
        recipe = desk.recognizer.recipe
        await desk.talk(hand.listen)
        await socket.send_json(
            {"ready": True, "window_s": recipe.audio.seconds, "labels": list(desk.recognizer.emotions)}
        )
        while True:
            message = await _next(socket, limits.idle_s)
            if isinstance(message, bytes):
                await _ask(socket, desk, hand, SOUND + message)
                continue
            tag = _parsed(StreamTag, message)
            if tag.end:
                await _ask(socket, desk, hand, END)
                return
            picture = await _next(socket, limits.idle_s)
            if tag.frame_at_s is None or not isinstance(picture, bytes):
                raise Refusal(
                    422, 'a text message is {"end": true}, or {"frame_at_s": 1.28} with a binary JPEG behind it'
                )
            await _ask(socket, desk, hand, FRAME + struct.pack("<d", tag.frame_at_s) + picture)


async def _ask(socket: WebSocket, desk: Desk, hand: Worker, message: bytes) -> None:
    def exchange() -> Any:
        hand.tell(message)
        return hand.listen()

    for prediction in await desk.talk(exchange):
        await socket.send_json(prediction)


async def _next(socket: WebSocket, idle_s: float) -> str | bytes:
    """The next message, text or binary."""
    try:
        message = await asyncio.wait_for(socket.receive(), idle_s)
    except TimeoutError:
        raise Refusal(408, f"nothing came for {idle_s:g} s; open the stream again") from None
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
    if isinstance(message, bytes):
        raise Refusal(422, 'the first message is binary, expected JSON like {"sample_rate": 16000, "mics": 1}')
    try:
        return model.model_validate_json(message)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'message'}: {fault['msg']}" for fault in error.errors()]
        raise Refusal(422, f"the message does not fit: {'; '.join(faults)}") from None
