"""`farfeel serve` under mixed load for a long time: errors, latency, memory, open files and files that remain.

    python -m benchmarks.soak CLIP… [--minutes 30] [--checkpoint CKPT]

The server runs on this machine as a process of its own. These clients use it at the same time, each in a loop:

    predict    two clients send recordings to /v1/predict
    timeline   one sends recordings to /v1/timeline
    stream     one sends audio to /v1/stream as fast as it is spoken
    page       one uploads recordings as the page does and presses its button
    slow       twelve send an upload with one byte every 9 s; four send a header that never ends
    leaving    one closes its connection in the middle of an upload, of a recording or of a stream
    garbage    one sends damaged recordings, wrong requests, wrong messages, foreign hosts and random bytes

A response counts as wrong if its status is not among those that the client expects. After a refusal (429) a client
waits as long as the server asks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import soundfile
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from benchmarks.serve import memory_mb, processes, start

SAMPLE_S = 10.0  # between two looks at the server
ROWS = 10  # rows of the table of memory
SLOW_S = 9.0  # between two bytes of a slow client
STREAM_S = 8.0
BUSY = (429,)
REFUSED = (400, 403, 404, 405, 408, 413, 415, 422, 429)
Clip = tuple[str, bytes]
Client = Callable[["Soak", random.Random], Awaitable[None]]


class Soak:
    """The clients of one run, and what they found.

    Args:
        url: Address of the server.
        clips: Names and contents of good recordings.
        end_s: When to stop, by `time.monotonic`.
    """

    def __init__(self, url: str, clips: Sequence[Clip], end_s: float) -> None:
        self.url, self.clips, self.end_s = url, clips, end_s
        self.address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self.statuses: dict[str, Counter[str]] = defaultdict(Counter)
        self.wrong: dict[str, Counter[str]] = defaultdict(Counter)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.http = httpx.AsyncClient(base_url=url, timeout=300, limits=httpx.Limits(max_connections=100))

    async def run(self) -> None:
        """Run all clients until the end."""
        numbered = [(client, number) for client, count in CLIENTS for number in range(count)]
        async with self.http:
            await asyncio.gather(*(self._repeat(client, number) for client, number in numbered))

    async def _repeat(self, client: Client, number: int) -> None:
        rng = random.Random(f"{client.__name__} {number}")
        while time.monotonic() < self.end_s:
            try:
                async with asyncio.timeout(max(0.0, self.end_s - time.monotonic()) + 60):
                    await client(self, rng)
            except (OSError, httpx.HTTPError, WebSocketException, TimeoutError) as error:
                self.found(client.__name__, type(error).__name__, 0.0, ())

    def found(self, kind: str, status: int | str, seconds: float, expected: Sequence[int | str]) -> None:
        """Count one answer."""
        self.statuses[kind][str(status)] += 1
        if status not in expected:
            self.wrong[kind][str(status)] += 1
        elif status == 200:
            self.seconds[kind].append(seconds)

    async def send(self, kind: str, expected: Sequence[int], method: str, route: str, **options: Any) -> httpx.Response:
        """Send one request, count its answer, and wait if the server is busy."""
        began = time.monotonic()
        response = await self.http.request(method, route, **options)
        self.found(kind, response.status_code, time.monotonic() - began, expected)
        if response.status_code == 429:
            await asyncio.sleep(min(float(response.headers.get("Retry-After", 1)), self.end_s - time.monotonic()))
        return response


async def predict(soak: Soak, rng: random.Random) -> None:
    await soak.send("predict", (200, *BUSY), "POST", "/v1/predict", files={"file": rng.choice(soak.clips)})
    await asyncio.sleep(0.5)


async def timeline(soak: Soak, rng: random.Random) -> None:
    files = {"file": rng.choice(soak.clips)}
    await soak.send("timeline", (200, *BUSY), "POST", "/v1/timeline", files=files, data={"step_s": "1"})
    await asyncio.sleep(0.5)


async def stream(soak: Soak, rng: random.Random) -> None:
    audio = rng.choice([-0.1, 0.1]) * np.sign(np.sin(np.arange(round(STREAM_S * 16000)) / 20)).astype(np.float32)
    async with connect(f"{soak.url.replace('http', 'ws')}/v1/stream") as socket:
        await socket.send(json.dumps({"sample_rate": 16000, "mics": 2}))
        await socket.recv()
        begun = time.monotonic()
        for first in range(0, len(audio), 1600):
            await socket.send(np.repeat(audio[first : first + 1600, None], 2, axis=1).tobytes())
            await asyncio.sleep(max(0.0, begun + first / 16000 - time.monotonic()))
        await socket.send('{"end": true}')
        ended = time.monotonic()
        windows = [json.loads(message) async for message in socket]
        is_right = socket.close_code == 1000 and all("label" in window for window in windows) and windows
        soak.found("stream", 200 if is_right else f"closed with {socket.close_code}", time.monotonic() - ended, (200,))


async def page(soak: Soak, rng: random.Random) -> None:
    config = (await soak.http.get("/ui/config")).json()
    function = next(each["id"] for each in config["dependencies"] if len(each["inputs"]) == 6)
    began = time.monotonic()
    name, content = rng.choice(soak.clips)
    name = f"{rng.getrandbits(32)}-{name}"  # So the server stores each one as a file of its own.
    files = {"files": (name, content)}
    uploaded = await soak.send("page upload", (200, *BUSY), "POST", "/ui/gradio_api/upload", files=files)
    if uploaded.status_code != 200:
        return
    file = {"path": uploaded.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    clip = [file, None] if name.endswith(".mp4") else [None, file]
    session = uuid.UUID(int=rng.getrandbits(128)).hex
    joined = {"data": [*clip, "", "largest", "both", 0], "fn_index": function, "session_hash": session}
    answer = await soak.http.post("/ui/gradio_api/queue/join", json=joined)
    status: int | str = answer.status_code
    if status == 200:
        status = "no answer"
        async with soak.http.stream("GET", "/ui/gradio_api/queue/data", params={"session_hash": session}) as events:
            async for line in events.aiter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    shown = str(message["output"].get("data", [""])[0])
                    status = 200 if "ff-label" in shown else 429 if "try again in" in shown else shown[:200]
                    break
    soak.found("page", status, time.monotonic() - began, (200, *BUSY))
    await asyncio.sleep(1)


async def _trickle(soak: Soak, kind: str, start: bytes) -> None:
    """Send one byte after the other, until the server closes the connection."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(*soak.address)
    answer = b""
    try:
        writer.write(start)
        while time.monotonic() < soak.end_s:
            writer.write(b"x")
            await writer.drain()
            with suppress(TimeoutError):
                answer = await asyncio.wait_for(reader.read(10_000), SLOW_S)
                break
    except ConnectionError:
        answer = answer or b""
    finally:
        writer.close()
    if time.monotonic() < soak.end_s:
        status = int(answer.split()[1]) if answer.startswith(b"HTTP/1.1 ") else "closed"
        soak.found(kind, status, time.monotonic() - began, (408, 429, "closed"))


async def slow_upload(soak: Soak, rng: random.Random) -> None:
    route = rng.choice(["/v1/predict", "/v1/timeline", "/ui/gradio_api/upload"])
    head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    await _trickle(soak, "slow upload", f"{head}Content-Length: 3000000\r\n\r\n{part}".encode())


async def slow_header(soak: Soak, rng: random.Random) -> None:
    await _trickle(soak, "slow header", b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX-Long: ")


async def leaving(soak: Soak, rng: random.Random) -> None:
    name, content = rng.choice(soak.clips)
    if rng.random() < 0.3:
        async with connect(f"{soak.url.replace('http', 'ws')}/v1/stream") as socket:
            await socket.send(json.dumps({"sample_rate": 16000}))
            await socket.send(bytes(4 * 16000))
            socket.transport.abort()
    else:
        request = httpx.Request("POST", f"{soak.url}/v1/predict", files={"file": (name, content)})
        head = "".join(f"{key}: {value}\r\n" for key, value in request.headers.items())
        body = request.read()
        _, writer = await asyncio.open_connection(*soak.address)
        writer.write(f"POST /v1/predict HTTP/1.1\r\n{head}\r\n".encode())
        writer.write(body[: rng.choice([10, len(body) // 2, len(body)])])
        with suppress(ConnectionError):
            await writer.drain()
        await asyncio.sleep(rng.random())
        writer.transport.abort()
    soak.found("leaving", "left", 0.0, ("left",))
    await asyncio.sleep(1)


async def garbage(soak: Soak, rng: random.Random) -> None:
    await rng.choice([_damaged, _damaged, _wrong_request, _wrong_message, _random_bytes])(soak, rng)
    await asyncio.sleep(0.3)


async def _damaged(soak: Soak, rng: random.Random) -> None:
    """A recording that is cut off, changed or invented. A changed one may still be readable."""
    content = bytearray(rng.choice(soak.clips)[1])
    kind = rng.randrange(3)
    if kind == 0:
        content = content[: rng.randrange(len(content))]
    elif kind == 1:
        for _ in range(rng.choice([1, 20, 500])):
            content[rng.randrange(rng.choice([200, len(content)]))] = rng.randrange(256)
    else:
        content = bytearray(
            rng.choice([b"", b"RIFF", b"\x00\x00\x00\x18ftypmp42", b"ID3", b"OggS"]) + rng.randbytes(5000)
        )
    route = rng.choice(["/v1/predict", "/v1/timeline"])
    await soak.send("garbage: recordings", (200, *REFUSED), "POST", route, files={"file": ("a", bytes(content))})


async def _wrong_request(soak: Soak, rng: random.Random) -> None:
    json_request = {"headers": {"Content-Type": "application/json"}}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v1/predict", {"content": rng.randbytes(1000)}),
        ("POST", "/v1/predict", {"data": {"mics": "a"}}),
        ("POST", "/v1/timeline", {"files": {"file": ("a", b"")}, "data": {"step_s": "nan"}}),
        ("POST", "/ui/gradio_api/upload", {"data": {"files": "text"}, "files": {"a": b"a"}}),
        ("POST", "/ui/gradio_api/queue/join", {"content": rng.randbytes(100), **json_request}),
        ("POST", "/ui/gradio_api/queue/join", {"json": {"fn_index": rng.randrange(99), "data": None}}),
        ("POST", "/ui/gradio_api/queue/join", {"content": bytes(2_000_000)}),
        ("GET", "/ui/gradio_api/file=/etc/passwd", {}),
        ("GET", "/v1/model", {"headers": {"Host": "evil.example"}}),
        ("POST", "/v1/predict", {"files": {"file": b""}, "headers": {"Origin": "http://evil.example"}}),
        ("DELETE", "/v1/predict", {}),
        ("GET", "/" + rng.randbytes(10).hex(), {}),
    ]
    method, route, options = rng.choice(requests)
    await soak.send("garbage: requests", REFUSED, method, route, **options)


async def _wrong_message(soak: Soak, rng: random.Random) -> None:
    async with connect(f"{soak.url.replace('http', 'ws')}/v1/stream") as socket:
        header = rng.choice(['{"sample_rate": 16000}', "{", '{"sample_rate": 1}'])
        messages: list[str | bytes] = [
            rng.randbytes(rng.randrange(100)),
            "{}",
            '{"frame_at_s": 0}',
            rng.randbytes(10),
            '{"end": 1e999}',
        ]
        with suppress(WebSocketException):
            await socket.send(header)
            for message in rng.sample(messages, 3):
                await socket.send(message)
            await socket.send('{"end": true}')
            async for _ in socket:
                pass
        soak.found("garbage: streams", socket.close_code or "open", 0.0, (1000, 1003, 1008, 1009, 1013))


async def _random_bytes(soak: Soak, rng: random.Random) -> None:
    reader, writer = await asyncio.open_connection(*soak.address)
    writer.write(
        rng.choice([b"", b"GET ", b"POST / HTTP/1.1\r\n"]) + rng.randbytes(rng.randrange(1, 30_000)) + b"\r\n\r\n"
    )
    with suppress(ConnectionError):
        await asyncio.wait_for(reader.read(100), 30)
    writer.close()
    soak.found("garbage: bytes", "closed", 0.0, ("closed",))


CLIENTS: list[tuple[Client, int]] = [
    (predict, 2),
    (timeline, 1),
    (stream, 1),
    (page, 1),
    (slow_upload, 12),
    (slow_header, 4),
    (leaving, 1),
    (garbage, 1),
]


class Watch:
    """Measures the server from outside.

    Args:
        pid: Its process.
        folder: Its folder for temporary files.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid, self.folder, self.began = pid, folder, time.monotonic()
        self.rows: list[tuple[float, int, int, int, int, float, int]] = []

    def look(self) -> None:
        """Add one row."""
        files = []
        for path in self.folder.rglob("*"):
            with suppress(OSError):
                if path.is_file() and "examples" not in path.parts:
                    files.append(path.stat().st_size)
        total = 0
        for pid in processes(self.pid):
            with suppress(OSError, StopIteration):
                total += memory_mb(pid)
        links = Path(f"/proc/{self.pid}/fd")
        targets = []
        for link in links.iterdir():
            with suppress(OSError):
                targets.append(os.readlink(link))
        unnamed = sum(target.startswith(str(self.folder)) and target.endswith("(deleted)") for target in targets)
        minute = (time.monotonic() - self.began) / 60
        self.rows.append((minute, memory_mb(self.pid), total, len(targets), unnamed, sum(files) / 2**20, len(files)))

    async def until(self, end_s: float) -> None:
        """Look again and again."""
        while time.monotonic() < end_s:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(min(SAMPLE_S, max(0.0, end_s - time.monotonic())))

    def table(self) -> str:
        """The rows of some moments, and the largest values."""
        lines = [
            "| minute | server, MB | all processes, MB | open files | unnamed files | files of the page | their MB |",
            "|---|---|---|---|---|---|---|",
        ]
        chosen = np.unique(np.linspace(0, len(self.rows) - 1, min(ROWS, len(self.rows))).round().astype(int))
        lines += [_watch_row(f"{self.rows[index][0]:.1f}", self.rows[index]) for index in chosen]
        most = np.max(np.array(self.rows), axis=0)
        return "\n".join([*lines, _watch_row("most", most)])


def _watch_row(name: str, row: Sequence[float]) -> str:
    _, server, total, files, unnamed, megabytes, count = row
    return f"| {name} | {server:.0f} | {total:.0f} | {files:.0f} | {unnamed:.0f} | {count:.0f} | {megabytes:.1f} |"


def results(soak: Soak) -> str:
    """One row for each kind of client."""
    lines = [
        "| client | requests | answers | wrong | median, s | 95 %, s | 99 %, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in sorted(soak.statuses):
        statuses, wrong, seconds = soak.statuses[kind], soak.wrong[kind], soak.seconds[kind]
        answers = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
        faults = ", ".join(f"{count} x {status}" for status, count in sorted(wrong.items())) or "0"
        shown = [f"{value:.2f}" for value in np.percentile(seconds, [50, 95, 99])] if seconds else ["", "", ""]
        lines.append(f"| {kind} | {sum(statuses.values())} | {answers} | {faults} | {' | '.join(shown)} |")
    return "\n".join(lines)


def array_clip(folder: Path) -> Clip:
    """Six seconds of a buzz in syllables, from three microphones."""
    time_s = np.arange(6 * 16000) / 16000
    voiced = np.sign(np.sin(2 * np.pi * 120 * time_s)) * np.abs(np.sin(2 * np.pi * 2 * time_s))
    noise = np.random.default_rng(1).standard_normal((len(time_s), 3))
    soundfile.write(folder / "array.wav", 0.2 * voiced[:, None] + 0.005 * noise, 16000)
    return "array.wav", (folder / "array.wav").read_bytes()


async def _load(soak: Soak, watch: Watch) -> None:
    await asyncio.gather(soak.run(), watch.until(soak.end_s))


def run(paths: Sequence[Path], words: Sequence[str], minutes: float) -> None:
    """Run the soak and print its tables."""
    with tempfile.TemporaryDirectory() as inputs, tempfile.TemporaryDirectory() as folder:
        clips = [(path.name, path.read_bytes()) for path in paths] + [array_clip(Path(inputs))]
        server, url = start(words, Path(folder))
        log = Path(inputs) / "log"
        with log.open("w") as file:  # The log must be read, because the server stops when the pipe is full.
            reader = subprocess.Popen(["cat"], stdin=server.stderr, stdout=file)
        try:
            soak = Soak(url, clips, time.monotonic() + 60 * minutes)
            watch = Watch(server.pid, Path(folder))
            load = os.getloadavg()[0]
            asyncio.run(_load(soak, watch))
            time.sleep(SAMPLE_S)  # The last clients have left.
            watch.look()
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
            reader.wait(60)
        lines = log.read_text(errors="replace").splitlines()
        traces = sum("Traceback" in line for line in lines)
        left = [str(path.relative_to(folder)) for path in Path(folder).rglob("*")]
        loads = f"load {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end"
        print(f"{minutes:g} minutes, {os.cpu_count()} cores, {loads}\n")
        print(results(soak))
        print(f"\n{watch.table()}\n")
        print(
            f"Log: {len(lines)} lines, {traces} tracebacks. After SIGTERM: exit code {code}, "
            f"{len(processes(server.pid))} processes, left: {', '.join(left) or 'nothing'}."
        )
        if traces:
            print("\n".join(lines[-50:]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    args = parser.parse_args()
    run(args.clips, ["--checkpoint", str(args.checkpoint)] if args.checkpoint else [], args.minutes)
