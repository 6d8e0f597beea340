"""Named sets of classes: which emotions are the classes, and which others count as one of them.

Calm counts as neutral in all sets but the first. RAVDESS recorded calm as a second baseline beside neutral (Livingstone
and Russo, 2018). No other corpus here has such a label, so calm speech in them is called neutral.

A set becomes part of the recipe (`data.emotions`, `data.merge`, `data.excited`). So a checkpoint carries it wherever it
is tested. This module imports nothing that is slow: help texts list the sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from farfeel.types import EMOTIONS


@dataclass(frozen=True)
class LabelSet:
    """A set of classes.

    help: what is in it. emotions: the classes. calm: whether calm is a class of its own; if not, it counts as neutral.
    excited: whether IEMOCAP's excited clips count as happy; if not, they are left out.
    """

    help: str
    emotions: tuple[str, ...]
    calm: bool = False
    excited: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """What the set means in a recipe's data section."""
        return {
            "emotions": self.emotions,
            "merge": {} if self.calm else {"calm": "neutral"},
            "excited": self.excited,
        }


_FOUR = ("neutral", "happy", "sad", "angry")
LABEL_SETS: dict[str, LabelSet] = {
    "ravdess-8": LabelSet("all eight emotions", EMOTIONS, calm=True),
    "ravdess-7": LabelSet("calm counts as neutral", tuple(emotion for emotion in EMOTIONS if emotion != "calm")),
    "common-6": LabelSet(
        "the emotions that RAVDESS, CREMA-D, TESS and EmoDB share: without surprised, calm counts as neutral",
        (*_FOUR, "fearful", "disgust"),
    ),
    "iemocap-4": LabelSet("neutral, happy, sad, angry; IEMOCAP's excited clips count as happy", _FOUR),
    "iemocap-4-happy": LabelSet("the same four without IEMOCAP's excited clips", _FOUR, excited=False),
}
