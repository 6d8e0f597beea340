"""The data of a call from Python: a corpus by its name, prepared shards, or clips."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from farfeel.corpora.scan import load_corpora
from farfeel.shards.reading import clips_of
from farfeel.shards.store import Shards, is_prepared
from farfeel.support.console import note
from farfeel.types import Clip, FarfeelError

Corpus = str | os.PathLike[str] | Sequence[Clip]
"""A corpus's name, a manifest file, a folder or URL of prepared shards, or clips."""


def loaded_clips(
    corpus: Corpus, root: str | os.PathLike[str] | None, has_rooms: bool
) -> tuple[list[Clip], Shards | None, str]:
    """Its clips, its shards where it was prepared, and what errors call it. Raises FarfeelError."""
    if not isinstance(corpus, str | os.PathLike):
        if root is not None:
            raise FarfeelError(f"root is {os.fspath(root)}, and the clips have their paths already; remove root")
        return list(corpus), None, "the clips"
    name = os.fspath(corpus)
    if is_prepared(name):
        if has_rooms:
            raise FarfeelError(f"{name} was prepared in rooms already; remove rirs")
        shards = Shards.open(name)
        return clips_of(shards), shards, name
    folder = None if root is None else Path(root)
    return load_corpora([(name, folder)], note), None, str(folder or name)
