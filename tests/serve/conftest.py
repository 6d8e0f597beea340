"""A server on a free local port with an untrained network, and clips to send to it."""

import multiprocessing.forkserver
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import uvicorn
from running import ABOUT, LIMITS, Serve, Served, babble, named_files, workers

from farfeel.recipe import Recipe
from farfeel.recognise.recognizer import Recognizer
from farfeel.serve.app import create_app
from farfeel.serve.limits import Limits
from farfeel.serve.run import config
from untrained import make


@pytest.fixture(scope="session")
def recognizer(small: Callable[..., Recipe]) -> Recognizer:
    """A very small network for audio and video."""
    return make(small("modalities=both", "video.size=32", "video.width=4", "fusion.hidden=16"))


@pytest.fixture(scope="session")
def serve(recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    # A fork server that other tests have started lacks the imports of the workers. They would then import everything
    # themselves, and the memory that this leaves free would change what the memory limit refuses.
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]

    @contextmanager
    def start(limits: Limits = LIMITS, key: str | None = None, page: bool = False) -> Iterator[Served]:
        folder = tmp_path_factory.mktemp("temporary")
        before, tempfile.tempdir = tempfile.tempdir, str(folder)
        app = create_app(recognizer, ABOUT, limits, key, page)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(config(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.01)
            yield Served(listener.getsockname()[1], folder, app.state.pool)
        finally:
            server.should_exit = True
            thread.join()
            tempfile.tempdir = before
        assert not named_files(folder)
        assert not workers()

    return start


@pytest.fixture(scope="session")
def server(serve: Serve) -> Iterator[Served]:
    """One server for all tests that need no special settings."""
    with serve() as served:
        yield served


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of video with audio in one file."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    rng = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for frame in rng.integers(0, 255, (30, 64, 64, 3), dtype=np.uint8):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        block = av.AudioFrame.from_ndarray((babble(3.0, 1) * 32767).astype(np.int16), format="s16", layout="mono")
        block.sample_rate = 16000
        container.mux(audio.encode(block))
        container.mux([*video.encode(None), *audio.encode(None)])
    return path


@pytest.fixture(scope="session")
def array(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds from three microphones."""
    path = tmp_path_factory.mktemp("array") / "array.wav"
    soundfile.write(path, babble(3.0, 3).T, 16000)
    return path
