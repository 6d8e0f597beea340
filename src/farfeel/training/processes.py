"""Processes that train one model together: the rank of this one, and how to start several on this machine.

Ranks count from 0. Only rank 0 writes and prints. torchrun and Slurm's srun start processes on any number of machines.
`run_together` starts them on this machine, in the environment that torchrun gives, and ends all of them when one ends.
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

AGAIN = "run the same command with --resume: it continues after the last whole epoch"
GRACE_S = 3.0  # time for the others to send their errors before they are ended


@dataclass(frozen=True)
class ProcessRank:
    """The rank of a process among `size` processes, of which `local` run on this machine."""

    rank: int = 0
    size: int = 1
    local: int = 1


class PeerLostError(FarfeelError):
    """Another of the processes ended. Its own error may give the reason."""


def this_process(environ: Mapping[str, str] = os.environ) -> ProcessRank:
    """The rank of this process, from the environment that torchrun or srun has set; without them, the only process."""
    if "TORCHELASTIC_RUN_ID" in environ:
        return ProcessRank(int(environ["RANK"]), int(environ["WORLD_SIZE"]), int(environ["LOCAL_WORLD_SIZE"]))
    tasks = int(environ.get("SLURM_NTASKS", 1))
    # Jobs of salloc and srun --pty have these names. A single process works in them.
    if tasks == 1 or environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return ProcessRank()
    if "SLURM_NTASKS_PER_NODE" not in environ:
        raise FarfeelError(f"Slurm has {tasks} tasks without --ntasks-per-node; add that, one per GPU")
    return ProcessRank(int(environ["SLURM_PROCID"]), tasks, int(environ["SLURM_NTASKS_PER_NODE"]))


def run_together(work: Callable[[], None], processes: int) -> None:
    """Call `work`, which must be picklable, in so many processes of this machine. Where one fails, all are ended.

    Raises the FarfeelError or OSError of the process that failed first, or FarfeelError where one was killed.
    """
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    ranks: list[SpawnProcess] = []
    receivers: list[Connection] = []
    try:
        for rank in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(work, ProcessRank(rank, processes, processes), port, sender))
            process.start()
            sender.close()
            ranks.append(process)
            receivers.append(receiver)
        # First which processes run, then how the others ended. One that ends in between is noticed in either order.
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
    _raise_first([_error_of(receiver) for receiver in receivers], codes)


def _alive(ranks: list[SpawnProcess]) -> list[int]:
    """The sentinels of those that still run."""
    return [process.sentinel for process in ranks if process.is_alive()]


def _raise_first(errors: list[Exception | None], codes: list[int | None]) -> None:
    """Raise the error that explains the others, if there is one."""
    for error in errors:
        if error and not isinstance(error, PeerLostError):
            raise error
    for rank, code in enumerate(codes):
        if code and not errors[rank]:
            how = f"was killed by signal {-code} (is the memory full?)" if code < 0 else f"ended with exit code {code}"
            raise FarfeelError(f"process {rank} of {len(codes)} {how}, expected it to finish; {AGAIN}")
    for error in errors:
        if error:
            raise error


def _error_of(receiver: Connection) -> Exception | None:
    """The error that a process has sent, if any."""
    try:
        error: Exception | None = receiver.recv() if receiver.poll() else None
    except EOFError:  # It ended without sending any.
        return None
    return error


def _run(work: Callable[[], None], process: ProcessRank, port: int, sender: Connection) -> None:
    """Work as one of the processes; send the error, if there is one, to the parent."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent ends these.
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "farfeel",
        "RANK": str(process.rank),
        "LOCAL_RANK": str(process.rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(process.size),
        "LOCAL_WORLD_SIZE": str(process.local),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        work()
    except (FarfeelError, OSError) as error:
        sender.send(error)
        raise SystemExit(1) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
