"""gpuRIR, a second engine for simulated rooms, for users who have a GPU and install it.

Diaz-Guerra, Miguel and Beltran, 2020, arXiv 1810.11359; https://github.com/DavidDiazGuerra/gpuRIR. Its licence is
AGPL-3.0, so it is never a dependency. It computes image sources down to DIFFUSE_AFTER_DB, and then its own diffuse
tail. The tail uses random numbers of the GPU, so two banks made with it do not have the same bytes.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np

from farfeel.types import FarfeelError, Room

DIFFUSE_AFTER_DB = 15.0  # the authors' choice in their examples


def shoebox(room: Room, sample_rate: int, rng: np.random.Generator, length: int) -> np.ndarray:
    """(M, L) float32; tap t is t / sample_rate seconds after the source sounds. `rng` is not used."""
    engine = _engine()
    size, longest_s = list(room.size_m), length / sample_rate
    diffuse_s = min(float(engine.att2t_SabineEstimator(DIFFUSE_AFTER_DB, room.t60_s)), longest_s)
    taps = engine.simulateRIR(
        room_sz=size,
        beta=engine.beta_SabineEstimation(size, room.t60_s),
        pos_src=np.array([room.source_m]),  # positions are rows
        pos_rcv=np.array(room.mics_m),
        nb_img=engine.t2n(diffuse_s, size),
        Tmax=longest_s,
        fs=float(sample_rate),
        Tdiff=diffuse_s,
    )
    response = np.asarray(taps, dtype=np.float32)[0, :, :length]  # (source, microphone, time)
    return np.pad(response, ((0, 0), (0, length - response.shape[1])))


def require_engine() -> None:
    """Raise FarfeelError where gpuRIR is not installed."""
    if importlib.util.find_spec("gpuRIR") is None:
        raise FarfeelError(
            "--backend gpurir needs gpuRIR, which is not installed (it needs CUDA and is AGPL); see "
            "https://github.com/DavidDiazGuerra/gpuRIR, or use --backend pyroomacoustics"
        )


def _engine() -> Any:
    require_engine()
    import gpuRIR

    return gpuRIR
