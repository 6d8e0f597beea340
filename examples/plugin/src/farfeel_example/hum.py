"""A kind of noise: the hum of the mains."""

from __future__ import annotations

import numpy as np

from farfeel.rooms.noise import Noise
from farfeel.rooms.scene import Material, Scene

HARMONICS = 20


class Hum(Noise):
    """Mains hum at 50 or 60 Hz with its harmonics, from one position in the room."""

    def lacks(self, material: Material) -> str:
        return "" if material.positions else "it needs a position in the room, prepared clips have none"

    def make(self, scene: Scene) -> np.ndarray:
        """(M, T) float32."""
        mains_hz = scene.rng.choice([50.0, 60.0])
        phases = scene.rng.uniform(0, 2 * np.pi, HARMONICS)
        response = scene.draw_position()
        samples = scene.samples + response.shape[1] - 1
        time_s = np.arange(samples) / scene.sample_rate
        hum = np.zeros(samples)
        for harmonic, phase in enumerate(phases, start=1):
            hum += np.sin(2 * np.pi * mains_hz * harmonic * time_s + phase) / harmonic
        return scene.sound_from(hum, response)
