"""`farfeel serve` under load: latency, refused requests, and files and processes that remain.

    python -m benchmarks.serve CLIP… [--checkpoint CKPT] [--clients 50] [--each 4]

The server runs on this machine. Each client sends its recordings one after the other. After a refusal (429) it waits as
long as the server asks, and sends again. A single client before gives the time without a queue.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np

COMMAND = [sys.executable, "-m", "farfeel.cli", "serve"]
ALONE = 8  # requests of the one client


async def _client(
    http: httpx.AsyncClient, clips: Sequence[tuple[str, bytes]], count: int, first: int
) -> list[tuple[int, float, float]]:
    """(status, seconds of the request, seconds with all waits) of each answer, including refusals."""
    found = []
    for place in range(count):
        name, content = clips[(first + place) % len(clips)]
        wanted = time.perf_counter()
        while True:
            began = time.perf_counter()
            response = await http.post("/v1/predict", files={"file": (name, content)})
            now = time.perf_counter()
            found.append((response.status_code, now - began, now - wanted))
            if response.status_code != 429:
                break
            await asyncio.sleep(float(response.headers["Retry-After"]))
    return found


async def _load(
    url: str, clips: Sequence[tuple[str, bytes]], clients: int, each: int
) -> tuple[float, list[tuple[int, float, float]]]:
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:
        began = time.perf_counter()
        found = await asyncio.gather(*(_client(http, clips, each, first) for first in range(clients)))
        return time.perf_counter() - began, [answer for answers in found for answer in answers]


def start(words: Sequence[str], folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a server whose temporary files are in a folder → its process and its address."""
    environment = os.environ | {"TMPDIR": str(folder)}
    server = subprocess.Popen(
        [*COMMAND, "--port", "0", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert server.stderr is not None
    for line in server.stderr:
        if "http://" in line:
            return server, line.split()[2].rstrip(";").removesuffix("/v1")
    sys.exit("the server did not start")


def processes(group: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if os.getpgid(int(entry.name)) == group:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


def memory_mb(pid: int) -> int:
    """Memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024)


def _row(name: str, seconds: float, found: Sequence[tuple[int, float, float]]) -> str:
    statuses = Counter(status for status, _, _ in found)
    served = np.array([alone for status, alone, _ in found if status == 200])
    waited = np.array([whole for status, _, whole in found if status == 200])
    others = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()) if status not in (200, 429))
    percentiles = " | ".join(f"{value:.2f}" for value in np.percentile(served, [50, 95, 99]))
    return (
        f"| {name} | {statuses[200]} | {statuses[429]} | {others or '0'} | {percentiles} | "
        f"{np.percentile(waited, 95):.2f} | {statuses[200] / seconds:.2f} |"
    )


def run(clips: Sequence[Path], words: Sequence[str], clients: int, each: int) -> None:
    contents = [(clip.name, clip.read_bytes()) for clip in clips]
    with tempfile.TemporaryDirectory() as folder:
        server, url = start(["--no-page", *words], Path(folder))
        # The log must be read, because the server stops when the pipe is full.
        reader = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)
        try:
            asyncio.run(_load(url, contents, 1, 2))
            idle = len(processes(server.pid))
            rows = [_row("1", *asyncio.run(_load(url, contents, 1, ALONE)))]
            rows.append(_row(str(clients), *asyncio.run(_load(url, contents, clients, each))))
            time.sleep(1)
            memory, later = memory_mb(server.pid), len(processes(server.pid))
            files = [path for path in Path(folder).rglob("*") if path.is_file()]
            descriptors = [os.readlink(link) for link in Path(f"/proc/{server.pid}/fd").iterdir()]
            unnamed = [target for target in descriptors if target.endswith("(deleted)")]
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
            reader.wait(60)
        print("| clients | answered | 429 | others | median, s | 95 %, s | 99 %, s | 95 % with waits, s | answers/s |")
        print("|---|---|---|---|---|---|---|---|---|")
        print("\n".join(rows))
        print(
            f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. After the load: {later - idle} more processes, "
            f"{len(files)} files, {len(unnamed)} unnamed files open, {memory} MB in the server. "
            f"After SIGTERM: exit code {code}, {len(processes(server.pid))} processes, "
            f"left: {', '.join(path.name for path in Path(folder).iterdir()) or 'nothing'}."
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--each", type=int, default=4, help="recordings per client")
    args = parser.parse_args()
    run(args.clips, ["--checkpoint", str(args.checkpoint)] if args.checkpoint else [], args.clients, args.each)
