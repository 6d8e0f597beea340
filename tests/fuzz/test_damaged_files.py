"""Damaged files are read, or refused in one line: never another exception, a hang, or words of a library."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .campaign import GROUPS, OUTCOMES, SLOW_S, attempt, run, table
from .damaging import Reader

FILES = {"recipes": 250, "banks": 250, "checkpoints": 120, "tables": 250, "archives": 250, "onnx": 60}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Reader]]:
    """A group's readers, made once."""

    @cache
    def readers(group: str) -> list[Reader]:
        return import_module(f"{__package__}.{GROUPS[group]}").readers(tmp_path_factory.mktemp(group))

    return readers


@pytest.mark.parametrize("group", GROUPS)
def test_a_damaged_file_is_read_or_refused_in_one_line(
    group: str, made: Callable[[str], list[Reader]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    readers = made(group)
    capfd.readouterr()

    @settings(max_examples=FILES[group], derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(readers) - 1), st.integers(0, 2**32))
    def law(which: int, number: int) -> None:
        outcome, what = attempt(readers[which], 0, number, tmp_path)
        assert outcome in ("read", "refused"), f"{readers[which].name}, file {number}: {what}"

    law()
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_the_campaign_counts_every_file_of_every_reader(tmp_path: Path) -> None:
    results = run("recipes", 40)
    assert sum(result.outcomes.total() for result in results.values()) == 40
    assert {result.outcomes.total() for result in results.values()} == {10}
    assert set().union(*(result.outcomes for result in results.values())) <= set(OUTCOMES)
    assert "| all | 40 |" in table(results)
    assert all(result.slowest_s < SLOW_S for result in results.values())


def test_a_reader_that_lets_another_exception_through_is_found(tmp_path: Path) -> None:
    def read(content: bytes, folder: Path) -> None:
        (folder / "file").write_bytes(content)
        raise TypeError("of a library")

    outcome, what = attempt(Reader("broken", lambda rng: rng.randbytes(10), read), 1, 1, tmp_path)
    assert outcome == "foreign"
    assert what.startswith("TypeError: 'of a library' at test_damaged_files.py:")
    assert list(tmp_path.iterdir()) == []


def test_the_same_seed_and_number_give_the_same_file(tmp_path: Path) -> None:
    seen: list[bytes] = []
    reader = Reader("any", lambda rng: rng.randbytes(10), lambda content, _: seen.append(content))
    for seed, number in ((1, 1), (1, 1), (1, 2), (2, 1)):
        assert attempt(reader, seed, number, tmp_path) == ("read", "")
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3
