"""Training on a prepared corpus (`farfeel.shards`), whose clips were recorded in rooms when it was prepared.

Each epoch draws one of a clip's renderings and some of its microphones. Speed, position in the window, noise, gain and
dead microphones are drawn anew, as for clips from files. A change of speed changes the room together with the voice:
a clip that is played faster was spoken in a smaller room.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from farfeel.media.audio import speech_span
from farfeel.recipe import Recipe
from farfeel.rooms.scene import Material, draw_working, no_room
from farfeel.shards.reading import StoredFaceVideo, examples_of, require_prepared_for
from farfeel.shards.store import Shards
from farfeel.training.examples import Drawn, TrainingSet, material_of
from farfeel.types import Clip, FarfeelError


class PreparedTrainingSet(TrainingSet):
    """A training set of clips that were prepared in rooms.

    Raises FarfeelError where the shards do not fit the recipe or have too few microphones.
    """

    def __init__(self, clips: Sequence[Clip], recipe: Recipe, shards: Shards) -> None:
        require_prepared_for(shards, recipe, to_train=True)
        if shards.mics < recipe.microphones.count:
            raise FarfeelError(
                f"{shards.address} has {shards.mics} microphones, the recipe asks for {recipe.microphones.count}; "
                f"set microphones.count={shards.mics} or prepare more"
            )
        super().__init__(clips, recipe, None)
        self.shards, self.examples = shards, examples_of(shards, clips)

    def _material(self) -> Material:
        # Each rendering is in a room of its own, and the responses of its other positions are not stored.
        return material_of(self.recipe, super()._material().speakers, positions=False)

    def _draw_audio(self, index: int, rng: np.random.Generator) -> Drawn:
        recipe, mics = self.recipe, self.recipe.microphones.count
        example = self.shards[int(rng.choice(self.examples[index]))]
        has_video = recipe.modalities != "audio" and example.frames is not None
        video = StoredFaceVideo(example, recipe) if has_video else None
        samples = recipe.audio.window_samples
        if example.audio is None or recipe.modalities == "video":
            silence = np.zeros((mics, 1 if recipe.modalities == "video" else samples), np.float32)
            return Drawn.without_audio(silence, mics, video)
        mic_indices = rng.permutation(self.shards.mics)[:mics]
        audio, first = example.audio[mic_indices], 0
        if recipe.audio.trim_silence:
            first, last = speech_span(audio, recipe.audio.sample_rate)
            audio = audio[:, first:last]
        window, span_s = self._draw_window(audio, first / recipe.audio.sample_rate, rng)
        noise, snr_db = self._draw_noise(index, None, mic_indices, samples, rng)
        working = draw_working(mics, recipe.augment.mic_dropout, rng)
        return Drawn(window, no_room(mics), noise, snr_db, working, span_s, video)
