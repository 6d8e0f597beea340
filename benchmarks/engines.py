"""The same network in PyTorch and in ONNX Runtime, on one core: seconds to load it, milliseconds per window.

Weights are untrained; audio and video are noise. Loading is measured in a new process, from the import of the modules
to the first result; the table shows the least of three. The time of a window is the least CPU time of several runs, so
that other work on the machine matters little.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = [("tiny", "audio"), ("default", "audio"), ("default", "both")]
CASES = [(1, 1), (1, 3), (8, 3)]  # windows in a batch, microphones
LOADS = 3
MEASURE = """
import sys, time
started = time.perf_counter(), time.process_time()
engine, path = sys.argv[1:3]
if engine == "torch":
    import torch
    torch.set_num_threads(1)
    from farfeel.recognise.engines.pytorch import TorchEngine
    network = TorchEngine.load(path)
else:
    from farfeel.recognise.engines.onnx import OnnxEngine
    network = OnnxEngine(path, threads=1)
import numpy as np
def given(windows, mics):
    recipe, rng = network.recipe, np.random.default_rng(1)
    samples = round(recipe.audio.seconds * recipe.audio.sample_rate)
    audio = 0.1 * rng.standard_normal((windows, mics, samples), dtype=np.float32)
    video = recipe.video
    frames = rng.integers(0, 256, (windows, video.frames, video.size, video.size, 3), dtype=np.uint8)
    return (audio, np.ones((windows, mics), dtype=bool), None if recipe.modalities == "audio" else frames,
            np.full(windows, recipe.modalities != "audio"))
network.probabilities(*given(1, 1))
print(time.perf_counter() - started[0], time.process_time() - started[1])
for case in sys.argv[3:]:
    inputs = given(*map(int, case.split("x")))
    runs = []
    for _ in range(10):
        begun = time.process_time()
        network.probabilities(*inputs)
        runs.append((time.process_time() - begun) / len(inputs[0]))
    print(min(runs))
"""


def run() -> None:
    import torch

    from farfeel.models.checkpoint import save_checkpoint
    from farfeel.models.emotion import EmotionModel
    from farfeel.recipe import load_recipe
    from farfeel.recognise.export import export

    heads = " | ".join(f"{windows} x {mics} mics, ms a window" for windows, mics in CASES)
    print(f"| recipe | engine | file, MB | loaded, s | of which CPU, s | {heads} |")
    print("|---|---|---|---|---|" + "---|" * len(CASES), flush=True)
    for name, modalities in MODELS:
        torch.manual_seed(1)
        recipe = load_recipe(name, [f"modalities={modalities}"])
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "best"
            save_checkpoint(checkpoint, EmotionModel(recipe).state_dict(), recipe, "# untrained\n")
            whole, small = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
            export(checkpoint, whole)
            export(checkpoint, small, "int8")
            for engine, path in (("torch", checkpoint), ("onnx", whole), ("onnx, int8", small)):
                file = path / "model.safetensors" if path.is_dir() else path
                (wall_s, cpu_s), each_s = measure(engine.split(",")[0], path)
                costs = " | ".join(f"{1000 * s:.1f}" for s in each_s)
                size_mb = file.stat().st_size / 1e6
                print(
                    f"| {name}, {modalities} | {engine} | {size_mb:.1f} | {wall_s:.2f} | {cpu_s:.2f} | {costs} |",
                    flush=True,
                )


def measure(engine: str, path: Path) -> tuple[tuple[float, float], list[float]]:
    """(wall seconds, CPU seconds) until the first answer; CPU seconds per window in each case."""
    loads: list[list[float]] = []
    cases: list[float] = []
    for attempt in range(LOADS):
        words = [f"{windows}x{mics}" for windows, mics in CASES] if attempt == 0 else []
        lines = subprocess.run(
            [sys.executable, "-c", MEASURE, engine, str(path), *words],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ).stdout.splitlines()
        loads.append([float(word) for word in lines[0].split()])
        cases = cases or [float(line) for line in lines[1:]]
    wall_s, cpu_s = (min(column) for column in zip(*loads, strict=True))
    return (wall_s, cpu_s), cases
