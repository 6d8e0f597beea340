"""URDU: 400 utterances cut from Urdu talk shows, 4 emotions, 100 of each.

Source: https://github.com/siddiquelatif/URDU-Dataset. Licence: research use only.
Citation: Latif, Qayyum, Usman and Qadir (2018), Cross Lingual Speech Emotion Recognition: Urdu vs. Western Languages,
arXiv 1812.10411.

Names have three parts: S, sex and number of the speaker; F and the number of the speaker's file; the emotion and the
number of the emotion's file. SM4_F2_A054.wav is male speaker 4, his second file, angry, the 54th angry one. A speaker
has the same number in all emotions. The authors describe 38 speakers (27 male, 11 female). The names of the 400
published files have 29: SF1 to SF11, SM1 to SM7 and SM17 to SM27.

Most speakers have one emotion only. For instance, 98 of the 100 angry clips are of SM1, SM2 and SM4, who have no other
emotion. So a model that recognises the voice knows the answer: read scores on this corpus with care.
"""

from __future__ import annotations

import re
from pathlib import Path

from farfeel.corpora.corpus import Corpus
from farfeel.media.audio import AUDIO_SUFFIXES
from farfeel.types import Clip

_NAME = re.compile(r"S([MF]\d+)_F\d+_([ANHS])\d+")
_EMOTIONS = {"N": "neutral", "H": "happy", "S": "sad", "A": "angry"}
_MEN = (*range(1, 8), *range(17, 28))


def _decode(path: Path) -> Clip | str | None:
    parts = _NAME.fullmatch(path.stem)
    if parts is None or path.suffix.lower() not in AUDIO_SUFFIXES:
        return None
    return Clip(id=path.stem, corpus="urdu", speaker=parts[1], emotion=_EMOTIONS[parts[2]], audio=path)


URDU = Corpus(
    name="urdu",
    title="URDU",
    source="https://github.com/siddiquelatif/URDU-Dataset",
    citation=(
        "Latif S, Qayyum A, Usman M, Qadir J (2018). Cross Lingual Speech Emotion Recognition: Urdu vs. Western "
        "Languages. arXiv 1812.10411"
    ),
    licence="research use only",
    emotions=tuple(_EMOTIONS.values()),
    example="SM4_F2_A054.wav",
    decode=_decode,
    speakers=(*(f"F{number}" for number in range(1, 12)), *(f"M{number}" for number in _MEN)),
    sex=lambda speaker: "male" if speaker.startswith("M") else "female",
)
