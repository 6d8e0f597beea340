"""Training on a prepared corpus (`farfeel.shards`): the rooms have acted already.

Each epoch draws one of a clip's renderings and some of its microphones; speed, place in the window, noise, gain and
failing microphones are drawn anew, as from files. Speed changes the room with the voice: a clip played faster was
spoken in a smaller room.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from farfeel.media.audio import speech_span
from farfeel.recipe import Recipe
from farfeel.shards.reading import StoredFaceVideo, examples_of, require_heard_alike
from farfeel.shards.store import Shards
from farfeel.training.examples import Sound, TrainingSet
from farfeel.types import Clip, FarfeelError


class PreparedTrainingSet(TrainingSet):
    """TrainingSet whose rooms have acted already."""

    def __init__(self, clips: Sequence[Clip], recipe: Recipe, shards: Shards) -> None:
        require_heard_alike(shards, recipe, to_train=True)
        if shards.mics < recipe.microphones.count:
            raise FarfeelError(
                f"{shards.place} has {shards.mics} microphones, the recipe asks for {recipe.microphones.count}; "
                f"set microphones.count={shards.mics} or prepare more"
            )
        super().__init__(clips, recipe, None)
        self.shards, self.examples = shards, examples_of(shards, clips)

    def _noises(self) -> list[str]:
        kinds = [kind for kind in super()._noises() if kind not in ("babble", "fan")]
        if self.recipe.rooms.snr_db and not kinds:
            raise FarfeelError(
                "prepared clips have no place for others or for a fan: they stand in rooms of their own; set "
                "rooms.noise=[white]"
            )
        return kinds

    def _hear(self, index: int, rng: np.random.Generator) -> Sound:
        recipe, mics = self.recipe, self.recipe.microphones.count
        example = self.shards[int(rng.choice(self.examples[index]))]
        film = recipe.modalities != "audio" and example.frames is not None
        footage = StoredFaceVideo(example, recipe.video) if film else None
        samples = recipe.audio.window_samples
        if example.audio is None or recipe.modalities == "video":
            nothing = np.zeros((mics, 1 if recipe.modalities == "video" else samples), np.float32)
            return Sound.silent(nothing, mics, footage)
        chosen = rng.permutation(self.shards.mics)[:mics]
        heard, first = example.audio[chosen], 0
        if recipe.audio.trim_silence:
            first, last = speech_span(heard, recipe.audio.sample_rate)
            heard = heard[:, first:last]
        window, span_s = self._place(heard, first / recipe.audio.sample_rate, rng)
        noise, snr_db = self._draw_noise(index, None, chosen, samples, rng)
        no_taps = np.ones((mics, 1), np.float32)
        return Sound(window, no_taps, noise, snr_db, self._draw_alive(rng), span_s, footage)
