"""What runs a network: PyTorch, or ONNX Runtime without PyTorch. Both give the same for the same windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from farfeel.recipe import Recipe

NAMES = ("torch", "onnx")


class Engine(Protocol):
    """A network that is ready to run."""

    @property
    def recipe(self) -> Recipe: ...

    @property
    def temperature(self) -> np.ndarray:
        """(3,) the temperatures of the calibration: audio alone, video alone, both."""
        ...

    def probabilities(
        self, audio: np.ndarray, mic_mask: np.ndarray, frames: np.ndarray | None, seen: np.ndarray
    ) -> np.ndarray:
        """Calibrated probabilities (W, K) float64.

        audio: (W, M, T) float32. mic_mask: (W, M) bool. frames: (W, N, S, S, 3) uint8, None for a network without
        video. seen: (W,) bool, whether there are frames.
        """
        ...
