"""Speed and peak memory of whole models: clips per second, and the share of the machine's matrix-multiplication peak.

One clip has seven microphones and 4 s. Each row is measured in a process of its own, so that its peak memory is its own
(the resident set, or on a GPU the memory of the allocator). Times are the median of several runs after a warm-up. FLOPs
are counted by PyTorch, without the Fourier transform. The peak is the best of a few 4096 x 4096 products in the same
precision.

`faces` measures models of video, with and without the microphones of the recipe, on one core. Times are the least CPU
time and the least wall time of several runs, so that other work on the machine matters little. The convolutions of
video are measured in both memory layouts; farfeel uses channels last. Nothing is decoded: frames and audio are noise.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from farfeel.models.emotion import EmotionModel
from farfeel.recipe import load_recipe

MICS, SECONDS = 7, 4.0
PEAK_SIZE = 4096
ROWS = [
    (recipe, strategy, precision, batch, training)
    for recipe, strategy in (
        ("paper-sum-pe", "sum-patches"),
        ("paper-avg-mel", "average-mels"),
        ("htsat", "normalised-sum"),
        ("default", "average-mels"),
    )
    for training in (False, True)
    for precision in ("float32", "bf16")
    for batch in (1, 8)
]
FACE_MODELS = [  # recipe, modalities, pixels, clips in a training step; 0: not trained here, a step takes ten seconds
    ("paper-video", "video", 112, 2),
    ("paper-video", "video", 224, 0),
    ("paper-av", "both", 112, 2),
    ("paper-av", "both", 224, 1),
    ("default", "video", 48, 8),
    ("default", "both", 48, 8),
    ("tiny", "video", 64, 8),
    ("tiny", "both", 64, 8),
]
FACE_ROWS = [
    (recipe, modalities, pixels, batch if training else 1, training, precision, channels_last)
    for recipe, modalities, pixels, batch in FACE_MODELS
    for training in ((False, True) if batch else (False,))
    for precision in ("float32", "bf16")
    for channels_last in (True, False)
]
FEWEST_RUNS, MOST_RUNS, ENOUGH_S = 2, 20, 1.0


def run() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peaks = {precision: in_own_process(matmul_peak, device, precision) for precision in ("float32", "bf16")}
    print(
        f"matrix multiplication, {PEAK_SIZE} squared: "
        + ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in peaks.items())
    )
    print(
        f"\n| recipe, {MICS} microphones, {SECONDS:.0f} s | what | precision | batch | clips/s | of peak | memory, GB |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    for recipe, strategy, precision, batch, training in ROWS:
        clips_per_s, flops_per_clip, memory_gb = in_own_process(
            measure, device, recipe, strategy, precision, batch, training
        )
        share = clips_per_s * flops_per_clip / peaks[precision]
        what = "training" if training else "inference"
        print(
            f"| {recipe} ({flops_per_clip / 1e9:.1f} GFLOP) | {what} | {precision} | {batch} | {clips_per_s:.2f} "
            f"| {share:.0%} | {memory_gb:.2f} |",
            flush=True,
        )


def faces() -> None:
    print(f"a process that has only loaded the modules uses {in_own_process(peak_memory, 'cpu') / 1e6:.0f} MB\n")
    print("| recipe | pixels | what | batch | precision | layout | CPU, ms a clip | wall, ms a clip | MB above that |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for row in FACE_ROWS:
            recipe, modalities, pixels, batch, training, precision, channels_last = row
            cpu_s, wall_s, memory = in_fork(measure_faces, device, *row)
            print(
                f"| {recipe}, {modalities}{', GPU' if device == 'cuda' else ''} | {pixels} "
                f"| {'training' if training else 'inference'} | {batch} | {precision} "
                f"| {'channels last' if channels_last else 'plain'} "
                f"| {1000 * cpu_s / batch:.1f} | {1000 * wall_s / batch:.1f} | {memory / 1e6:.0f} |",
                flush=True,
            )


def matmul_peak(device: str, precision: str) -> float:
    """FLOP/s of the fastest of several products."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(PEAK_SIZE, PEAK_SIZE, device=device, dtype=dtype) for _ in range(2))
    seconds = timed(lambda: a @ b, device, repeats=5)
    return float(2 * PEAK_SIZE**3 / min(seconds))


def measure(
    device: str, recipe_name: str, strategy: str, precision: str, batch: int, training: bool
) -> tuple[float, float, float]:
    """(clips/s, FLOPs per clip, peak memory in GB)"""
    recipe = load_recipe(recipe_name, [f"microphones.strategy={strategy}", f"microphones.count={MICS}"])
    model = EmotionModel(recipe).to(device).train(training)
    audio = 0.1 * torch.randn(batch, MICS, round(SECONDS * recipe.audio.sample_rate), device=device)
    mask = torch.ones(batch, MICS, dtype=torch.bool, device=device)
    step = stepper(model, (audio, mask), device, precision, training)
    seconds = statistics.median(timed(step, device, repeats=5))
    memory = peak_memory(device)
    with FlopCounterMode(display=False) as counter:
        step()
    return batch / seconds, counter.get_total_flops() / batch, memory / 1e9


def measure_faces(
    device: str,
    recipe_name: str,
    modalities: str,
    pixels: int,
    batch: int,
    training: bool,
    precision: str,
    channels_last: bool,
) -> tuple[float, float, int]:
    """(CPU seconds of a step, wall seconds of a step, peak memory in bytes above that of the loaded modules)"""
    torch.set_num_threads(1)
    before = peak_memory(device)
    recipe = load_recipe(recipe_name, [f"modalities={modalities}", f"video.size={pixels}"])
    model = EmotionModel(recipe).to(device).train(training)
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    network = model.video.network.to(memory_format=layout)  # type: ignore[call-overload]
    network.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(memory_format=layout),))
    samples = round(recipe.audio.seconds * recipe.audio.sample_rate)
    audio = 0.1 * torch.randn(batch, recipe.microphones.count, samples, device=device)
    mask = torch.ones(batch, recipe.microphones.count, dtype=torch.bool, device=device)
    frames = torch.rand(batch, 3, recipe.video.frames, pixels, pixels, device=device)
    step = stepper(model, (audio, mask, frames), device, precision, training)
    return *least(step, device), peak_memory(device) - before


def stepper(
    model: EmotionModel, inputs: tuple[Tensor, ...], device: str, precision: str, training: bool
) -> Callable[[], None]:
    """One step of inference or of training on these inputs."""
    target = torch.zeros(len(inputs[0]), dtype=torch.long, device=device)
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        with torch.set_grad_enabled(training), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(*inputs)
        if training:
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), target).backward()
            optimizer.step()

    return step


def peak_memory(device: str) -> int:
    """Peak memory in bytes: of the whole process, or on a GPU of its tensors."""
    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def least(work: Callable[[], object], device: str) -> tuple[float, float]:
    """(CPU seconds, wall seconds), each the least of several runs. The first run warms up and is seldom the least."""
    cpu_s: list[float] = []
    wall_s: list[float] = []
    while len(cpu_s) < FEWEST_RUNS or (sum(cpu_s) < ENOUGH_S and len(cpu_s) < MOST_RUNS):
        started = time.process_time(), time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        cpu_s.append(time.process_time() - started[0])
        wall_s.append(time.perf_counter() - started[1])
    return min(cpu_s), min(wall_s)


def timed(work: Callable[[], object], device: str, repeats: int) -> list[float]:
    """Seconds of each repeat, after one warm-up that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def in_own_process(work: Callable[..., Any], *args: object) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args)


def in_fork(work: Callable[..., Any], *args: object) -> Any:
    """Run in a fork of a process that has only loaded the modules, because loading them takes seconds for each row."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.__main__"])
    with context.Pool(1) as pool:
        return pool.apply(work, args)
