"""What a clip counts as: named sets of classes, and the one place where corpora's labels become them.

Corpora tell different emotions apart. A set says which are the classes, and which others count as one of them:

ravdess-8        all eight.
ravdess-7        calm counts as neutral.
common-6         neutral (and calm), happy, sad, angry, fearful, disgust: what RAVDESS, CREMA-D, TESS and EmoDB share.
iemocap-4        neutral (and calm), happy (and IEMOCAP's excited), sad, angry: the usual four of IEMOCAP.
iemocap-4-happy  the same without IEMOCAP's excited.

Calm counts as neutral in all but the first: RAVDESS recorded it as a second baseline beside neutral (Livingstone and
Russo, 2018), and no other corpus here has a word for it, so that calm speech in them is called neutral.

A set is part of the recipe (`data.emotions`, `data.merge`, `data.excited`), so that a checkpoint carries it wherever it
is tested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from farfeel.corpora import CORPORA
from farfeel.corpora.corpus import SURROGATE
from farfeel.corpora.iemocap import EXCITED, IEMOCAP
from farfeel.recipe import Data
from farfeel.support.registry import nearest
from farfeel.types import EMOTIONS, Clip, FarfeelError

_CALM = {"calm": "neutral"}
_FOUR = ("neutral", "happy", "sad", "angry")
LABEL_SETS: dict[str, dict[str, Any]] = {
    "ravdess-8": {"emotions": EMOTIONS, "merge": {}, "excited": True},
    "ravdess-7": {"emotions": tuple(e for e in EMOTIONS if e != "calm"), "merge": _CALM, "excited": True},
    "common-6": {"emotions": (*_FOUR, "fearful", "disgust"), "merge": _CALM, "excited": True},
    "iemocap-4": {"emotions": _FOUR, "merge": _CALM, "excited": True},
    "iemocap-4-happy": {"emotions": _FOUR, "merge": _CALM, "excited": False},
}
"""Name → what it sets in a recipe's data section."""


def label_set(name: str) -> dict[str, Any]:
    """What a set's name, or a list of emotions like happy,sad, sets in a recipe's data section. FarfeelError for a name
    that is neither."""
    if name in LABEL_SETS:
        return LABEL_SETS[name]
    emotions = tuple(part.strip() for part in name.split(","))
    if unknown := [emotion for emotion in emotions if emotion not in EMOTIONS]:
        near = nearest(unknown[0], (*LABEL_SETS, *EMOTIONS))
        raise FarfeelError(
            f"--emotions {name} is neither one of {', '.join(LABEL_SETS)} nor a list of {', '.join(EMOTIONS)}; "
            + (f"did you mean {near}?" if near else "choose among these")
        )
    return {"emotions": emotions, "merge": {}}


def relabelled(clips: Sequence[Clip], data: Data, modalities: str) -> tuple[list[Clip], list[str]]:
    """The clips as what they count as, and a line for each thing that was changed or left out.

    `modalities` are the recipe's: perceived labels are those of people who were given as much.
    """
    found, notes = _perceived(clips, data, modalities) if data.labels == "perceived" else (list(clips), [])
    if not data.excited:
        kept = [clip for clip in found if clip.intensity != EXCITED]
        if any(clip.corpus == IEMOCAP.name for clip in found):  # None at all: a manifest of an earlier version.
            notes.append(f"left out: {len(found) - len(kept)} excited clips")
        found = kept
    merged = Counter(clip.emotion for clip in found if clip.emotion in data.merge)
    notes += [f"merged: {count} clips of {emotion} count as {data.merge[emotion]}" for emotion, count in merged.items()]
    return [replace(clip, emotion=data.merge.get(clip.emotion, clip.emotion)) for clip in found], notes


def _perceived(clips: Sequence[Clip], data: Data, modalities: str) -> tuple[list[Clip], list[str]]:
    """The clips with the emotion that was voted for, where their corpus tells."""
    found, notes = [], []
    for name in dict.fromkeys(clip.corpus for clip in clips):
        own = [clip for clip in clips if clip.corpus == name]
        corpus = CORPORA.get(name.removesuffix(SURROGATE))
        if corpus is None or corpus.perceived is None:
            notes.append(f"{name} has no perceived labels: what was intended counts")
            found += own
            continue
        votes = corpus.perceived(own, modalities)
        voted = [clip for clip in own if clip.id in votes]
        clear = [clip for clip in voted if votes[clip.id].emotion]
        agreed = [clip for clip in clear if votes[clip.id].share >= data.agreement]
        differ = sum(votes[clip.id].emotion != clip.emotion for clip in agreed)
        notes.append(f"perceived: {differ} of {len(agreed)} clips of {name} as another emotion than was acted")
        for why, left_out in (
            ("without votes", len(own) - len(voted)),
            ("whose votes are tied", len(voted) - len(clear)),
            (f"whose label has less than {data.agreement:.0%} of the votes", len(clear) - len(agreed)),
        ):
            notes += [f"left out: {left_out} clips of {name} {why}"] if left_out else []
        found += [replace(clip, emotion=votes[clip.id].emotion) for clip in agreed]
    return found, notes


def about(data: Data) -> dict[str, str]:
    """What a card or a report says of labels; nothing where each clip counts as what was acted."""
    merged = [f"{emotion} counts as {counts_as}" for emotion, counts_as in data.merge.items()]
    merged += [] if data.excited else ["IEMOCAP's excited left out"]
    least = f", {data.agreement:.0%} of the votes or more" if data.agreement else ""
    perceived = {"perceived": f"what most people named, where the corpus tells{least}"}
    return ({"merged": "; ".join(merged)} if merged else {}) | (perceived if data.labels == "perceived" else {})


def require_classes(data: Data, known: Sequence[str]) -> None:
    """FarfeelError where a class of `data` is none that a model tells, alone or merged with others, which knows the
    emotions `known`."""
    told = {data.merge.get(emotion, emotion) for emotion in known}
    if unknown := [emotion for emotion in data.emotions if emotion not in told]:
        raise FarfeelError(
            f"--emotions asks for {', '.join(unknown)}, the checkpoint tells {', '.join(known)}; choose among these"
        )
