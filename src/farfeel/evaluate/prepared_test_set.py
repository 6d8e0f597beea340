"""The recordings that a model is tested on where the corpus was prepared in rooms (`farfeel.shards`)."""

from __future__ import annotations

from collections.abc import Sequence

from farfeel.evaluate.test_set import EvaluationItem
from farfeel.recipe import Recipe
from farfeel.recognise.windows import Recording
from farfeel.shards.reading import StoredFaceVideo, examples_of, require_prepared_for
from farfeel.shards.store import Shards
from farfeel.types import Clip


class PreparedEvaluationSet(Sequence[EvaluationItem]):
    """The recordings of a test or of a validation.

    Of each clip, it has the first rendering in each room: as in a test with RIR banks, a clip is in each room once.
    With `one_each`, it has the first rendering alone. `mics` are the microphones of the shards, all by default.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        recipe: Recipe,
        shards: Shards,
        mics: Sequence[int] | None = None,
        one_each: bool = False,
    ) -> None:
        require_prepared_for(shards, recipe, to_train=False)
        self.recipe, self.shards, self.mics = recipe, shards, mics
        self.examples: list[tuple[Clip, int]] = []
        for clip, indices in zip(clips, examples_of(shards, clips), strict=True):
            first_in = {shards.rows[index]["room"]: index for index in reversed(indices)}
            self.examples += [(clip, index) for index in (indices[:1] if one_each else sorted(first_in.values()))]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> EvaluationItem:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        (clip, stored), modalities = self.examples[index], self.recipe.modalities
        example, row = self.shards[stored], self.shards.rows[stored]
        has_video = modalities != "audio" and clip.video is not None and example.frames is not None
        audio = None if clip.audio is None or modalities == "video" else example.audio
        if audio is not None and self.mics is not None:
            audio = audio[list(self.mics)]
        video = StoredFaceVideo(example, self.recipe) if has_video else None
        return EvaluationItem(clip, row["room"] or "clean", row["position"], Recording(audio, video))

    def has_video(self, clip: Clip) -> bool:
        """Whether the clip is tested with its video."""
        return clip.video is not None
