"""TESS, the Toronto emotional speech set: two actresses, aged 64 (OAF) and 26 (YAF), 200 words, 7 emotions.

Source: https://doi.org/10.5683/SP2/E8H2MF. Licence: CC BY-NC-ND 4.0.
Citation: Pichora-Fuller and Dupuis (2020), Toronto emotional speech set (TESS), Borealis.

Names are speaker _ word _ emotion, in any case and in any folder: OAF_back_ps.wav is the older actress saying
"Say the word back", pleasantly surprised. One published file begins with OA_ instead of OAF_.
"""

from __future__ import annotations

import re
from pathlib import Path

from farfeel.corpora.corpus import Corpus
from farfeel.media.audio import AUDIO_SUFFIXES
from farfeel.types import Clip

_NAME = re.compile(r"(oaf?|yaf)_([a-z]+)_(angry|disgust|fear|happy|neutral|ps|sad)")
_EMOTIONS = {
    "neutral": "neutral",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "fear": "fearful",
    "disgust": "disgust",
    "ps": "surprised",
}


def _decode(path: Path) -> Clip | str | None:
    parts = _NAME.fullmatch(path.stem.lower())
    if parts is None or path.suffix.lower() not in AUDIO_SUFFIXES:
        return None
    speaker = "YAF" if parts[1] == "yaf" else "OAF"
    return Clip(
        id=f"{speaker}_{parts[2]}_{parts[3]}",
        corpus="tess",
        speaker=speaker,
        emotion=_EMOTIONS[parts[3]],
        audio=path,
        sentence=f"Say the word {parts[2]}",
    )


TESS = Corpus(
    name="tess",
    title="TESS",
    source="https://doi.org/10.5683/SP2/E8H2MF",
    citation="Pichora-Fuller MK, Dupuis K (2020). Toronto emotional speech set (TESS). Borealis",
    licence="CC BY-NC-ND 4.0",
    emotions=tuple(_EMOTIONS.values()),
    example="OAF_back_ps.wav",
    decode=_decode,
    speakers=("OAF", "YAF"),
    sex=lambda speaker: "female",
)
