"""What a model is tested on where the corpus was prepared (`farfeel.shards`): the rooms have acted already."""

from __future__ import annotations

from collections.abc import Sequence

from farfeel.evaluate.test_set import EvaluationItem
from farfeel.recipe import Recipe
from farfeel.recognise.windows import Recording
from farfeel.shards.reading import StoredFaceVideo, examples_of, require_heard_alike
from farfeel.shards.store import Shards
from farfeel.types import Clip


class PreparedEvaluationSet(Sequence[EvaluationItem]):
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

    def __getitem__(self, index: int) -> EvaluationItem:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        (clip, place), modalities = self.places[index], self.recipe.modalities
        example, row = self.shards[place], self.shards.rows[place]
        film = modalities != "audio" and clip.video is not None and example.frames is not None
        audio = None if clip.audio is None or modalities == "video" else example.audio
        if audio is not None and self.mics is not None:
            audio = audio[list(self.mics)]
        footage = StoredFaceVideo(example, self.recipe.video) if film else None
        return EvaluationItem(clip, row["room"] or "clean", row["position"], Recording(audio, footage))

    def is_filmed(self, clip: Clip) -> bool:
        return clip.video is not None
