"""The synthetic corpus: artificial voices and drawn faces, made by `farfeel.corpora.synthetic.generate`.

Licence: none needed. A result on it says nothing about people.

Names are synthetic - speaker - emotion - number: synthetic-03-angry-02.flac, and .mp4, in speaker_03/. Odd
speakers have low voices, even ones have high voices.
"""

from __future__ import annotations

import re
from pathlib import Path

from farfeel.corpora.corpus import Corpus
from farfeel.types import EMOTIONS, Clip

_NAME = re.compile(rf"synthetic-(\d\d)-({'|'.join(EMOTIONS)})-(\d\d)")
_SENTENCES = ("sa ti ko pu te ka si", "ki pa to se tu ka pi so", "te su pi ka so ti pa", "po ki sa tu pe si ka to")


def sentence_of(number: int) -> str:
    """The syllables of a speaker's clips of that number."""
    return _SENTENCES[(number - 1) % len(_SENTENCES)]


def _decode(path: Path) -> Clip | str | None:
    parts = _NAME.fullmatch(path.stem)
    if parts is None or path.suffix.lower() not in (".flac", ".mp4"):
        return None
    speaker, emotion, number = parts.groups()
    is_audio = path.suffix.lower() == ".flac"
    return Clip(
        id=path.stem,
        corpus="synthetic",
        speaker=speaker,
        emotion=emotion,
        audio=path if is_audio else None,
        video=None if is_audio else path,
        sentence=sentence_of(int(number)),
        face="whole",
    )


SYNTHETIC = Corpus(
    name="synthetic",
    title="the synthetic corpus",
    source="farfeel.corpora.synthetic.generate",
    citation="farfeel's own artificial voices and drawn faces",
    licence="none needed",
    emotions=EMOTIONS,
    example="synthetic-03-angry-02.flac",
    decode=_decode,
    sex=lambda speaker: "male" if speaker[-1] in "13579" else "female",
)
