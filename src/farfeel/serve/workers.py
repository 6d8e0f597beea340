"""The worker pool: slots for recordings, one process for each recording, and the network that all of them share."""

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

from farfeel.recognise.recognizer import Recognizer
from farfeel.recognise.stream import BATCH_WINDOWS
from farfeel.serve.limits import Limits, Refusal
from farfeel.serve.metrics import Metrics
from farfeel.serve.uploads import Uploads
from farfeel.serve.worker import Job, failure, memory_refusal, run_job, warm_up

# A worker is a fork of a process with these imports. So it starts within milliseconds.
PRELOADED = ["__main__", "farfeel.serve.worker"]
POLL_S = 0.1  # Time between two checks whether the client has left.
MAX_MESSAGE_BYTES = 2**25
T = TypeVar("T")


class Worker:
    """A process with one job, as a context manager. The process is always ended at the exit.

    Args:
        pool: The pool that the worker belongs to.
        job: What the worker does.
        files: File descriptors of the recording.
        cancelled: Set it to stop the worker.
    """

    def __init__(self, pool: WorkerPool, job: Job, files: Sequence[int], cancelled: threading.Event) -> None:
        self.pool, self.job, self.files, self.cancelled = pool, job, files, cancelled
        self.left_s = pool.limits.stream_s if job.results == ("stream",) else pool.limits.decode_s

    def __enter__(self) -> Worker:
        self.pipe, worker_pipe = self.pool.context.Pipe()
        engines = [(engine.recipe, engine.temperature) for engine in self.pool.recognizer.engines]
        self.process = self.pool.context.Process(target=run_job, args=(worker_pipe, engines, self.job), daemon=True)
        try:
            self.process.start()
            worker_pipe.close()
            for file in self.files:
                reduction.send_handle(self.pipe, file, self.process.pid)
        except (OSError, EOFError) as error:
            self.__exit__()
            reason = getattr(error, "strerror", None) or "it ended"
            raise Refusal(503, f"the server cannot start a process ({reason}); try again later", 5) from None
        return self

    def __exit__(self, *_: object) -> None:
        self.pipe.close()
        if self.process.pid is not None:
            self.process.kill()
            self.process.join()
            self.process.close()

    def send(self, message: bytes) -> None:
        """Send a message to the worker."""
        with suppress(OSError):  # If the worker has ended, its last message can still be received.
            self.pipe.send_bytes(message)

    def receive_answer(self) -> Any:
        """Wait for the next answer of the worker. Its requests to the network are served until then.

        Raises:
            Refusal: The recording is refused, the worker fails or takes too long, or the client has left.
        """
        try:
            while True:
                message = json.loads(self._receive(MAX_MESSAGE_BYTES))
                if "refused" in message:
                    status, detail = message["refused"]
                    raise Refusal(int(status), str(detail)[:1000])
                if "answer" in message:
                    return message["answer"]
                self.send(self._classify(**message["classify"]))
        except Refusal:
            raise
        except Exception as error:  # The network, or the messages of a worker that a recording has damaged.
            raise failure(error) from error

    def _receive(self, max_bytes: int) -> bytes:
        """Wait for the next message of the worker, while it has time left and the client is connected."""
        while True:
            began = time.monotonic()
            is_ready = bool(wait([self.pipe], min(POLL_S, max(self.left_s, 0))))
            self.left_s -= time.monotonic() - began
            if self.pool.is_closing:
                raise Refusal(503, "the server is stopping; try again later", 5)
            if self.cancelled.is_set():
                raise Refusal(499, "the client closed the connection")
            if is_ready:
                try:
                    return self.pipe.recv_bytes(max_bytes)
                except (EOFError, OSError):
                    raise self._exit_refusal() from None
            if self.left_s <= 0:
                raise self._time_refusal()

    def _time_refusal(self) -> Refusal:
        return Refusal(
            413,
            f"the recording takes more than {self.pool.limits.decode_s:g} s to decode; send a shorter or smaller one",
        )

    def _exit_refusal(self) -> Refusal:
        """The refusal for a worker that ended without an answer."""
        self.process.join(1)
        code = self.process.exitcode
        if code == -24:  # SIGXCPU: the limit of processor time was reached.
            return self._time_refusal()
        if code in (-9, None):
            return memory_refusal(self.pool.limits)
        return Refusal(415, "the recording makes the decoder crash, expected an audio or video file; convert it")

    def _classify(self, engine: int, windows: int, mics: int, has_video: bool) -> bytes:
        """Receive windows from the worker → the bytes of their probabilities.

        All sizes come from the recipe. The worker is not trusted.
        """
        recipe = self.pool.recognizer.engines[engine].recipe
        if not (0 < windows <= BATCH_WINDOWS and 0 < mics <= self.pool.limits.channels):
            raise Refusal(
                415, f"the recording makes its worker request {windows} windows of {mics} microphones; convert it"
            )
        video = recipe.video
        shapes: list[tuple[tuple[int, ...], type]] = [
            ((windows, mics, recipe.audio.window_samples), np.float32),
            ((windows, mics), np.bool_),
            ((windows,), np.bool_),
        ]
        shapes += [((windows, video.frames, video.size, video.size, 3), np.uint8)] * has_video
        arrays: list[np.ndarray] = []
        for shape, kind in shapes:
            size = math.prod(shape) * np.dtype(kind).itemsize
            content = self._receive(size)
            if len(content) != size:
                raise Refusal(415, f"the recording makes its worker send {len(content)} of {size} bytes; convert it")
            arrays.append(np.frombuffer(bytearray(content), kind).reshape(shape))
        audio, mic_mask, video_mask, *frames = arrays
        probabilities = self.pool.classify(engine, audio, mic_mask, frames[0] if frames else None, video_mask)
        return np.ascontiguousarray(probabilities, np.float64).tobytes()


class WorkerPool:
    """Runs the workers of a server.

    `limits.workers` recordings are processed at a time. `limits.queue` more may wait. Any further one is refused.

    Args:
        recognizer: Its networks classify the windows of all workers.
        limits: The limits of the server.
        metrics: The metrics of the server.

    Attributes:
        uploads: The uploads that are arriving.
        recordings: Number of recordings that are waiting or processed.
        streams: Number of open streams.
    """

    def __init__(self, recognizer: Recognizer, limits: Limits, metrics: Metrics) -> None:
        self.recognizer, self.limits, self.metrics = recognizer, limits, metrics
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.uploads = Uploads(limits, metrics)
        self.recordings = self.streams = 0
        self.mean_job_s = 1.0  # moving average of the time of a job
        self.is_closing = False
        self._cancel_events: set[threading.Event] = set()  # one for each running worker
        self._job_threads = ThreadPoolExecutor(limits.workers, "job")
        self._stream_threads = ThreadPoolExecutor(limits.workers, "stream")
        self._network_thread = ThreadPoolExecutor(1, "network")

    def open(self) -> None:
        """Start and end a first worker. It takes a second for the imports, later workers take milliseconds."""
        process = self.context.Process(target=warm_up, daemon=True)
        process.start()
        process.join()

    def require_free_slot(self) -> None:
        """Raise Refusal (429) if all slots are taken. So a client learns before its upload that the server is busy."""
        if self.recordings >= self.limits.slots:
            retry_s = max(1, math.ceil(self.mean_job_s * self.recordings / self.limits.workers))
            raise Refusal(
                429, f"the server is busy with {self.recordings} recordings; try again in {retry_s} s", retry_s
            )

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Context manager: take a slot, from the end of an upload to its response.

        Raises:
            Refusal: All slots are taken (429).
        """
        self.require_free_slot()
        self.recordings += 1
        self.metrics.recordings.set(self.recordings)
        try:
            yield
        finally:
            self.recordings -= 1
            self.metrics.recordings.set(self.recordings)

    async def run(self, job: Job, files: Sequence[int], cancelled: threading.Event) -> dict[str, Any]:
        """Run a job in a worker.

        Args:
            job: What to do.
            files: File descriptors of the recording.
            cancelled: Set it to stop the job.

        Returns:
            The results by their names.

        Raises:
            Refusal: As `Worker.receive_answer` does.
        """
        return await asyncio.get_running_loop().run_in_executor(self._job_threads, self._run, job, files, cancelled)

    def _run(self, job: Job, files: Sequence[int], cancelled: threading.Event) -> dict[str, Any]:
        began = time.monotonic()
        with self._worker(job, files, cancelled) as worker:
            answer: dict[str, Any] = worker.receive_answer()
        self.mean_job_s += 0.2 * (time.monotonic() - began - self.mean_job_s)
        return answer

    async def open_stream(self, job: Job, stack: ExitStack) -> Worker:
        """Start a worker for a stream. It ends when the stack is closed.

        Raises:
            Refusal: The largest number of streams is open (429).
        """
        if self.streams >= self.limits.workers:
            raise Refusal(429, f"{self.streams} streams are open, this server accepts no more; try again later", 10)
        self._count_streams(1)
        stack.callback(self._count_streams, -1)
        return await self.in_stream_thread(stack.enter_context, self._worker(job, [], threading.Event()))

    def _count_streams(self, change: int) -> None:
        self.streams += change
        self.metrics.streams.set(self.streams)

    @contextmanager
    def _worker(self, job: Job, files: Sequence[int], cancelled: threading.Event) -> Iterator[Worker]:
        """Context manager: a worker that ends when the pool is closed, or before."""
        self._cancel_events.add(cancelled)
        try:
            with Worker(self, job, files, cancelled) as worker:
                yield worker
        finally:
            self._cancel_events.discard(cancelled)

    async def in_stream_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Call a blocking function in one of the threads for streams."""
        return await asyncio.get_running_loop().run_in_executor(self._stream_threads, function, *args)

    def classify(self, engine: int, *windows: Any) -> np.ndarray:
        """Classify windows with one of the networks, one batch at a time.

        Args:
            engine: Index of the network.
            windows: The arguments of `Engine.probabilities`.

        Returns:
            (W, K) probabilities.
        """
        with self.metrics.network.time():
            return self._network_thread.submit(self.recognizer.engines[engine].probabilities, *windows).result()

    def close(self) -> None:
        """Stop all workers and wait for them."""
        self.is_closing = True
        for cancelled in list(self._cancel_events):
            cancelled.set()
        for executor in (self._job_threads, self._stream_threads, self._network_thread):
            executor.shutdown(cancel_futures=True)
