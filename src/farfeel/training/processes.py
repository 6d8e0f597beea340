"""Processes that train one model together: who this one is, and those that are started on this machine.

Each has a rank from 0, the first of which writes and speaks. torchrun and Slurm's srun start them on any number of
machines; `run_together` starts them on this one, in the environment that torchrun gives, and ends them all when one
ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from farfeel.support.pool import end_with_parent
from farfeel.types import FarfeelError

AGAIN = "run the same command with --resume, it goes on after the last whole epoch"
GRACE_S = 3.0  # In which the others may say what they know before they are ended.


@dataclass(frozen=True)
class Place:
    """This process: its rank among `size`, of which `local` run on this machine."""

    rank: int = 0
    size: int = 1
    local: int = 1


class PeerLostError(FarfeelError):
    """Another of the processes ended; it may have said why."""


def here(environ: Mapping[str, str] = os.environ) -> Place:
    """This process's place by what torchrun or srun has put into the environment; without them, the only process."""
    if "TORCHELASTIC_RUN_ID" in environ:
        return Place(int(environ["RANK"]), int(environ["WORLD_SIZE"]), int(environ["LOCAL_WORLD_SIZE"]))
    tasks = int(environ.get("SLURM_NTASKS", 1))
    # The jobs that salloc and srun --pty open have these names, and a single process at work.
    if tasks == 1 or environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return Place()
    if "SLURM_NTASKS_PER_NODE" not in environ:
        raise FarfeelError(f"Slurm has {tasks} tasks without --ntasks-per-node; add that, one per GPU")
    return Place(int(environ["SLURM_PROCID"]), tasks, int(environ["SLURM_NTASKS_PER_NODE"]))


def run_together(work: Callable[[], None], processes: int) -> None:
    """`work` in each of so many processes of this machine; it must be picklable. Where one ends early, all are ended.

    Raises what the first of them raised, FarfeelError or OSError, or FarfeelError where one was killed.
    """
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    ranks: list[SpawnProcess] = []
    hears: list[Connection] = []
    try:
        for rank in range(processes):
            hear, say = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(work, Place(rank, processes, processes), port, say))
            process.start()
            say.close()
            ranks.append(process)
            hears.append(hear)
        # First who is alive, then how the others ended: one that ends in between is seen either way.
        while (alive := _alive(ranks)) and not any(process.exitcode for process in ranks):
            wait(alive)
        deadline = time.monotonic() + GRACE_S
        while (left := deadline - time.monotonic()) > 0 and (alive := _alive(ranks)):
            wait(alive, left)
        codes = [process.exitcode for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.join()
    _raise_first([_said(hear) for hear in hears], codes)


def _alive(ranks: list[SpawnProcess]) -> list[int]:
    """Sentinels of those that run."""
    return [process.sentinel for process in ranks if process.is_alive()]


def _raise_first(said: list[Exception | None], codes: list[int | None]) -> None:
    """The error that explains the others, if there is any."""
    for error in said:
        if error and not isinstance(error, PeerLostError):
            raise error
    for rank, code in enumerate(codes):
        if code and not said[rank]:
            how = f"was killed by signal {-code} (is the memory full?)" if code < 0 else f"ended with exit code {code}"
            raise FarfeelError(f"process {rank} of {len(codes)} {how}, expected it to finish; {AGAIN}")
    for error in said:
        if error:
            raise error


def _said(hear: Connection) -> Exception | None:
    try:
        error: Exception | None = hear.recv() if hear.poll() else None
    except EOFError:  # It ended without a word.
        return None
    return error


def _run(work: Callable[[], None], place: Place, port: int, say: Connection) -> None:
    """One of the processes."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends these.
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "farfeel",
        "RANK": str(place.rank),
        "LOCAL_RANK": str(place.rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(place.size),
        "LOCAL_WORLD_SIZE": str(place.local),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        work()
    except (FarfeelError, OSError) as error:
        say.send(error)
        raise SystemExit(1) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
