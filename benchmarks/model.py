"""Clips per second, share of the machine's own matrix-multiplication peak, and peak memory, of whole models.

One clip is seven microphones and 4 s. Each row is measured in a process of its own, so that the peak memory (resident
set, on a GPU the allocator's) is its own; the median of several runs after a warm-up. FLOPs are counted by PyTorch,
the Fourier transform excluded; the peak is the best of a few 4096 x 4096 products in the same precision.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
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
        ("default", "normalised-sum"),
    )
    for training in (False, True)
    for precision in ("float32", "bf16")
    for batch in (1, 8)
]


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
    target = torch.zeros(batch, dtype=torch.long, device=device)
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        with torch.set_grad_enabled(training), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(audio, mask)
        if training:
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), target).backward()
            optimizer.step()

    seconds = statistics.median(timed(step, device, repeats=5))
    if device == "cuda":
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with FlopCounterMode(display=False) as counter:
        step()
    return batch / seconds, counter.get_total_flops() / batch, memory / 1e9


def timed(work: Callable[[], object], device: str, repeats: int) -> list[float]:
    """Seconds of each repeat, after one that is not counted."""
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
