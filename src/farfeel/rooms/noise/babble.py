"""Other people who talk."""

from __future__ import annotations

import numpy as np

from farfeel.rooms.noise import Noise
from farfeel.rooms.scene import Material, Scene


class Babble(Noise):
    """Other speakers who talk at the same time, at other positions in the room."""

    def lacks(self, material: Material) -> str:
        if not material.positions:
            return "it needs positions in the room for other speakers, prepared clips have none"
        return "" if material.speakers > 1 else f"it needs a second speaker, found {material.speakers or 'none'}"

    def make(self, scene: Scene) -> np.ndarray:
        """(M, T) float32. All talkers are equally loud. Silent talkers are left out."""
        talkers, responses = scene.draw_talkers()
        mixed = np.zeros((scene.mics, scene.samples), dtype=np.float32)
        for talker, response in zip(talkers, responses, strict=True):
            loudness = float(np.sqrt(np.mean(np.square(talker, dtype=np.float64)))) if len(talker) else 0.0
            if loudness > 0:
                mixed += scene.sound_from(talker / loudness, response)
        return mixed
