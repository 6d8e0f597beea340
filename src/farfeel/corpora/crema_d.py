"""CREMA-D, the Crowd-sourced Emotional Multimodal Actors Dataset: 91 actors, 12 sentences, 6 emotions.

Source: https://github.com/CheyneyComputerScience/CREMA-D (the media are Git LFS files). Licence: ODbL 1.0.
Citation: Cao, Cooper, Keutmann, Gur, Nenkova and Verma (2014), IEEE Trans. Affective Computing 5(4).

Names are actor _ sentence _ emotion _ intensity: 1001_DFA_ANG_XX.wav is actor 1001, "Don't forget a jacket", angry,
intensity unspecified. Only "It's eleven o'clock" (IEO) has LO, MD and HI. Sound (AudioWAV, or AudioMP3) and film
(VideoFlash, or an MP4 of it) of one name are one clip. The emotion is the one that was acted, not the one voted for.

Left out, as the repository's README tells: 1076_MTI_SAD_XX, which has no sound in any form, and the films and MP3 files
of three more, empty or showing something else, whose WAV files are sound.

Of the 7462 names that actors, sentences and emotions allow, 7442 are published (SentenceFilenames.csv); the women among
the actors are those of VideoDemographics.csv, both in the repository above.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

from farfeel.corpora.corpus import Corpus
from farfeel.media.audio import AUDIO_SUFFIXES
from farfeel.types import Clip

_SENTENCES = {
    "DFA": "Don't forget a jacket",
    "IEO": "It's eleven o'clock",
    "IOM": "I'm on my way to the meeting",
    "ITH": "I think I have a doctor's appointment",
    "ITS": "I think I've seen this before",
    "IWL": "I would like a new alarm clock",
    "IWW": "I wonder what this is about",
    "MTI": "Maybe tomorrow it will be cold",
    "TAI": "The airplane is almost full",
    "TIE": "That is exactly what happened",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
_EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "ANG": "angry", "FEA": "fearful", "DIS": "disgust"}
_INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high"}
_FILM_SUFFIXES = (".flv", ".mp4")
_ACTORS = tuple(str(actor) for actor in range(1001, 1092))
_WOMEN = (
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025, 1028, 1029, 1030,
    1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060, 1061, 1063, 1072, 1073, 1074, 1075,
    1076, 1078, 1079, 1082, 1084, 1089, 1091,
)  # fmt: skip
_UNPUBLISHED = (  # actor, sentence, emotions
    ("1002", "TIE", ("NEU",)),
    ("1008", "WSI", tuple(_EMOTIONS)),
    ("1009", "MTI", tuple(_EMOTIONS)),
    ("1019", "ITH", tuple(_EMOTIONS)),
    ("1076", "ITS", ("NEU",)),
)
_MUTE = "1076_MTI_SAD_XX"
_DEFECTIVE = (_MUTE, "1076_MTI_NEU_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD")
_NAME = re.compile(
    rf"({'|'.join(_ACTORS)})_({'|'.join(_SENTENCES)})_({'|'.join(_EMOTIONS)})_(LO|MD|HI|XX?)"
)  # One file was once published with X.


def _decode(path: Path) -> Clip | str | None:
    parts = _NAME.fullmatch(path.stem)
    suffix = path.suffix.lower()
    if parts is None or suffix not in (*AUDIO_SUFFIXES, *_FILM_SUFFIXES):
        return None
    actor, sentence, emotion, intensity = parts.groups()
    name = path.stem + ("X" if intensity == "X" else "")
    if name == _MUTE or (name in _DEFECTIVE and suffix in (".mp3", *_FILM_SUFFIXES)):
        return "published without sound, or defective"
    return Clip(
        id=name,
        corpus="crema-d",
        speaker=actor,
        emotion=_EMOTIONS[emotion],
        audio=path,  # the films have sound too
        video=path if suffix in _FILM_SUFFIXES else None,
        sentence=_SENTENCES[sentence],
        intensity=_INTENSITIES.get(intensity, ""),
    )


def _all_ids() -> tuple[str, ...]:
    lacking = {(actor, sentence, emotion) for actor, sentence, emotions in _UNPUBLISHED for emotion in emotions}
    return tuple(
        name
        for actor, sentence, emotion in product(_ACTORS, _SENTENCES, _EMOTIONS)
        for intensity in (("LO", "MD", "HI") if sentence == "IEO" and emotion != "NEU" else ("XX",))
        if (actor, sentence, emotion) not in lacking and (name := f"{actor}_{sentence}_{emotion}_{intensity}") != _MUTE
    )


CREMA_D = Corpus(
    name="crema-d",
    title="CREMA-D",
    source="https://github.com/CheyneyComputerScience/CREMA-D",
    citation=(
        "Cao H, Cooper DG, Keutmann MK, Gur RC, Nenkova A, Verma R (2014). CREMA-D: Crowd-sourced Emotional Multimodal "
        "Actors Dataset. IEEE Trans. Affective Computing 5(4): 377-390"
    ),
    licence="ODbL 1.0",
    emotions=tuple(_EMOTIONS.values()),
    example="1001_DFA_ANG_XX.wav",
    decode=_decode,
    speakers=_ACTORS,
    expected=_all_ids(),
    sex=lambda actor: "female" if int(actor) in _WOMEN else "male",
)
