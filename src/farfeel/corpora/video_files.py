"""Writing videos: frames → a small MP4, for the corpora that farfeel makes, and for tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from farfeel.support.files import replacing_file


def write_video(path: Path, frames: np.ndarray, fps: float, quality: int = 18) -> None:
    """frames (N, H, W, 3) uint8 RGB, H and W even → H.264 without audio. The same frames give the same bytes.

    fps: frames per second. quality: x264's constant rate factor; 18 looks like the original, 28 is small.
    """
    with replacing_file(Path(path)) as partial, av.open(str(partial), "w", format="mp4") as container:
        # One thread: x264 divides a picture by the number of threads, so another number gives other bytes. No
        # macroblock tree: with it, videos of a few frames sometimes have other bytes.
        options = {"crf": str(quality), "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
