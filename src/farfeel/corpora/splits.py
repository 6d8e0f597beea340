"""Speaker-independent splits: no speaker is in two parts.

paper       RAVDESS: training actors 1 to 18, validation 19 to 21, test 22 to 24.
folds-6:K   RAVDESS: the folds of EmoBox (Ma et al., 2024, arXiv 2406.07162), fold K from 1 is the test.
folds-5:K   RAVDESS: the folds of Luna-Jiménez et al. (2021), Sensors 21(22): 7665.
published   Stills: the parts that their folders name. Validation and test may be empty.
folds-N:K   Any other N, and any N on another corpus: the speakers that are there are dealt into N folds, one to each
            fold in turn: first the men, then the women, each in order of name. So each fold has both sexes, where
            the corpus knows them. For instance, folds-7 of RAVDESS without actors 22 to 24 is seven folds of three.
            Speakers who talk to each other stay together: folds-5:K of IEMOCAP tests session K.
            The folds depend on the speakers that are there: choose emotions and actors before splitting.

A corpus with surrogate videos is divided like the corpus of its audio.

In folds, validation is the fold after the test fold (the first fold after the last); training is the rest. A published
split can divide a part of its corpus; it says which speakers are absent. Each of several corpora is split by itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from farfeel.corpora import corpus_of
from farfeel.corpora.corpus import SURROGATE
from farfeel.corpora.readers.stills import SPLITS as STILL_PARTS
from farfeel.support.registry import nearest
from farfeel.support.text import few
from farfeel.types import Clip, FarfeelError

PARTS = ("train", "val", "test")
_NAMED = 40  # speakers that an error names

_PAPER = (tuple(range(1, 19)), (19, 20, 21), (22, 23, 24))
_FOLDS = {
    6: ((1, 11, 20, 21), (4, 10, 12, 14), (8, 9, 19, 23), (3, 5, 7, 24), (2, 15, 16, 18), (6, 13, 17, 22)),
    5: ((2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22)),
}

Speakers = tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Three parts without a common speaker.

    absent: speakers of the split without a clip. name: of the split. wanted: part → the speakers that the split puts
    there, present or not. Where the clips are of several corpora, speakers are named corpus/speaker.
    """

    train: tuple[Clip, ...]
    val: tuple[Clip, ...]
    test: tuple[Clip, ...]
    absent: Speakers = ()
    name: str = ""
    wanted: dict[str, Speakers] = field(default_factory=dict)

    def __post_init__(self) -> None:
        part_of: dict[tuple[str, str], str] = {}
        for part in PARTS:
            for clip in getattr(self, part):
                if part_of.setdefault((clip.corpus, clip.speaker), part) != part:
                    raise ValueError(f"speaker {clip.speaker} of {clip.corpus} is in two parts of {self.name}")

    def part(self, name: str) -> tuple[Clip, ...]:
        """The clips of the part "train", "val" or "test", or of "all". Raises FarfeelError where there are none."""
        if name not in (*PARTS, "all"):
            near = nearest(name, (*PARTS, "all"))
            remedy = f"did you mean {near}?" if near else "choose one of them"
            raise FarfeelError(f"split part {name} is not one of {', '.join(PARTS)}, all; {remedy}")
        clips = self.train + self.val + self.test if name == "all" else getattr(self, name)
        if not clips:
            here = sorted({clip.speaker for part in PARTS for clip in getattr(self, part)})
            nobody = "no speaker (more folds than speakers)" if _parse(self.name) else "stills of that part"
            wanted = few(self.wanted.get(name, ()), _NAMED) or nobody
            raise FarfeelError(
                f"the {name} part of {self.name} has no clip: it needs {wanted}, found "
                f"{few(here, _NAMED) or 'none'}; add those speakers or choose another split or part"
            )
        return clips


def split_clips(clips: Sequence[Clip], split: str) -> Split:
    """Clips → training, validation and test part, without a common speaker, each in the order of `clips`.

    A part may be empty. Raises FarfeelError for an unknown split, and for `paper` and `published` on a corpus that they
    do not divide.
    """
    wanted: dict[tuple[str, str], str] = {}  # (corpus, speaker) → part, for all speakers of the split
    for corpus in sorted({clip.corpus for clip in clips}):
        here = tuple(sorted({clip.speaker for clip in clips if clip.corpus == corpus}))
        for part, speakers in zip(PARTS, _divide(corpus, here, split), strict=True):
            wanted |= {(corpus, speaker): part for speaker in speakers}
    if not clips:
        _parse(split)
    parts: dict[str, list[Clip]] = {part: [] for part in PARTS}
    for clip in clips:
        if (clip.corpus, clip.speaker) not in wanted:
            raise FarfeelError(
                f"speaker {clip.speaker} is none of those that {split} divides in {clip.corpus}; "
                "remove that speaker or choose folds-N:K with another N"
            )
        parts[wanted[clip.corpus, clip.speaker]].append(clip)
    present = {(clip.corpus, clip.speaker) for clip in clips}
    several = len({clip.corpus for clip in clips}) > 1
    name_of = {who: "/".join(who) if several else who[1] for who in wanted}
    return Split(
        train=tuple(parts["train"]),
        val=tuple(parts["val"]),
        test=tuple(parts["test"]),
        absent=tuple(sorted(name_of[who] for who in wanted if who not in present)),
        name=split,
        wanted={part: tuple(sorted(name_of[who] for who in wanted if wanted[who] == part)) for part in PARTS},
    )


def _divide(corpus: str, here: Speakers, split: str) -> tuple[Speakers, Speakers, Speakers]:
    """The speakers of the three parts: those of the published split, or folds of the speakers that are here."""
    folding = _parse(split)
    corpus = corpus.removesuffix(SURROGATE)
    if split == "published":
        if corpus != "stills":
            raise FarfeelError(f"split published divides stills, found {corpus}; choose e.g. folds-5:1")
        train, val, test = (
            tuple(speaker for speaker in here if speaker.startswith(f"{part}-")) for part in STILL_PARTS
        )
        return train, val, test
    if folding is None:
        if corpus != "ravdess":
            raise FarfeelError(f"split paper divides the actors of ravdess, found {corpus}; choose e.g. folds-5:1")
        train, val, test = (_names(actors) for actors in _PAPER)
        return train, val, test
    count, test_fold = folding
    if corpus == "ravdess" and count in _FOLDS:
        folds = [_names(actors) for actors in _FOLDS[count]]
    else:
        folds = deal(corpus, here, count)
    val_fold = (test_fold + 1) % count
    rest = [speaker for fold in range(count) if fold not in (test_fold, val_fold) for speaker in folds[fold]]
    return tuple(sorted(rest)), folds[val_fold], folds[test_fold]


def deal(corpus: str, speakers: Sequence[str], count: int) -> list[Speakers]:
    """Speakers → `count` folds. Their sizes, and their numbers of men and of women, differ by one at most.

    Where speakers belong to groups, this is true of the numbers of groups.
    """
    known = corpus_of(corpus)
    groups: dict[str, list[str]] = defaultdict(list)
    for speaker in sorted(speakers):
        groups[known.together(speaker) if known else speaker].append(speaker)
    women = {
        name: all(known.sex(one) == "female" for one in group) if known else False for name, group in groups.items()
    }
    in_turn = sorted(groups, key=lambda name: (women[name], name))
    return [tuple(sorted(one for name in in_turn[fold::count] for one in groups[name])) for fold in range(count)]


def _names(actors: Sequence[int]) -> Speakers:
    return tuple(f"{actor:02d}" for actor in actors)


def _parse(split: str) -> tuple[int, int] | None:
    """Split name → number of folds and test fold from 0; None for paper and published."""
    if split in ("paper", "published"):
        return None
    parts = re.fullmatch(r"folds-(\d{1,3}):(\d{1,3})", split)
    if parts is None:
        known = (
            "paper",
            "published",
            *(f"folds-{count}:{fold}" for count in (5, 6, 7) for fold in range(1, count + 1)),
        )
        begun = [name for name in known if split and name.startswith(split)]
        near = begun[0] if begun else nearest(split, known)
        remedy = f"did you mean {near}?" if near else "choose one of these"
        raise FarfeelError(f"split {split} is not paper, published or folds-N:K, e.g. folds-6:1; {remedy}")
    count, fold = int(parts[1]), int(parts[2])
    if count < 3:  # one fold each for test and validation, one or more for training
        raise FarfeelError(f"split {split} has {count} folds, expected 3 or more; choose folds-3:K or more")
    if not 1 <= fold <= count:
        raise FarfeelError(f"split {split} asks for fold {fold}, expected 1 to {count}; choose one of them")
    return count, fold - 1
