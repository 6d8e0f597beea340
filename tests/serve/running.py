"""A running server in tests: how to send requests to it, and how to find what it leaves behind."""

import multiprocessing.forkserver
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from farfeel.serve.limits import Limits
from farfeel.serve.schema import CheckpointInfo
from farfeel.serve.workers import WorkerPool

LIMITS = Limits(megabytes=4, seconds=20, channels=4, workers=2, queue=2, windows=50)
ABOUT = CheckpointInfo("untrained", "# untrained\n")


@dataclass(frozen=True)
class Served:
    """A running server. It may put temporary files only into `folder`."""

    port: int
    folder: Path
    pool: WorkerPool

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, route: str = "/v1/predict", file: Path | bytes = b"", **options: object) -> httpx.Response:
        content = file if isinstance(file, bytes) else file.read_bytes()
        name = "clip" if isinstance(file, bytes) else file.name
        return httpx.post(f"{self.url}{route}", files={"file": (name, content)}, data=options, timeout=120)

    def require_nothing_left(self) -> None:
        """Wait until there is no recording, no stream, no upload, no process and no file, named or unnamed."""
        for _ in range(500):
            left = [
                self.pool.recordings,
                self.pool.streams,
                self.pool.uploads.count,
                self.pool.uploads.bytes,
                *workers(),
                *named_files(self.folder),
                *unnamed_files(self.folder),
            ]
            if left == [0, 0, 0, 0]:
                return
            time.sleep(0.02)
        raise AssertionError(f"left behind: {left}")

    def require_nothing_arrives(self) -> None:
        """Require that no upload is counted."""
        assert (self.pool.uploads.count, self.pool.uploads.bytes) == (0, 0)


Serve = Callable[..., AbstractContextManager[Served]]


def workers() -> list[str]:
    """Running processes that the fork server has started."""
    pid = multiprocessing.forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if pid else []


def named_files(folder: Path) -> list[Path]:
    """Files with names, except the socket of the fork server, which lasts as long as the test process."""
    return [path for path in folder.rglob("*") if not path.relative_to(folder).parts[0].startswith("pymp-")]


def unnamed_files(folder: Path) -> list[str]:
    """Unnamed files of the folder that this process has open."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:  # the descriptor of this listing
            continue
        if target.startswith(f"{folder}/"):
            targets.append(target)
    return targets


def babble(seconds: float, mics: int) -> np.ndarray:
    """(M, T): a buzz in syllables, which the speech detector takes for speech."""
    rng = np.random.default_rng(2)
    time_s = np.arange(round(seconds * 16000)) / 16000
    voiced = np.sign(np.sin(2 * np.pi * 120 * time_s)) * np.abs(np.sin(2 * np.pi * 2 * time_s))
    return 0.2 * voiced + 0.005 * rng.standard_normal((mics, len(time_s)))
