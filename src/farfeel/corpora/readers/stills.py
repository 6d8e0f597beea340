"""Stills: folders of pictures of faces with their emotions.

A folder holds split / emotion / name: train/happy/000123.jpg. Splits and emotions may have FER2013's own names, or
those of the many copies of it. `farfeel stills` makes such a folder from the table that FER2013 is published as
(`farfeel.corpora.stills`).

FER2013 (https://www.kaggle.com/competitions/challenges-in-representation-learning-facial-expression-recognition-challenge)
has 48×48 grey faces that were found by an image search: 28,709 for training, 3,589 "public test" (validation) and 3,589
"private test" (test), 7 emotions. Licence: research use. Citation: Goodfellow et al. (2013), Challenges in
Representation Learning: A Report on Three Machine Learning Contests, ICONIP.

The people in the pictures are not known. So each still counts as a speaker of its own, and the split is the published
one (`published`). The same person, and even the same picture, can be in two of its parts. `farfeel stills` counts such
pictures.
"""

from __future__ import annotations

from pathlib import Path

from farfeel.corpora.corpus import Corpus
from farfeel.types import EMOTIONS, Clip

SPLITS = ("train", "validation", "test")
_SUFFIXES = (".jpg", ".jpeg", ".png")
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "publictest"),
    "test": ("test", "testing", "privatetest"),
}
_EMOTION_NAMES = {
    "happy": ("happiness",),
    "sad": ("sadness",),
    "angry": ("anger",),
    "fearful": ("fear",),
    "disgust": ("disgusted",),
    "surprised": ("surprise",),
}
SPLIT_OF = {name: split for split, names in _SPLIT_NAMES.items() for name in names}
EMOTION_OF = {name: emotion for emotion in EMOTIONS for name in (emotion, *_EMOTION_NAMES.get(emotion, ()))}


def _decode(path: Path) -> Clip | str | None:
    split = SPLIT_OF.get(path.parent.parent.name.lower())
    if split is None or path.suffix.lower() not in _SUFFIXES:
        return None
    emotion = EMOTION_OF.get(path.parent.name.lower())
    if emotion is None:
        return f"stills in a folder {path.parent.name}"
    return Clip(
        id=f"{split}/{emotion}/{path.stem}",
        corpus="stills",
        speaker=f"{split}-{emotion}-{path.stem}",  # One name may be in the folder of each emotion.
        emotion=emotion,
        audio=None,
        video=path,
        face="whole",
    )


STILLS = Corpus(
    name="stills",
    title="stills of faces",
    source="https://www.kaggle.com/datasets/msambare/fer2013",
    citation=(
        "Goodfellow IJ et al. (2013). Challenges in Representation Learning: A Report on Three Machine Learning "
        "Contests. Proc. ICONIP 2013"
    ),
    licence="that of the pictures; FER2013: research use",
    emotions=EMOTIONS,
    example="train/happy/000123.jpg",
    decode=_decode,
)
