"""Training and testing on a prepared corpus (`farfeel.shards`): the rooms have acted already.

The clips are those of the shards, and split, weighed and counted like any others. In training, each epoch draws one of
a clip's renderings and some of its microphones; speed, place in the window, noise, gain and failing microphones are
drawn anew, as from files. Speed changes the room with the voice: a clip played faster was spoken in a smaller room.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from farfeel.data import Sound, TrainingClips
from farfeel.media.audio import speech_span
from farfeel.media.footage import Footage
from farfeel.recipe import Recipe, Video
from farfeel.recordings import Recording, window_samples
from farfeel.shards import Example, Shards
from farfeel.takes import Take
from farfeel.types import Clip, FarfeelError


def clips_of(shards: Shards) -> list[Clip]:
    """The clips of prepared shards, each once; `audio` and `video` name the shard, where there is sound or film."""
    clips: dict[tuple[str, str], Clip] = {}
    for row in shards.rows:
        names = {name: row[name] for name in ("corpus", "speaker", "emotion", "sentence", "intensity")}
        audio, video = (None if row[f"{part}_at"] is None else Path(row["shard"]) for part in ("audio", "face"))
        clips.setdefault((row["corpus"], row["clip"]), Clip(id=row["clip"], audio=audio, video=video, **names))
    return sorted(clips.values(), key=lambda clip: (clip.corpus, clip.speaker, clip.id))


def require_heard_alike(shards: Shards, recipe: Recipe, to_train: bool) -> None:
    """Raise FarfeelError where the shards were not prepared for this recipe; to test, they may be without films."""
    if shards.sample_rate != recipe.audio.sample_rate:
        raise FarfeelError(
            f"{shards.place} was prepared at {shards.sample_rate} Hz, the recipe hears at {recipe.audio.sample_rate} "
            "Hz; prepare it with that recipe"
        )
    video = shards.facts["video"]
    if recipe.modalities != "audio" and (video or to_train or recipe.modalities == "video"):
        if video is None:
            raise FarfeelError(f"{shards.place} was prepared without films; prepare it with modalities=both")
        ours = recipe.video.model_dump(mode="json")
        seen = ("size", "frames", "crop", "margin")
        if differing := [name for name in seen if video[name] != ours[name]]:
            raise FarfeelError(
                f"{shards.place} was prepared with other video.{', video.'.join(differing)} than the recipe's; "
                "prepare it with that recipe"
            )


class StoredFootage(Footage):
    """A film that was decoded and cropped when the corpus was prepared."""

    def __init__(self, example: Example, knobs: Video) -> None:
        assert example.frames is not None
        assert example.at_s is not None
        self.knobs, self.begin_s, self.end_s = knobs, example.begin_s, example.end_s
        self.is_one_view = True
        self.looked = False
        self._warnings = {}
        self._whole = example.at_s, example.frames


class PreparedTraining(TrainingClips):
    """TrainingClips whose rooms have acted already."""

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
        footage = StoredFootage(example, recipe.video) if film else None
        samples = window_samples(recipe)
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


class PreparedRecordings(Sequence[Take]):
    """The takes of a test or of a validation: of each clip the first rendering in each room, as in a test with banks a
    clip is heard in a room once; with `one_each`, the first of all."""

    def __init__(
        self,
        clips: Sequence[Clip],
        recipe: Recipe,
        shards: Shards,
        mics: Sequence[int] | None = None,
        one_each: bool = False,
    ) -> None:
        require_heard_alike(shards, recipe, to_train=False)
        self.recipe, self.shards, self.mics = recipe, shards, mics
        self.places: list[tuple[Clip, int]] = []
        for clip, places in zip(clips, examples_of(shards, clips), strict=True):
            first = {shards.rows[place]["room"]: place for place in reversed(places)}
            self.places += [(clip, place) for place in (places[:1] if one_each else sorted(first.values()))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Take:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        (clip, place), modalities = self.places[index], self.recipe.modalities
        example, row = self.shards[place], self.shards.rows[place]
        film = modalities != "audio" and clip.video is not None and example.frames is not None
        audio = None if clip.audio is None or modalities == "video" else example.audio
        if audio is not None and self.mics is not None:
            audio = audio[list(self.mics)]
        footage = StoredFootage(example, self.recipe.video) if film else None
        return Take(clip, row["room"] or "clean", row["position"], Recording(audio, footage))

    def is_filmed(self, clip: Clip) -> bool:
        return clip.video is not None


def examples_of(shards: Shards, clips: Sequence[Clip]) -> list[list[int]]:
    """Of each clip, the places of its examples, in the order of renderings."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place in sorted(range(len(shards)), key=lambda place: shards.rows[place]["rendering"]):
        found[shards.rows[place]["corpus"], shards.rows[place]["clip"]].append(place)
    # Clips of several corpora name theirs.
    return [found[clip.corpus, clip.id.removeprefix(f"{clip.corpus}/")] for clip in clips]
