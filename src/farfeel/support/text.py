"""Text for people: errors of other libraries on one line."""

from __future__ import annotations


def one_line(error: object, most: int | None = None) -> str:
    """An error, or any text, as one line with single spaces; at most `most` characters of it."""
    return " ".join(str(error).split())[:most]
