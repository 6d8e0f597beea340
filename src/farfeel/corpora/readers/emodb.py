"""EmoDB, the Berlin Database of Emotional Speech: ten actors, ten German sentences, 7 emotions.

Source: http://emodb.bilderbar.info. Licence: free of charge for research, with the citation.
Citation: Burkhardt, Paeschke, Rolfes, Sendlmeier and Weiss (2005), A Database of German Emotional Speech, Interspeech.

Names are speaker (2 digits), text (3), emotion (1, the German word's initial), version (1): 15a05Wa.wav is speaker 15,
text a05 "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück", W Wut (angry), first version.
L Langeweile (boredom) is none of farfeel's emotions and is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from farfeel.corpora.corpus import Corpus
from farfeel.media.audio import AUDIO_SUFFIXES
from farfeel.types import Clip

_MEN = ("03", "10", "11", "12", "15")
_WOMEN = ("08", "09", "13", "14", "16")
_NAME = re.compile(rf"({'|'.join(_MEN + _WOMEN)})([ab]\d\d)([NFTWAEL])([a-z]?)")
_EMOTIONS = {"N": "neutral", "F": "happy", "T": "sad", "W": "angry", "A": "fearful", "E": "disgust"}
_SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank",
    "a02": "Das will sie am Mittwoch abgeben",
    "a04": "Heute Abend könnte ich es ihm sagen",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück",
    "a07": "In sieben Stunden wird es soweit sein",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen",
}


def _decode(path: Path) -> Clip | str | None:
    parts = _NAME.fullmatch(path.stem)
    if parts is None or path.suffix.lower() not in AUDIO_SUFFIXES:
        return None
    speaker, text, letter, _ = parts.groups()
    if letter == "L":
        return "boredom"
    return Clip(
        id=path.stem,
        corpus="emodb",
        speaker=speaker,
        emotion=_EMOTIONS[letter],
        audio=path,
        sentence=_SENTENCES.get(text, text),
    )


EMODB = Corpus(
    name="emodb",
    title="EmoDB",
    source="http://emodb.bilderbar.info",
    citation=(
        "Burkhardt F, Paeschke A, Rolfes M, Sendlmeier WF, Weiss B (2005). A Database of German Emotional Speech. "
        "Proc. Interspeech 2005, 1517-1520"
    ),
    licence="free of charge for research, with the citation",
    emotions=tuple(_EMOTIONS.values()),
    example="15a05Wa.wav",
    decode=_decode,
    speakers=tuple(sorted(_MEN + _WOMEN)),
    sex=lambda speaker: "male" if speaker in _MEN else "female",
)
