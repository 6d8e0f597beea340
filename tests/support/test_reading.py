"""Laws of reading what somebody else wrote: it is bounded by what was decoded, and damage is one error."""

import io
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farfeel.recipe import load_recipe
from farfeel.support.reading import DEEPEST, damage, npy_array, npy_layout, read_json, read_parquet, read_yaml
from farfeel.types import LONGEST_MESSAGE, FarfeelError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


def refusal(text: str) -> str:
    began_s = time.process_time()
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # The message is what the tests compare.
        read_yaml(text)
    assert time.process_time() - began_s < 5
    return str(raised.value)


def test_aliases_are_refused_before_they_are_expanded() -> None:
    assert "*a is an alias" in refusal(BOMB)
    assert "is an alias" in refusal("base: &b {epochs: 3}\ntrain: {<<: *b}")


@pytest.mark.parametrize("open_", ["[", "{a: ", "- "])
def test_nesting_is_bounded(open_: str) -> None:
    assert f"more than {DEEPEST} levels" in refusal(open_ * 5000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("a: 0x" + "f" * 5000, "a number of 5002 digits"),
        ("a: " + ":".join(["59"] * 3000), "a number of 8999 digits"),
        ("a: 2020-13-45", "a value cannot be read"),
        ("a: !!binary x", "failed to decode"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: 1\na: 2", "a stands there twice"),
        ("x" * 300_000, "at most 256000 are read"),
        ("a: \0", "special characters are not allowed"),
        ("? {a: 1}\n: 2", "unhashable"),
    ],
)
def test_values_that_yaml_may_not_have_are_one_line(text: str, reason: str) -> None:
    assert reason in refusal(text)
    assert "\n" not in refusal(text)


def test_very_many_keys_take_seconds_at_most() -> None:
    text = "\n".join(f"k{number}: 1" for number in range(20_000))
    began_s = time.process_time()
    assert len(read_yaml(text)) == 20_000
    assert time.process_time() - began_s < 20


def test_a_recipe_of_ten_lines_cannot_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(BOMB)
    with pytest.raises(FarfeelError, match=r"bomb.yaml is not YAML \(.*is an alias; write the value itself"):
        load_recipe(tmp_path / "bomb.yaml")


def test_a_very_long_wrong_value_is_shown_in_part(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(f"seed: {'x' * 100_000}")
    with pytest.raises(FarfeelError) as raised:
        load_recipe(tmp_path / "long.yaml")
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 60 + "]" * 60, "{", "nul"])
def test_json_raises_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # The kind is what is tested.
        read_json(text)


def test_parquet_is_bounded_by_the_rows_that_are_decoded_not_by_its_size() -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"a": pa.array(np.zeros(3_000_000, np.int8))}), stream)
    assert len(stream.getvalue()) < 20_000
    with pytest.raises(ValueError, match="more than 1000 rows"):
        read_parquet(io.BytesIO(stream.getvalue()), 1000, 1 << 30)
    with pytest.raises(ValueError, match="or 1000 bytes"):
        read_parquet(io.BytesIO(stream.getvalue()), 10_000_000, 1000)
    assert read_parquet(io.BytesIO(stream.getvalue()), 10_000_000, 1 << 30).num_rows == 3_000_000


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_read_as_numpy_reads_it(order: str) -> None:
    array = np.asarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4), order=order)  # type: ignore[call-overload]
    np.testing.assert_array_equal(npy_array(npy(array)), array)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"(2, 3)", b"(9, 9)"),
        (b"(2, 3)", b"(-1,3)"),
        (b"<f4", b"|O8"),
        (b"{'descr", b"{{{{{{{"),
        (b"NUMPY", b"NUMPX"),
        (b"False", b"Fa\xffse"),
    ],
)
def test_an_array_with_another_header_is_a_value_error(old: bytes, new: bytes) -> None:
    content = npy(np.zeros((2, 3), np.float32))
    assert old in content
    with pytest.raises(ValueError):  # noqa: PT011  # The kind is what is tested.
        npy_array(content.replace(old, new))


def test_an_array_whose_header_states_more_than_the_memory_is_not_allocated() -> None:
    header = npy(np.zeros((2, 3), np.float32)).replace(b"(2, 3), }     ", b"(2, 9999999), }")
    with pytest.raises(ValueError):  # noqa: PT011  # The kind is what is tested.
        npy_array(header)
    with pytest.raises(ValueError):  # noqa: PT011  # The kind is what is tested.
        npy_layout(io.BytesIO(header[:40]))


def test_damage_is_one_error_without_the_librarys_warnings() -> None:
    def fail() -> None:
        with damage(lambda reason: f"x ({reason}); try"):
            warnings.warn("of a library", stacklevel=1)
            raise AttributeError("a\n b.")

    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        with pytest.raises(FarfeelError, match=r"^x \(a b\); try$"):
            fail()
    assert printed == []


def test_an_error_of_farfeel_passes_through_damage() -> None:
    with pytest.raises(FarfeelError, match=r"^mine$"), damage(lambda reason: f"other {reason}"):
        raise FarfeelError("mine")


def test_an_error_is_one_line_of_bounded_length_that_cannot_steer_a_terminal() -> None:
    assert str(FarfeelError("a\nb\x1b[2Jc\u2028d")) == "a b [2Jc d"
    assert len(str(FarfeelError("x" * 10_000_000))) == LONGEST_MESSAGE
