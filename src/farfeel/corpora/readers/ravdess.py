"""RAVDESS, the Ryerson Audio-Visual Database of Emotional Speech and Song: 24 actors, 2 sentences, 8 emotions.

Source: https://zenodo.org/records/1188976 (doi 10.5281/zenodo.1188976). Licence: CC BY-NC-SA 4.0.
Citation: Livingstone and Russo (2018), PLoS ONE 13(5): e0196391.

Names are modality - channel - emotion - intensity - statement - repetition - actor:
03-01-06-01-02-01-12.wav is 03 audio only, 01 speech, 06 fearful, 01 normal, 02 "Dogs are sitting by the door",
01 first time, 12 the twelfth actor. Odd actors are male, even ones female.

Audio (03, WAV or a FLAC copy at any rate) and video (MP4: 01 with audio, 02 without) of one utterance become one clip.
Its id is always the name of the audio file, whichever files are there. So evaluations of one utterance can be compared.
Song (channel 02) is left out.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

from farfeel.corpora.corpus import Corpus
from farfeel.media.audio import AUDIO_SUFFIXES
from farfeel.types import EMOTIONS, Clip

_NAME = re.compile(r"0([123])-0([12])-0([1-8])-0([12])-0([12])-0([12])-(0[1-9]|1\d|2[0-4])")
_INTENSITIES = ("normal", "strong")
_STATEMENTS = ("Kids are talking by the door", "Dogs are sitting by the door")
_ACTORS = tuple(f"{actor:02d}" for actor in range(1, 25))


def _decode(path: Path) -> Clip | str | None:
    parts = _NAME.fullmatch(path.stem)
    suffix = path.suffix.lower()
    if parts is None or (suffix not in AUDIO_SUFFIXES if parts[1] == "3" else suffix != ".mp4"):
        return None
    modality, channel, emotion, intensity, statement, _, actor = parts.groups()
    if channel == "2":
        return "song"
    return Clip(
        id="03" + path.stem[2:],
        corpus="ravdess",
        speaker=actor,
        emotion=EMOTIONS[int(emotion) - 1],
        audio=None if modality == "2" else path,
        video=None if modality == "3" else path,
        sentence=_STATEMENTS[int(statement) - 1],
        intensity=_INTENSITIES[int(intensity) - 1],
    )


def _all_ids() -> tuple[str, ...]:
    """The 60 clips of each of the 24 actors; neutral has no strong intensity."""
    return tuple(
        f"03-01-0{emotion}-0{intensity}-0{statement}-0{repetition}-{actor}"
        for actor, emotion, intensity, statement, repetition in product(_ACTORS, range(1, 9), (1, 2), (1, 2), (1, 2))
        if not (emotion == 1 and intensity == 2)
    )


RAVDESS = Corpus(
    name="ravdess",
    title="RAVDESS",
    source="https://zenodo.org/records/1188976",
    citation=(
        "Livingstone SR, Russo FA (2018). The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS). "
        "PLoS ONE 13(5): e0196391"
    ),
    licence="CC BY-NC-SA 4.0",
    emotions=EMOTIONS,
    example="03-01-06-01-02-01-12.wav",
    decode=_decode,
    speakers=_ACTORS,
    expected=_all_ids(),
    sex=lambda actor: "male" if actor[-1] in "13579" else "female",
)
