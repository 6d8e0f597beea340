"""Corpora of emotional speech: files become clips, and clips become speaker-independent splits.

`readers` has one module for each corpus. It says where the data comes from, and reads the names of its files. `scan`
reads the headers of all files and reports what is there and what is missing. `labels` decides which emotion a clip
counts as. `splits` divides clips by speaker. `decoded` gives the audio and the video of clips. `synthetic` makes
a small corpus of artificial voices for demonstrations and tests. Nothing here imports PyTorch.
"""

from __future__ import annotations

from farfeel.corpora.corpus import SURROGATE, Corpus
from farfeel.support.registry import nearest
from farfeel.types import FarfeelError
from farfeel.variants import CORPORA


def get_corpus(name: str) -> Corpus:
    """The corpus of that name. Raises FarfeelError that names the nearest one, and where a plug-in's is not usable."""
    if name not in CORPORA:
        near = nearest(name, CORPORA.names)
        remedy = f"did you mean {near}?" if near else "choose one of them, or name a manifest file"
        raise FarfeelError(f"corpus {name} is not one of {', '.join(CORPORA)}; {remedy}")
    corpus = CORPORA.get(name)
    if not isinstance(corpus, Corpus) or corpus.name != name:
        kind = f"a Corpus called {corpus.name}" if isinstance(corpus, Corpus) else f"a {type(corpus).__name__}"
        package = CORPORA.variant(name).package
        raise FarfeelError(
            f"corpus {name} of {package} is {kind}, expected a Corpus called {name}; correct that package"
        )
    return corpus


def corpus_of(name: str) -> Corpus | None:
    """The corpus that clips name; None where it is not installed. That of surrogate videos is that of their audio."""
    name = name.removesuffix(SURROGATE)
    return get_corpus(name) if name in CORPORA else None


__all__ = ["Corpus", "corpus_of", "get_corpus"]
