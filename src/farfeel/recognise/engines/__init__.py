"""What runs a network: PyTorch, or ONNX Runtime without it. Both do the same with the same windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from farfeel.recipe import Recipe

NAMES = ("torch", "onnx")


class Engine(Protocol):
    """A network that is ready to be asked."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def temperature(self) -> np.ndarray:
        """(3,) what `probabilities` are calibrated with: of sound alone, film alone, both."""
        ...

    def probabilities(
        self, audio: np.ndarray, mic_mask: np.ndarray, frames: np.ndarray | None, seen: np.ndarray
    ) -> np.ndarray:
        """audio (W, M, T) float32, mic_mask (W, M) bool, frames (W, N, S, S, 3) uint8 (None for a network without
        eyes), seen (W,) bool: whether there are frames → calibrated probabilities (W, K) float64."""
        ...
