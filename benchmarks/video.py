"""Cost of video: decoding eight frames of a four-second video, and one face crop of them, on one core.

The videos are made here: 720p, 30 frames a second, H.264.

- head: a blob that moves in front of a wall, with sensor noise, as from a camera on a table.
- pan: every pixel moves, the most work for a decoder.
- long: one key frame in 250, the default of x264, so that four seconds are decoded from the beginning.
- short: a key frame each second and three B-frames between the others, as from a camera.

No video shows a face, so that the face detector searches as long as it can. Times are CPU times, the least of several,
so that other work on the machine matters little.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from farfeel.media.face import FaceDetector, crop_face
from farfeel.media.video import media_info, read_frames

DATA = Path(os.environ.get("FARFEEL_DATA", "../shared/data"))
HEIGHT, WIDTH, FPS, COUNT = 720, 1280, 30, 120
ARRANGEMENTS = {"long": {}, "short": {"g": "30", "bf": "3"}}
REPEATS = 7


def run() -> None:
    cv2.setNumThreads(1)
    print("| video | 8 frames, ms | all frames, ms | ratio | face crop to 112, ms |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        videos = []
        for content in (head, pan):
            for arrangement, options in ARRANGEMENTS.items():
                path = Path(folder) / f"{content.__name__}, {arrangement}.mp4"
                write(path, content(), options)
                videos.append(path)
        for path in [*videos, *sorted((DATA / "ravdess-av").rglob("*.mp4"))]:
            row(path)


def row(path: Path) -> None:
    info = media_info(path)
    moments = [(i + 0.5) / 8 * info.seconds for i in range(8)]
    some = least(lambda: read_frames(path, moments, 1280))
    every = least(lambda: decode(path))
    frames, detector = read_frames(path, moments).pixels, FaceDetector()
    crop = least(lambda: crop_face(frames, 112, detector=detector))
    print(f"| {path.stem} | {some:.0f} | {every:.0f} | {some / every:.2f} | {crop:.0f} |", flush=True)


def least(work: Callable[[], object]) -> float:
    """CPU milliseconds."""
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return 1000 * min(times)


def decode(path: Path) -> None:
    """Decode all frames to RGB."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")


def write(path: Path, frames: Iterator[np.ndarray], options: dict[str, str]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", **options})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def head() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(1)
    wall = texture(rng, HEIGHT, WIDTH) // 4 + 120
    face = texture(rng, 400, 300)
    mask = cv2.ellipse(np.zeros((400, 300, 1), np.uint8), (150, 200), (140, 190), 0, 0, 360, 1, -1)
    for i in range(COUNT):
        frame = wall.copy()
        left, top = round(490 + 60 * np.sin(i / 20)), round(160 + 20 * np.cos(i / 13))
        place = frame[top : top + 400, left : left + 300]
        place[:] = np.where(mask, face, place)
        yield cv2.add(frame, rng.normal(0, 1.5, frame.shape), dtype=cv2.CV_8U)


def pan() -> Iterator[np.ndarray]:
    world = texture(np.random.default_rng(1), HEIGHT + 200, WIDTH + 400)
    for i in range(COUNT):
        left, top = round(200 + 150 * np.sin(i / 9)), round(100 + 60 * np.cos(i / 13))
        yield world[top : top + HEIGHT, left : left + WIDTH]


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 of soft blobs in all colours."""
    noise = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 3)
    return cv2.normalize(noise, noise, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
