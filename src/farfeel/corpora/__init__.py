"""Corpora of emotional speech: file names become clips, clips become speaker-independent splits.

Each corpus is one module that says where the data comes from and decodes one file name; `CORPORA` holds them by name.
`scan` reads the headers and says what is there and what is missing, `labels` tells what a clip counts as, `splits`
divides by speaker, `synthetic` makes a small corpus of artificial voices for demonstrations and tests, `folder` reads
your own clips. Nothing here imports torch.
"""

from __future__ import annotations

from farfeel.corpora.corpus import Corpus
from farfeel.corpora.crema_d import CREMA_D
from farfeel.corpora.emodb import EMODB
from farfeel.corpora.folder import FOLDER
from farfeel.corpora.iemocap import IEMOCAP
from farfeel.corpora.ravdess import RAVDESS
from farfeel.corpora.stills import STILLS
from farfeel.corpora.synthetic import SYNTHETIC
from farfeel.corpora.tess import TESS
from farfeel.corpora.urdu import URDU
from farfeel.support.registry import nearest
from farfeel.types import FarfeelError

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus for corpus in (RAVDESS, CREMA_D, IEMOCAP, TESS, EMODB, URDU, STILLS, SYNTHETIC, FOLDER)
}


def get_corpus(name: str) -> Corpus:
    """The corpus of that name. Raises FarfeelError that names the nearest one."""
    if name in CORPORA:
        return CORPORA[name]
    near = nearest(name, list(CORPORA))
    remedy = f"did you mean {near}?" if near else "choose one of them, or name a manifest file"
    raise FarfeelError(f"corpus {name} is not one of {', '.join(CORPORA)}; {remedy}")


__all__ = ["CORPORA", "Corpus", "get_corpus"]
