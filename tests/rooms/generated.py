"""Generated responses for the tests of rooms."""

import numpy as np

from farfeel.types import Rir, Room

SAMPLE_RATE = 16000


def exponential(
    t60_s: float, seconds: float, rng: np.random.Generator, mics: int = 1, sample_rate: int = SAMPLE_RATE
) -> np.ndarray:
    """(M, L) whose energy decays by exactly 60 dB in t60_s: random signs, no other randomness."""
    time_s = np.arange(round(seconds * sample_rate)) / sample_rate
    return 10 ** (-3 * time_s / t60_s) * rng.choice((-1.0, 1.0), size=(mics, len(time_s)))


def some_rirs(count: int = 3, mics: int = 2, sample_rate: int = SAMPLE_RATE) -> list[Rir]:
    """Responses of different lengths, two to a room, every other one with its geometry."""
    rng = np.random.default_rng(count)
    geometry = Room((4.0, 5.0, 2.5), (1.0, 1.0, 1.5), ((2.0, 3.0, 1.25),) * mics, 0.5)
    return [
        Rir(
            taps=rng.standard_normal((mics, 400 + 10 * index)).astype(np.float32),
            sample_rate=sample_rate,
            room=f"room_{index // 2}",
            position=f"place_{index}",
            t60_s=0.25 + index,
            drr_db=-3.5,
            origin="measured" if index % 2 else "simulated",
            geometry=None if index % 2 else geometry,
        )
        for index in range(count)
    ]
