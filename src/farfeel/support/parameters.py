"""The parameters that a result was made with: the same ones resume it, others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farfeel.support.reading import read_json
from farfeel.types import FarfeelError

MOST_SHOWN = 4  # parameters in one message
LONGEST_SHOWN = 40  # characters of a value in a message; a longer one, such as a checksum, is left out


def read_parameters(path: Path) -> dict[str, Any]:
    """The parameters in a JSON file; empty where there is no such file, or it cannot be read."""
    try:
        parameters = read_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return parameters if isinstance(parameters, dict) else {}


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], refusal: str, remedy: str) -> None:
    """Raise FarfeelError where `now` has other parameters than `before`.

    refusal: the sentence that names the result ("bank was made with other parameters"). remedy: what the user can do.
    """
    if differing := difference(before, now):
        raise FarfeelError(f"{refusal} ({differing}); {remedy}")


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The parameters that differ, with both values; "" where none does. Nested ones have dotted names."""
    if not before:
        return "none are recorded in it"
    theirs, ours = _flat(before), _flat(now)
    names = [name for name in sorted(theirs | ours) if theirs.get(name) != ours.get(name)]
    shown = [_shown(name, theirs.get(name), ours.get(name)) for name in names[:MOST_SHOWN]]
    return ", ".join([*shown, *([f"and {len(names) - MOST_SHOWN} more"] if len(names) > MOST_SHOWN else [])])


def _shown(name: str, before: Any, now: Any) -> str:
    if max(len(str(before)), len(str(now))) > LONGEST_SHOWN:
        return f"{name} differs"
    return f"{name} {before}, requested {now}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries → dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat
