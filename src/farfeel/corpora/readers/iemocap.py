"""IEMOCAP: five sessions of two actors each, who improvise and play scenes; 10,039 utterances judged by listeners.

Source: https://sail.usc.edu/iemocap (on request). Licence: research use, as in its release form.
Citation: Busso et al. (2008), IEMOCAP: Interactive emotional dyadic motion capture database, LREV 42(4).

Layout, as released; the labels are in files, not in names:

    Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav   one utterance of the man of session 1
    Session1/dialog/EmoEvaluation/Ses01F_impro01.txt                [6.2901 - 8.2357] <tab> utterance <tab> neu <tab> …
    Session1/dialog/transcriptions/Ses01F_impro01.txt               utterance [006.2901-008.2357]: Excuse me.
    Session1/dialog/avi/DivX/Ses01F_impro01.avi                     the video of the dialogue

The letter after the session, here F, is the actor who wears the markers in this recording. The letter before the
number, here M, is the actor who speaks. `exc` (excited) counts as happy, as in the usual four-class results. The
intensity of such a clip is "excited", so `data.excited=false` can leave it out. fru (frustrated), oth (other) and xxx
(no agreement) are none of farfeel's emotions and are left out. All labels are perceived ones: most of the listeners
agreed.

A video has both actors side by side. The actor with the markers is on the left. The release does not say so; it follows
from code that crops these videos (https://github.com/IoannisKansizoglou/Iemocap-preprocess, extractionmapCreator.py).
It was not checked on the videos themselves: look at a few crops before you trust it. Utterances are cut from the video
by the times in EmoEvaluation.

The published files of utterances have one channel; the files in dialog/wav have two. farfeel reads the utterances of
both actors, which may overlap in time. It does not read the dialogues.

The two actors of a session talk to each other and are always in one part: folds-5:K tests session K, as in EmoBox.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from farfeel.corpora.corpus import Corpus
from farfeel.types import Clip

_NAME = re.compile(r"((Ses0[1-5])([FM])_(?:impro|script)[0-9a-z_]+)_([FM])\d{3}")
_LABEL = re.compile(r"\[\s*([\d.]+) - [\d.]+\s*\]\t(\S+)\t([a-z]+)\t")
_TEXT = re.compile(r"(\S+) \[[\d.]+-[\d.]+\]:\s*(.*?)\s*")
_EMOTIONS = {
    "neu": "neutral",
    "hap": "happy",
    "exc": "happy",
    "sad": "sad",
    "ang": "angry",
    "fea": "fearful",
    "dis": "disgust",
    "sur": "surprised",
}
EXCITED = "excited"
_LEFT_OUT = {"fru": "frustrated", "oth": "other emotions", "xxx": "listeners did not agree"}


@dataclass(frozen=True)
class _Dialogue:
    """The labels of one recording: utterance → start in seconds, label; its texts: utterance → words; its video."""

    labels: dict[str, tuple[float, str]]
    texts: dict[str, str]
    video: Path | None


def _decode(path: Path) -> Clip | str | None:
    parts = _NAME.fullmatch(path.stem)
    if parts is None or path.suffix.lower() != ".wav":
        return None
    name, session, wears_markers, speaks = parts.groups()
    if len(path.parents) < 4:
        return "utterances outside a session's folder"
    dialogue = _read_dialogue(path.parents[3] / "dialog", name)
    if path.stem not in dialogue.labels:
        return "utterances without a label in dialog/EmoEvaluation"
    start_s, label = dialogue.labels[path.stem]
    if label not in _EMOTIONS:
        return _LEFT_OUT.get(label, label)
    return Clip(
        id=path.stem,
        corpus="iemocap",
        speaker=session + speaks,
        emotion=_EMOTIONS[label],
        audio=path,
        video=dialogue.video,
        sentence=dialogue.texts.get(path.stem, ""),
        intensity=EXCITED if label == "exc" else "",
        video_offset_s=start_s if dialogue.video else 0.0,
        face="left" if speaks == wears_markers else "right",
    )


def _labelled(clips: Sequence[Clip]) -> dict[str, str]:
    """Utterances of the clips' sessions whose label is one of farfeel's emotions, with or without their audio."""
    sessions = {clip.audio.parents[3] for clip in clips if clip.audio}
    labels: dict[str, tuple[float, str]] = {}
    for session in sessions:
        for file in (session / "dialog" / "EmoEvaluation").glob("Ses*.txt"):
            labels |= _read_dialogue(session / "dialog", file.stem).labels
    return {utterance: _EMOTIONS[label] for utterance, (_, label) in labels.items() if label in _EMOTIONS}


@lru_cache(maxsize=1)  # A folder is walked one dialogue after the other.
def _read_dialogue(folder: Path, name: str) -> _Dialogue:
    labels, texts = {}, {}
    for line in _lines(folder / "EmoEvaluation" / f"{name}.txt"):
        if match := _LABEL.match(line):
            with suppress(ValueError):  # A damaged line labels nothing: its utterance is reported as one without.
                labels[match[2]] = float(match[1]), match[3]
    for line in _lines(folder / "transcriptions" / f"{name}.txt"):
        if match := _TEXT.fullmatch(line):
            texts[match[1]] = match[2]
    video = folder / "avi" / "DivX" / f"{name}.avi"
    return _Dialogue(labels, texts, video if video.is_file() else None)


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="latin-1").splitlines() if file.is_file() else []


IEMOCAP = Corpus(
    name="iemocap",
    title="IEMOCAP",
    source="https://sail.usc.edu/iemocap",
    citation=(
        "Busso C, Bulut M, Lee CC, Kazemzadeh A, Mower E, Kim S, Chang JN, Lee S, Narayanan SS (2008). IEMOCAP: "
        "Interactive emotional dyadic motion capture database. Language Resources and Evaluation 42(4): 335-359"
    ),
    licence="research use, as in its release form",
    emotions=tuple(dict.fromkeys(_EMOTIONS.values())),
    example="Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
    decode=_decode,
    speakers=tuple(f"Ses0{session}{sex}" for session in range(1, 6) for sex in "FM"),
    sex=lambda speaker: "female" if speaker.endswith("F") else "male",
    together=lambda speaker: speaker[:-1],
    labelled=_labelled,
)
