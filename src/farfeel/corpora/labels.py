"""Which emotion a clip counts as: the one place where the labels of corpora become the classes of a recipe.

Corpora distinguish different emotions. A named set (`label_sets`) or a list gives the classes. Labels are intended
(what was acted) or perceived (what most people named), where a corpus has both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from farfeel.corpora import corpus_of
from farfeel.corpora.label_sets import LABEL_SETS
from farfeel.corpora.readers.iemocap import EXCITED, IEMOCAP
from farfeel.recipe import Data
from farfeel.support.registry import nearest
from farfeel.types import EMOTIONS, Clip, FarfeelError


def label_set(name: str) -> dict[str, Any]:
    """What the name of a set, or a list of emotions like happy,sad, means in a recipe's data section.

    Raises FarfeelError for a name that is neither.
    """
    if name in LABEL_SETS:
        return LABEL_SETS[name].settings
    emotions = tuple(part.strip() for part in name.split(","))
    if unknown := [emotion for emotion in emotions if emotion not in EMOTIONS]:
        near = nearest(unknown[0], (*LABEL_SETS, *EMOTIONS))
        raise FarfeelError(
            f"--emotions {name} is neither one of {', '.join(LABEL_SETS)} nor a list of {', '.join(EMOTIONS)}; "
            + (f"did you mean {near}?" if near else "choose among these")
        )
    return {"emotions": emotions, "merge": {}}


def relabelled(clips: Sequence[Clip], data: Data, modalities: str) -> tuple[list[Clip], list[str]]:
    """The clips with the emotions that they count as, and a line for each thing that was changed or left out.

    data: the recipe's data section. modalities: the recipe's. Perceived labels are those of people who were given the
    same modalities.
    """
    labelled, notes = _perceived(clips, data, modalities) if data.labels == "perceived" else (list(clips), [])
    if not data.excited:
        kept = [clip for clip in labelled if clip.intensity != EXCITED]
        # In a manifest of an earlier version no clip is marked as excited. The note then says 0.
        if any(clip.corpus == IEMOCAP.name for clip in labelled):
            notes.append(f"left out: {len(labelled) - len(kept)} excited clips")
        labelled = kept
    merged = Counter(clip.emotion for clip in labelled if clip.emotion in data.merge)
    notes += [f"merged: {count} clips of {emotion} count as {data.merge[emotion]}" for emotion, count in merged.items()]
    return [replace(clip, emotion=data.merge.get(clip.emotion, clip.emotion)) for clip in labelled], notes


def _perceived(clips: Sequence[Clip], data: Data, modalities: str) -> tuple[list[Clip], list[str]]:
    """The clips with the emotion that most people voted for, where their corpus has votes."""
    labelled, notes = [], []
    for name in dict.fromkeys(clip.corpus for clip in clips):
        own = [clip for clip in clips if clip.corpus == name]
        corpus = corpus_of(name)
        if corpus is None or corpus.perceived is None:
            notes.append(f"{name} has no perceived labels: the intended ones count")
            labelled += own
            continue
        votes = corpus.perceived(own, modalities)
        voted = [clip for clip in own if clip.id in votes]
        clear = [clip for clip in voted if votes[clip.id].emotion]
        agreed = [clip for clip in clear if votes[clip.id].share >= data.agreement]
        differ = sum(votes[clip.id].emotion != clip.emotion for clip in agreed)
        notes.append(f"perceived: {differ} of {len(agreed)} clips of {name} as another emotion than was acted")
        for why, left_out in (
            ("without votes", len(own) - len(voted)),
            ("with tied votes", len(voted) - len(clear)),
            (f"with less than {data.agreement:.0%} of the votes for their label", len(clear) - len(agreed)),
        ):
            notes += [f"left out: {left_out} clips of {name} {why}"] if left_out else []
        labelled += [replace(clip, emotion=votes[clip.id].emotion) for clip in agreed]
    return labelled, notes


def label_details(data: Data) -> dict[str, str]:
    """The lines about labels in a card or a report; none where each clip counts as what was acted."""
    merged = [f"{emotion} counts as {counts_as}" for emotion, counts_as in data.merge.items()]
    merged += [] if data.excited else ["IEMOCAP's excited left out"]
    least = f", {data.agreement:.0%} of the votes or more" if data.agreement else ""
    perceived = {"perceived": f"what most people named, where the corpus has their votes{least}"}
    return ({"merged": "; ".join(merged)} if merged else {}) | (perceived if data.labels == "perceived" else {})


def require_classes(data: Data, known: Sequence[str]) -> None:
    """Raise FarfeelError where a model cannot answer with a class of `data`. known: the emotions that it knows."""
    answers = {data.merge.get(emotion, emotion) for emotion in known}
    if unknown := [emotion for emotion in data.emotions if emotion not in answers]:
        raise FarfeelError(
            f"--emotions asks for {', '.join(unknown)}, the checkpoint knows {', '.join(known)}; choose among these"
        )
