"""SAVEE, Surrey Audio-Visual Expressed Emotion: 4 men, 120 English utterances each, 7 emotions.

Source: http://kahlan.eps.surrey.ac.uk/savee/. Licence: research use. Citation: Jackson and Haq (2014), Surrey
Audio-Visual Expressed Emotion (SAVEE) Database, University of Surrey.

Names are speaker _ emotion and number: DC_a01.wav is speaker DC, angry, first sentence. Each emotion has the numbers 1
to 15, neutral has 1 to 30.
"""

from __future__ import annotations

import re
from pathlib import Path

from farfeel.corpora.corpus import Corpus
from farfeel.media.audio import AUDIO_SUFFIXES
from farfeel.types import Clip

_SPEAKERS = ("DC", "JE", "JK", "KL")
_EMOTIONS = {
    "a": "angry",
    "d": "disgust",
    "f": "fearful",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprised",
}
_NAME = re.compile(rf"({'|'.join(_SPEAKERS)})_({'|'.join(_EMOTIONS)})(\d\d)")


def _decode(path: Path) -> Clip | str | None:
    """A file's path → its clip; None where the name is not one of SAVEE's."""
    parts = _NAME.fullmatch(path.stem)
    if parts is None or path.suffix.lower() not in AUDIO_SUFFIXES:
        return None
    return Clip(id=path.stem, corpus="savee", speaker=parts[1], emotion=_EMOTIONS[parts[2]], audio=path)


def _all_ids() -> tuple[str, ...]:
    return tuple(
        f"{speaker}_{letters}{number:02d}"
        for speaker in _SPEAKERS
        for letters in _EMOTIONS
        for number in range(1, 31 if letters == "n" else 16)
    )


SAVEE = Corpus(
    name="savee",
    title="SAVEE",
    source="http://kahlan.eps.surrey.ac.uk/savee/",
    citation="Jackson P, Haq S (2014). Surrey Audio-Visual Expressed Emotion (SAVEE) Database. University of Surrey",
    licence="research use",
    emotions=tuple(_EMOTIONS.values()),
    example="DC_a01.wav",
    decode=_decode,
    speakers=_SPEAKERS,
    expected=_all_ids(),
    sex=lambda speaker: "male",
)
