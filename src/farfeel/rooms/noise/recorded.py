"""Noise from audio files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from farfeel.media.audio import audio_info, resample
from farfeel.rooms.noise import Noise
from farfeel.rooms.scene import Material, Scene, draw_stretch
from farfeel.types import FarfeelError


class Recorded(Noise):
    """Audio files of the recipe's rooms.noise_folder; files with too few channels are played in the room."""

    def lacks(self, material: Material) -> str:
        if not material.recordings:
            raise FarfeelError(
                f"recorded noise needs audio files, rooms.noise_folder ({material.noise_folder}) has no audio file; "
                "name a folder of noise recordings in the recipe, or choose another kind of noise"
            )
        return ""

    def make(self, scene: Scene) -> np.ndarray:
        """(M, T) float32: a random stretch of a file; a file that is too short is repeated.

        A file with M channels or more is used as it is: its channels were recorded in one room. Of any other file the
        first channel is played from a position in the scene's room. Raises FarfeelError where the file cannot be read.
        """
        path, response = scene.draw_recording(), scene.draw_position()
        if audio_info(path).channels >= scene.mics:
            return draw_stretch(_read_stretch(path, scene, scene.samples)[: scene.mics], scene.samples, scene.rng)
        reach = scene.samples + response.shape[1] - 1
        return scene.sound_from(_read_stretch(path, scene, reach)[0], response)


def _read_stretch(path: Path, scene: Scene, samples: int) -> np.ndarray:
    """(channels, T') from a random position in the file; T' is `samples` where the file has as many.

    Not read by `media.audio.read_audio`: noise may last for hours, and may pause.
    """
    info = audio_info(path)
    frames, wanted = round(info.seconds * info.sample_rate), -(-samples * info.sample_rate // scene.sample_rate) + 1
    start = int(scene.rng.integers(frames - wanted + 1)) if frames > wanted else 0
    try:
        audio, _ = soundfile.read(str(path), start=start, frames=wanted, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise FarfeelError(f"{path} cannot be read as audio ({error}); convert it or remove it") from None
    if not len(audio) or not np.isfinite(audio).all():
        raise FarfeelError(f"{path} is empty or contains NaN, expected noise; remove it from the noise folder")
    return resample(audio.T, info.sample_rate, scene.sample_rate)
