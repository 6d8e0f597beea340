"""The noise of a fan."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from farfeel.rooms.noise import Noise
from farfeel.rooms.scene import Material, Scene


class Fan(Noise):
    """Steady pink noise from one position in the room, as of a fan or a projector."""

    def lacks(self, material: Material) -> str:
        return "" if material.positions else "it needs a position in the room, prepared clips have none"

    def make(self, scene: Scene) -> np.ndarray:
        """(M, T) float32."""
        response = scene.draw_position()
        length = int(next_fast_len(scene.samples + response.shape[1], real=True))
        spectrum = rfft(scene.rng.standard_normal(length, dtype=np.float32))
        spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum), dtype=np.float32), 1))  # power falls by 3 dB per octave
        return scene.sound_from(irfft(spectrum, length), response)
