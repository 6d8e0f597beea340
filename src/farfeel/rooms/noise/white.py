"""White noise."""

from __future__ import annotations

import numpy as np

from farfeel.rooms.noise import Noise
from farfeel.rooms.scene import Scene


class White(Noise):
    """White noise, independent in each microphone: the noise of microphones and amplifiers."""

    OF_EACH_MICROPHONE = True  # Amplifiers are set for the speech: a louder microphone is a noisier one.

    def make(self, scene: Scene) -> np.ndarray:
        """(M, T) float32 of unit variance."""
        return scene.rng.standard_normal((scene.mics, scene.samples), dtype=np.float32)
