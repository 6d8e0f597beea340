"""Text for people: errors of other libraries on one line, names in one spelling, short lists."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def one_line(error: object, most: int | None = None) -> str:
    """An error, or any text, as one line with single spaces; at most `most` characters of it."""
    return " ".join(str(error).split())[:most]


def nfc(text: str) -> str:
    """The same text with composed characters: macOS writes "ö" as two characters, other systems as one."""
    return unicodedata.normalize("NFC", text)


def few(names: Sequence[object], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(str(name) for name in names[:limit]) + more
