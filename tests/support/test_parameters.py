"""Laws of results that were begun: the same parameters resume them, others are refused."""

from pathlib import Path

import pytest

from farfeel.support.parameters import difference, read_parameters, require_same
from farfeel.types import FarfeelError

BEFORE = {"seed": 1, "ranges": {"t60_s": [0.2, 0.4]}, "sha256": "a" * 64}


def test_the_same_parameters_resume() -> None:
    assert difference(BEFORE, {"sha256": "a" * 64, "ranges": {"t60_s": [0.2, 0.4]}, "seed": 1}) == ""


def test_other_parameters_are_refused_and_shown_with_both_values() -> None:
    with pytest.raises(FarfeelError, match=r"bank differs \(seed 1, requested 2\); choose another --out"):
        require_same(BEFORE, BEFORE | {"seed": 2}, "bank differs", "choose another --out")
    assert difference(BEFORE, BEFORE | {"ranges": {"t60_s": [0.2, 0.5]}}) == (
        "ranges.t60_s [0.2, 0.4], requested [0.2, 0.5]"
    )
    assert difference(BEFORE, BEFORE | {"sha256": "b" * 64}) == "sha256 differs"
    assert difference(BEFORE, BEFORE | {"mics": 3}) == "mics None, requested 3"


def test_of_many_differences_some_are_shown_and_the_others_counted() -> None:
    shown = difference(dict.fromkeys("abcdefg", 1), dict.fromkeys("abcdefg", 2))
    assert shown.endswith("d 1, requested 2, and 3 more")


@pytest.mark.parametrize("content", [None, "", "{", "[1]"])
def test_a_result_without_readable_parameters_is_not_resumed(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "parameters.json").write_text(content)
    assert difference(read_parameters(tmp_path / "parameters.json"), BEFORE) == "none are recorded in it"
