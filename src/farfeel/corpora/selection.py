"""The clips of a corpus that a recipe can use, divided by its split."""

from __future__ import annotations

from collections.abc import Sequence

from farfeel.corpora.decoded import usable_clips
from farfeel.corpora.labels import relabelled
from farfeel.corpora.scan import named_with_corpus
from farfeel.corpora.splits import split_clips
from farfeel.recipe import Recipe
from farfeel.support.console import note
from farfeel.types import Clip


def selected_clips(
    loaded: Sequence[Clip], recipe: Recipe, parts: Sequence[str], where: str, to_train: bool = True
) -> tuple[list[list[Clip]], str]:
    """The clips of each part of the split, and a note on the speakers that are absent.

    parts: train, val, test; or "all" alone for the undivided clips. where: what errors call the data. to_train: a
    recipe of audio and video needs a clip with video. With several corpora, ids and speakers get the corpus's name.
    What is left out is printed. Raises FarfeelError where a part has no clip.
    """
    labelled, changes = relabelled(loaded, recipe.data, recipe.modalities)
    for line in changes:
        note(line)
    clips = usable_clips(labelled, recipe, where, to_train)
    if others := [clip.emotion for clip in labelled if clip.emotion not in recipe.data.emotions]:
        note(f"left out: {len(others)} clips of other emotions ({', '.join(sorted(set(others)))})")
    if lacking := len(labelled) - len(others) - len(clips):
        note(f"left out: {lacking} clips without {'audio' if recipe.modalities == 'audio' else 'video'}")
    clips_of_parts, absent = [clips], ""
    if tuple(parts) != ("all",):
        divided = split_clips(clips, recipe.data.split)
        absent = f"; speakers missing from the corpus: {', '.join(divided.absent)}" if divided.absent else ""
        clips_of_parts = [list(divided.part(part)) for part in parts]
    corpora = sorted({clip.corpus for clip in loaded})
    if len(corpora) > 1:
        for part, own in zip(parts, clips_of_parts, strict=True):
            counts = [f"{sum(clip.corpus == corpus for clip in own)} of {corpus}" for corpus in corpora]
            note(f"{part}: {', '.join(counts)}")
        clips_of_parts = [named_with_corpus(own) for own in clips_of_parts]
    return clips_of_parts, absent
