"""`python -m benchmarks [TABLE…]`: print these tables of TABLES, or all of them."""

from __future__ import annotations

import os
import platform
import sys

import torch

from benchmarks import engines, model, rooms, timeline, video

TABLES = {
    "model": model.run,
    "faces": model.faces,
    "rooms": rooms.run,
    "video": video.run,
    "timeline": timeline.run,
    "engines": engines.run,
}


def processor() -> str:
    """The name of the processor, if the system gives it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


if __name__ == "__main__":
    words = sys.argv[1:] or list(TABLES)
    if unknown := sorted(set(words) - set(TABLES)):
        sys.exit(f"unknown benchmark {', '.join(unknown)}, expected {', '.join(TABLES)}; choose among these")
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    print(
        f"{processor()}, {os.cpu_count()} cores{gpu}; PyTorch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"load {os.getloadavg()[0]:.1f}\n"
    )
    for word in words:
        TABLES[word]()
