"""Many damaged files for one group of readers, in a process of their own with limits of time and memory."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farfeel.types import FarfeelError

GROUPS = {
    "recipes": "recipes",
    "banks": "banks",
    "checkpoints": "checkpoints",
    "tables": "tables",
    "archives": "archives",
    "onnx": "onnx_files",
}
SLOW_S = 5.0  # of processor time, for one file: reported
HANG_S = 60.0  # of the clock: the process is killed
MEMORY_BYTES = 1 << 30  # beyond what the process has when it begins
OUTCOMES = ("read", "refused", "foreign", "not one line", "printed", "slow", "handles", "crashed", "hung")
FAULTS = OUTCOMES[2:]


@dataclass
class Result:
    """What became of the files of one reader. faults: number of the file and what was found, at most ten."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    largest_bytes: int = 0


def attempt(reader: Any, seed: int, number: int, folder: Path) -> tuple[str, str]:
    """Read the file that follows from seed and number. Returns what became of it, and details of a fault."""
    content = reader.make(random.Random(f"{seed}|{reader.name}|{number}"))
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        reader.read(content, place)
    except FarfeelError as error:
        line = str(error)
        if not line or len(line.splitlines()) != 1:
            return "not one line", repr(line[:200])
        return "refused", ""
    except Exception as error:  # what this looks for
        frames = error.__traceback__
        while frames and frames.tb_next:
            frames = frames.tb_next
        where = f"{Path(frames.tb_frame.f_code.co_filename).name}:{frames.tb_lineno}" if frames else ""
        return "foreign", f"{type(error).__name__}: {str(error)[:200]!r} at {where}"
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return "read", ""


def run(
    group: str, count: int, seed: int = 1, on_progress: Any = None, results: dict[str, Result] | None = None
) -> dict[str, Result]:
    """`count` files for the readers of a group, in turn. Reader → what became of its files; `results` is filled."""
    results = defaultdict(Result) if results is None else results
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder, first = Path(name), 0
        while first < count:
            log = folder / f"log-{first}"
            log.touch()
            process = context.Process(target=_work, args=(group, first, count, seed, str(log)), daemon=True)
            process.start()
            reached, at, changed_s = 0, first, time.monotonic()
            current = ""
            while True:
                process.join(0.2)
                ended = not process.is_alive()
                with log.open("rb") as stream:
                    stream.seek(reached)
                    held = stream.read()
                whole = held[: held.rfind(b"\n") + 1]
                reached += len(whole)
                for line in whole.splitlines():
                    facts = json.loads(line)
                    if "begin" in facts:
                        at, current = facts["begin"], facts["reader"]
                    else:
                        _count(results[facts["reader"]], facts)
                        at, current = facts["number"] + 1, ""
                if whole:
                    changed_s = time.monotonic()
                    if on_progress:
                        on_progress(at, count)
                if ended or time.monotonic() - changed_s > HANG_S * (1 if current else 5):
                    break
            if not ended:
                process.kill()
                process.join()
            if current:
                what = f"exit code {process.exitcode}" if ended else f"no end after {HANG_S:.0f} s"
                facts = {"outcome": "crashed" if ended else "hung", "number": at, "what": what, "s": 0, "bytes": 0}
                _count(results[current], facts)
                at += 1
            elif at < count and process.exitcode:
                raise RuntimeError(f"the process of {group} ended with {process.exitcode} before file {at}")
            log.unlink()
            first = at
    return results


def _count(result: Result, facts: dict[str, Any]) -> None:
    result.outcomes[facts["outcome"]] += 1
    result.slowest_s = max(result.slowest_s, facts["s"])
    result.largest_bytes = max(result.largest_bytes, facts["bytes"])
    if facts["outcome"] in FAULTS and len(result.faults) < 10:
        result.faults.append((facts["number"], f"{facts['outcome']}: {facts['what']}"))


def _work(group: str, first: int, count: int, seed: int, log: str) -> None:
    faulthandler.disable()
    parent = multiprocessing.parent_process()
    assert parent is not None
    with tempfile.TemporaryDirectory() as name, open(log, "a", buffering=1) as out:
        folder = Path(name)
        (folder / "seeds").mkdir()
        readers = importlib.import_module(f"{__package__}.{GROUPS[group]}").readers(folder / "seeds")
        for reader in readers:  # imports and caches, before memory and handles are counted
            with contextlib.suppress(Exception):
                attempt(reader, 0, 0, folder)
        printed = os.open(folder / "printed", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        limit = _virtual_bytes() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        before_handles = len(os.listdir("/proc/self/fd"))
        for number in range(first, count):
            if number % 500 == 0 and not parent.is_alive():
                return
            reader = readers[number % len(readers)]
            out.write(json.dumps({"begin": number, "reader": reader.name}) + "\n")
            began_s, held_bytes = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            outcome, what = attempt(reader, seed, number, folder)
            spent_s = time.process_time() - began_s
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held_bytes) * 1024
            if outcome in ("read", "refused"):
                if size := os.fstat(printed).st_size:
                    outcome, what = "printed", repr(os.pread(printed, 200, 0)) + f" of {size} bytes"
                elif spent_s > SLOW_S:
                    outcome, what = "slow", f"{spent_s:.1f} s"
                elif number % 100 == 99 and (handles := len(os.listdir("/proc/self/fd"))) > before_handles + 3:
                    outcome, what = "handles", f"{handles} open files, {before_handles} before"
                    before_handles = handles
            os.ftruncate(printed, 0)
            facts = {"outcome": outcome, "number": number, "reader": reader.name, "what": what}
            out.write(json.dumps(facts | {"s": round(spent_s, 3), "bytes": grown}) + "\n")


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def table(results: dict[str, Result]) -> str:
    """A Markdown table: a row for each reader."""
    lines = [
        "| reader | files | read | refused | faults | slowest, s | most memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    total = Counter[str]()
    for name, result in results.items():
        total += result.outcomes
        lines.append(_row(name, result.outcomes, f"{result.slowest_s:.1f}", f"{result.largest_bytes / 1e6:.0f}"))
    slowest = max((result.slowest_s for result in results.values()), default=0.0)
    largest = max((result.largest_bytes for result in results.values()), default=0)
    return "\n".join([*lines, _row("all", total, f"{slowest:.1f}", f"{largest / 1e6:.0f}")])


def _row(name: str, outcomes: Counter[str], *more: str) -> str:
    faults = {what: outcomes[what] for what in FAULTS if outcomes[what]}
    shown = ", ".join(f"{count} {what}" for what, count in faults.items()) or "0"
    cells = [name, f"{sum(outcomes.values()):,}", f"{outcomes['read']:,}", f"{outcomes['refused']:,}", shown, *more]
    return f"| {' | '.join(cells)} |"


def main(words: list[str]) -> int:
    """`python -m tests.fuzz GROUP COUNT [SEED]`: the exit code is 1 where there is a fault."""
    if len(words) not in (2, 3) or words[0] not in GROUPS:
        print(f"usage: python -m tests.fuzz {{{','.join(GROUPS)}}} COUNT [SEED]", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    group, count, seed = words[0], int(words[1]), int(words[2]) if len(words) == 3 else 1
    began_s, shown_s = time.monotonic(), time.monotonic()

    def progress(done: int, of: int) -> None:
        nonlocal shown_s
        if time.monotonic() - shown_s > 30:
            shown_s = time.monotonic()
            print(f"{group}: {done} of {of}", file=sys.stderr, flush=True)

    results: dict[str, Result] = defaultdict(Result)
    with contextlib.suppress(KeyboardInterrupt):  # The table then is of the files so far.
        run(group, count, seed, progress, results)
    done = sum(sum(result.outcomes.values()) for result in results.values())
    print(f"{group}: {done:,} files, seed {seed}, {time.monotonic() - began_s:.0f} s\n\n{table(results)}")
    for name, result in results.items():
        for number, what in result.faults:
            print(f"{name}, file {number}: {what}")
    return int(any(result.outcomes[what] for result in results.values() for what in FAULTS))
