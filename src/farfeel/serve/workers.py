"""Where recordings are worked on: places for them, a process for each, and the network that all of them share."""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import reduction
from multiprocessing.connection import wait
from typing import Any, TypeVar

import numpy as np

from farfeel.recognise.recognizer import BATCH_WINDOWS, Recognizer
from farfeel.serve import worker
from farfeel.serve.limits import Limits, Refusal
from farfeel.serve.metrics import Metrics
from farfeel.serve.worker import Job

PRELOADED = ["__main__", "farfeel.serve.worker"]  # A worker is a fork of a process that has them: it starts in ms.
LOOK_S = 0.1  # How often it is looked whether the client is still there.
ANSWER_BYTES = 2**25
T = TypeVar("T")


class Worker:
    """A process with one job, as a context manager; afterwards it is gone, however it ended."""

    def __init__(self, desk: Desk, job: Job, files: Sequence[int], gone: threading.Event) -> None:
        self.desk, self.job, self.files, self.gone = desk, job, files, gone
        self.left_s = desk.limits.stream_s if job.wants == ("stream",) else desk.limits.decode_s

    def __enter__(self) -> Worker:
        self.pipe, theirs = self.desk.context.Pipe()
        engines = [(engine.recipe, engine.temperature) for engine in self.desk.recognizer.engines]
        self.process = self.desk.context.Process(target=worker.work, args=(theirs, engines, self.job), daemon=True)
        try:
            self.process.start()
            theirs.close()
            for file in self.files:
                reduction.send_handle(self.pipe, file, self.process.pid)
        except OSError as error:
            self.__exit__()
            raise Refusal(503, f"no process can be started ({error.strerror}); try again later", 5) from None
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.close()
        if self.process.pid is not None:
            self.process.kill()
            self.process.join()
            self.process.close()

    def tell(self, message: bytes) -> None:
        with suppress(OSError):  # Where it has ended, what it said before is still to be heard.
            self.pipe.send_bytes(message)

    def listen(self) -> Any:
        """Its next answer; what it asks of the network meanwhile is done. Raises Refusal."""
        while True:
            said = json.loads(self._hear(ANSWER_BYTES))
            if "refused" in said:
                status, detail = said["refused"]
                raise Refusal(int(status), str(detail)[:1000])
            if "answer" in said:
                return said["answer"]
            self.tell(self._classify(**said["ask"]))

    def _hear(self, most: int) -> bytes:
        """Its next message, waited for as long as it has time left and the client is there."""
        while True:
            began = time.monotonic()
            is_ready = bool(wait([self.pipe], min(LOOK_S, max(self.left_s, 0))))
            self.left_s -= time.monotonic() - began
            if self.desk.is_closing:
                raise Refusal(503, "the server is stopping; try again later", 5)
            if self.gone.is_set():
                raise Refusal(499, "the client left")
            if is_ready:
                try:
                    return self.pipe.recv_bytes(most)
                except (EOFError, OSError):
                    raise self._died() from None
            if self.left_s <= 0:
                raise self._late()

    def _late(self) -> Refusal:
        return Refusal(
            413, f"the recording takes more than {self.desk.limits.decode_s:g} s to decode; cut it or make it smaller"
        )

    def _died(self) -> Refusal:
        self.process.join(1)
        code = self.process.exitcode
        if code == -24:  # SIGXCPU: its processor time is spent
            return self._late()
        if code in (-9, None):
            return Refusal(413, worker.too_big(self.desk.limits))
        return Refusal(415, "the recording breaks the decoder, expected a sound or film file; convert it")

    def _classify(self, engine: int, windows: int, mics: int, film: bool) -> bytes:
        """The windows that follow on the pipe → their probabilities. All sizes are the recipe's, none is believed."""
        recipe = self.desk.recognizer.engines[engine].recipe
        if not (0 < windows <= BATCH_WINDOWS and 0 < mics <= self.desk.limits.channels):
            raise Refusal(500, f"a worker asks for {windows} windows of {mics} microphones")
        video = recipe.video
        shapes: list[tuple[tuple[int, ...], type]] = [
            ((windows, mics, recipe.audio.window_samples), np.float32),
            ((windows, mics), np.bool_),
            ((windows,), np.bool_),
        ]
        shapes += [((windows, video.frames, video.size, video.size, 3), np.uint8)] * film
        arrays: list[np.ndarray] = []
        for shape, kind in shapes:
            size = math.prod(shape) * np.dtype(kind).itemsize
            content = self._hear(size)
            if len(content) != size:
                raise Refusal(500, f"a worker sent {len(content)} of {size} bytes")
            arrays.append(np.frombuffer(bytearray(content), kind).reshape(shape))
        audio, mic_mask, seen, *frames = arrays
        found = self.desk.ask(engine, audio, mic_mask, frames[0] if frames else None, seen)
        return np.ascontiguousarray(found, np.float64).tobytes()


class Desk:
    """`limits.workers` recordings are worked on, `limits.queue` more may be uploaded or wait; the next is sent away."""

    def __init__(self, recognizer: Recognizer, limits: Limits, metrics: Metrics) -> None:
        self.recognizer, self.limits, self.metrics = recognizer, limits, metrics
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.places = self.streams = 0
        self.typical_s = 1.0  # a job, lately
        self.is_closing = False
        self._open: set[threading.Event] = set()  # of the workers that are at it: what ends each
        self._jobs = ThreadPoolExecutor(limits.workers, "job")
        self._talks = ThreadPoolExecutor(limits.workers, "stream")
        self._network = ThreadPoolExecutor(1, "network")

    def open(self) -> None:
        """Have the first worker behind us: it takes a second, those after it milliseconds."""
        process = self.context.Process(target=worker.start, daemon=True)
        process.start()
        process.join()

    @contextmanager
    def place(self) -> Iterator[None]:
        """From the first byte of an upload to the answer. Raises Refusal 429 where all are taken."""
        most = self.limits.workers + self.limits.queue
        if self.places >= most:
            retry_s = max(1, math.ceil(self.typical_s * self.places / self.limits.workers))
            raise Refusal(429, f"{most} recordings are being worked on or wait; try again in {retry_s} s", retry_s)
        self.places += 1
        self.metrics.places.set(self.places)
        try:
            yield
        finally:
            self.places -= 1
            self.metrics.places.set(self.places)

    async def work(self, job: Job, files: Sequence[int], gone: threading.Event) -> dict[str, Any]:
        """The job's answer. Raises Refusal. Where `gone` is set meanwhile, the work is stopped."""
        return await asyncio.get_running_loop().run_in_executor(self._jobs, self._work, job, files, gone)

    def _work(self, job: Job, files: Sequence[int], gone: threading.Event) -> dict[str, Any]:
        began = time.monotonic()
        with self._worker(job, files, gone) as hand:
            answer: dict[str, Any] = hand.listen()
        self.typical_s += 0.2 * (time.monotonic() - began - self.typical_s)
        return answer

    async def open_stream(self, job: Job, stack: ExitStack) -> Worker:
        """A worker that stays until the stack is left. Raises Refusal 429 where there are as many as may be."""
        if self.streams >= self.limits.workers:
            raise Refusal(429, f"{self.streams} streams are open, this server takes no more; try again later", 10)
        self._count_streams(1)
        stack.callback(self._count_streams, -1)
        return await self.talk(stack.enter_context, self._worker(job, [], threading.Event()))

    def _count_streams(self, more: int) -> None:
        self.streams += more
        self.metrics.streams.set(self.streams)

    @contextmanager
    def _worker(self, job: Job, files: Sequence[int], gone: threading.Event) -> Iterator[Worker]:
        """A worker that ends with the desk at the latest."""
        self._open.add(gone)
        try:
            with Worker(self, job, files, gone) as hand:
                yield hand
        finally:
            self._open.discard(gone)

    async def talk(self, work: Callable[..., T], *args: Any) -> T:
        """What a stream does, in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._talks, work, *args)

    def ask(self, engine: int, *windows: Any) -> np.ndarray:
        """Probabilities (W, K) by one of the networks: one batch at a time, whoever asks."""
        with self.metrics.network.time():
            return self._network.submit(self.recognizer.engines[engine].probabilities, *windows).result()

    def close(self) -> None:
        """Every worker is ended, and waited for."""
        self.is_closing = True
        for gone in list(self._open):
            gone.set()
        for pool in (self._jobs, self._talks, self._network):
            pool.shutdown(cancel_futures=True)
