"""Laws of a command that is killed: no process outlives it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from farfeel.rooms.bank import Bank

GONE_S = 10.0  # within which all processes of a killed command must have ended; data loaders look every 5 s
TINY = ["audio.seconds=1.28", "model.image_frames=64", "train.batch_size=4", "train.epochs=1000"]


def descendants(pid: int) -> set[int]:
    """Every running process that a process has started, and those that these have started."""
    children: set[int] = set()
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children |= {int(child) for child in listed.read_text().split()}
    return children.union(*(descendants(child) for child in children))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def running(*words: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "farfeel.cli", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def require_gone(process: subprocess.Popen[str], by: int, processes: int) -> None:
    """Kill a command once it has started so many processes; these must end too."""
    family: set[int] = set()

    def has_started() -> bool:
        family.clear()
        family.update(descendants(process.pid))
        return process.poll() is not None or len(family) >= processes

    wait_until(has_started, 90, "no process was started")
    time.sleep(1)
    wait_until(has_started, 30, "no process was started again")  # A data loader's processes end with each epoch.
    assert process.poll() is None, process.communicate()[1]
    os.kill(process.pid, by)
    process.wait(GONE_S)
    assert process.returncode == -by
    assert len(family) >= processes
    try:
        wait_until(lambda: not any(map(is_running, family)), GONE_S, "processes outlive a killed command")
    finally:
        for pid in filter(is_running, family):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def many(voices: Path, tmp_path: Path) -> Path:
    """A folder of more recordings than are decoded in a second."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(50):
        for clip in voices.rglob("*.mp4"):
            (folder / f"{number}-{clip.name}").symlink_to(clip)
    return folder


@pytest.mark.parametrize(
    ("command", "by"),
    [
        ("predict", signal.SIGKILL),
        ("predict", signal.SIGTERM),
        ("rooms simulate", signal.SIGKILL),
        ("prepare", signal.SIGKILL),
        ("train --devices", signal.SIGKILL),
        ("train --devices", signal.SIGTERM),
        ("train.workers", signal.SIGTERM),
        ("train.workers", signal.SIGKILL),
    ],
)
def test_no_process_outlives_a_killed_command(
    command: str, by: int, voices: Path, many: Path, bank: Bank, checkpoint: Path, tmp_path: Path
) -> None:
    corpus = ["--corpus", "synthetic", "--root", voices]
    train = ["train", "--recipe", "tiny", *corpus, "--split", "folds-4:1", "--out", tmp_path / "out", *TINY]
    words = {
        "predict": ["predict", many, "--checkpoint", checkpoint, "--workers", 2],
        "rooms simulate": ["rooms", "simulate", "--count", 9999, "--mics", 3, "--out", tmp_path / "out"],
        "prepare": ["prepare", *corpus, "--rirs", bank.path, "--renderings", 6, "--out", tmp_path / "out"],
        "train --devices": [*train, "--devices", 2],
        "train.workers": [*train, "train.workers=2"],
    }
    further = {"rooms simulate": ["--workers", 2], "prepare": ["--workers", 2, "--per-shard", 1]}
    with running(*words[command], *further.get(command, [])) as process:
        require_gone(process, by, processes=2)


def test_no_process_outlives_a_killed_server(checkpoint: Path) -> None:
    """Also not the process of an open stream."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def answers() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{port}/v1/health").is_success
        return False

    with running("serve", "--checkpoint", checkpoint, "--port", port, "--no-page") as process:
        wait_until(answers, 90, "the server does not answer")
        idle = len(descendants(process.pid))
        with connect(f"ws://127.0.0.1:{port}/v1/stream", open_timeout=60) as stream:
            stream.send(json.dumps({"sample_rate": 16000}))
            require_gone(process, signal.SIGKILL, processes=idle + 1)
