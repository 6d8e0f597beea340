"""CREMA-D, the Crowd-sourced Emotional Multimodal Actors Dataset: 91 actors, 12 sentences, 6 emotions.

Source: https://github.com/CheyneyComputerScience/CREMA-D (the media are Git LFS files). Licence: ODbL 1.0.
Citation: Cao, Cooper, Keutmann, Gur, Nenkova and Verma (2014), IEEE Trans. Affective Computing 5(4).

Names are actor _ sentence _ emotion _ intensity: 1001_DFA_ANG_XX.wav is actor 1001, "Don't forget a jacket", angry,
intensity unspecified. Only "It's eleven o'clock" (IEO) has LO, MD and HI. Audio (AudioWAV, or AudioMP3) and video
(VideoFlash, or an MP4 of it) of one name are one clip.

The emotion is the one that was acted. What others perceived is in processedResults/tabulatedVotes.csv, with one row per
clip and presentation. The first digit of the row's number is the presentation: 1 the voice, 2 the face, 3 both (this
agrees with summaryTable.csv). `emoVote` is the letter that most voters chose, or several letters with colons between
them where they tie. `agreement` is its share of the 4 to 12 votes.

    voices                                 7442
    tied votes                              644
    perceived as they were acted           3099
    perceived as neutral                   3897

EmoBox (Ma et al., 2024, data/cremad) divides this corpus by clips: some actors are both in training and in test (1052
and 1077, for example). farfeel has no such split, so accuracies on that split and on these cannot be compared.

Left out, following the repository's README: 1076_MTI_SAD_XX, which has no audio in any form; and the videos and MP3
files of three more clips, which are empty or of something else. The WAV files of these three are used.

Actors, sentences and emotions allow 7462 names; 7442 are published (SentenceFilenames.csv). The women among the actors
are those of VideoDemographics.csv. Both tables are in the repository above. A scan takes sexes and ages from that table
where it is beside the clips. Splits always use the list below. So the actors are divided in the same way on a machine
that lacks the table.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from farfeel.corpora.corpus import Corpus, Vote
from farfeel.media.audio import AUDIO_SUFFIXES
from farfeel.support.reading import damage
from farfeel.types import Clip, FarfeelError

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
_VIDEO_SUFFIXES = (".flv", ".mp4")
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
_SOURCE = "https://github.com/CheyneyComputerScience/CREMA-D"
_VOTES = Path("processedResults/tabulatedVotes.csv")
_PEOPLE = Path("VideoDemographics.csv")
_DIGITS = 3  # of an age
_PRESENTED = {"audio": "1", "video": "2", "both": "3"}
_LETTERS = {name[0]: emotion for name, emotion in _EMOTIONS.items()}
_MUTE = "1076_MTI_SAD_XX"
_DEFECTIVE = (_MUTE, "1076_MTI_NEU_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD")
_NAME = re.compile(
    rf"({'|'.join(_ACTORS)})_({'|'.join(_SENTENCES)})_({'|'.join(_EMOTIONS)})_(LO|MD|HI|XX?)"
)  # One file was once published with X.


def _decode(path: Path) -> Clip | str | None:
    parts = _NAME.fullmatch(path.stem)
    suffix = path.suffix.lower()
    if parts is None or suffix not in (*AUDIO_SUFFIXES, *_VIDEO_SUFFIXES):
        return None
    actor, sentence, emotion, intensity = parts.groups()
    name = path.stem + ("X" if intensity == "X" else "")
    if name == _MUTE or (name in _DEFECTIVE and suffix in (".mp3", *_VIDEO_SUFFIXES)):
        return "published without audio, or defective"
    return Clip(
        id=name,
        corpus="crema-d",
        speaker=actor,
        emotion=_EMOTIONS[emotion],
        audio=path,  # the videos have audio too
        video=path if suffix in _VIDEO_SUFFIXES else None,
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


def _sex(actor: str) -> str:
    return "female" if int(actor) in _WOMEN else "male"


def _perceived(clips: Sequence[Clip], presented: str) -> dict[str, Vote]:
    """What people perceived in the voice, the face or both.

    Raises FarfeelError where the table of votes is missing or damaged.
    """
    table = _table_above(clips, _VOTES)
    if table is None:
        raise FarfeelError(
            f"no folder above {clips[0].audio or clips[0].video} has {_VOTES}, expected for perceived labels; copy it "
            f"there from {_SOURCE}, or use the intended labels"
        )
    votes = {}
    for number, row in enumerate(_rows(table, ("", "fileName", "emoVote", "agreement")), start=2):
        try:
            share, letters = float(row["agreement"]), row["emoVote"].split(":")
            emotions = [_LETTERS[letter] for letter in letters]
            if not 0 <= share <= 1:
                raise ValueError
        except (ValueError, KeyError):
            values = f"emoVote {row['emoVote'][:40]!r} and agreement {row['agreement'][:40]!r}"
            expected = f"letters of {', '.join(_LETTERS)} and a share"
            raise FarfeelError(
                f"{table}, row {number}: {values}, expected {expected}; copy the table again from {_SOURCE}"
            ) from None
        if row[""].startswith(_PRESENTED[presented]):
            votes[row["fileName"]] = Vote(emotions[0] if len(emotions) == 1 else "", share)
    return votes


def _people(clips: Sequence[Clip]) -> str:
    """How many women and men, and their ages where the table is there."""
    actors = {clip.speaker for clip in clips}
    table = _table_above(clips, _PEOPLE)
    rows = {row["ActorID"]: row for row in _rows(table, ("ActorID", "Age", "Sex"))} if table else {}
    sexes = Counter(rows[actor]["Sex"].lower() if actor in rows else _sex(actor) for actor in actors)
    told = [rows[actor]["Age"] for actor in actors if actor in rows]
    ages = sorted(int(age) for age in told if age.isdecimal() and len(age) <= _DIGITS)
    return f"{sexes['female']} women and {sexes['male']} men" + (f", {ages[0]} to {ages[-1]} years old" if ages else "")


def _table_above(clips: Sequence[Clip], name: Path) -> Path | None:
    """A table of the repository, in any folder above the clips."""
    files = (clip.audio or clip.video for clip in clips)
    folders = {folder: None for file in files if file for folder in file.absolute().parents}
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _rows(table: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    message = f"{table} is no CSV"
    with (
        damage(lambda reason: f"{message} ({reason}), expected the published table; copy it again"),
        table.open(encoding="utf-8-sig", errors="replace", newline="") as file,
    ):
        rows = csv.DictReader(file, restval="")
        if lacking := [column for column in columns if column not in (rows.fieldnames or ())]:
            problem = f"{table} has no column {', '.join(map(repr, lacking))}"
            raise FarfeelError(f"{problem}, expected those of the published table; copy it again from {_SOURCE}")
        return list(rows)


CREMA_D = Corpus(
    name="crema-d",
    title="CREMA-D",
    source=_SOURCE,
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
    sex=_sex,
    perceived=_perceived,
    people=_people,
)
