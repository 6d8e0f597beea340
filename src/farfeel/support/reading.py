"""Reading files that somebody else may have made: damage becomes one FarfeelError, and limits count what was decoded.

Libraries raise many kinds of exceptions for bytes that they do not expect: pyarrow raises ArrowInvalid, but also
TypeError and UnicodeDecodeError. A list of kinds is never complete. So each reader puts the few lines that call a
library into `damage`, and nothing else.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import yaml

from farfeel.support.text import one_line
from farfeel.types import FarfeelError

if TYPE_CHECKING:  # Both are slow to import, and `farfeel --help` needs neither.
    import numpy as np
    import pyarrow as pa

DEEPEST = 40  # levels of nested lists and sections
LONGEST_YAML = 256_000  # characters; a recipe has 4,000
LONGEST_NUMBER = 64  # characters
LARGEST_JSON = 64_000_000  # bytes
NPY_VERSIONS = ((1, 0), (2, 0), (3, 0))


@contextmanager
def damage(message: Callable[[str], str]) -> Iterator[None]:
    """Whatever a library raises in this block becomes a FarfeelError, and its warnings are not printed.

    message: the library's reason → the line for the user.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except FarfeelError:
        raise
    except Exception as error:  # Any kind: see above.
        reason = one_line(error, 120).strip("'\" ").rstrip(".") or type(error).__name__
        raise FarfeelError(message(reason)) from None


def read_json(content: str | bytes) -> Any:
    """Parsed JSON. Raises ValueError for anything else, also where it is nested more than DEEPEST levels deep."""
    if len(content) > LARGEST_JSON:
        raise ValueError(f"{len(content)} bytes, at most {LARGEST_JSON} are read")
    try:
        tree = json.loads(content)
    except RecursionError:
        raise ValueError(f"more than {DEEPEST} levels") from None
    _require_shallow(tree)
    return tree


def _require_shallow(tree: Any) -> None:
    level = [tree]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"more than {DEEPEST} levels")


def read_yaml(text: str) -> Any:
    """Parsed YAML of plain values. Raises ValueError with one line.

    Not read: aliases (ten lines of them can stand for gigabytes), a key that occurs twice, numbers and texts that
    exceed the limits above, and more than DEEPEST levels.
    """
    if len(text) > LONGEST_YAML:
        raise ValueError(f"{len(text)} characters, at most {LONGEST_YAML} are read")
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(one_line(str(error).replace(' in "<unicode string>"', ""), 300)) from None
    except (ValueError, TypeError, OverflowError, LookupError, AttributeError) as error:
        # PyYAML passes on what Python raises for a value, such as a date with a 13th month.
        raise ValueError(f"a value cannot be read: {one_line(error, 120)}") from None


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, in which a key may occur once. PyYAML itself ignores all but the last."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event: Any = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"*{event.anchor} is an alias; write the value itself", event.start_mark
            )
        self._depth += 1
        if self._depth > DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"more than {DEEPEST} levels", self.peek_event().start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value} stands there twice", node.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> int | float:
        if len(node.value) > LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value)} digits", node.start_mark
            )
        value: int | float = (
            self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)
        )
        return value


for _kind in ("int", "float"):
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _PlainLoader.construct_number)


def read_parquet(source: Path | io.BytesIO, most_rows: int, most_bytes: int) -> pa.Table:
    """A Parquet file as a table. Raises whatever pyarrow raises: call it within `damage`.

    A few bytes can stand for very many equal rows, so rows and bytes are counted while they are decoded.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        schema, batches, rows, size = file.schema_arrow, [], 0, 0
        for batch in file.iter_batches(batch_size=4096, use_threads=False):
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows > most_rows or size > most_bytes:
                raise ValueError(f"more than {most_rows} rows or {most_bytes} bytes")
            batches.append(batch)
        table = pa.Table.from_batches(batches, schema)
    table.validate(full=True)  # Damaged offsets would be read outside of memory.
    return table


def npy_layout(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type and order of a .npy file; `file` is then at its first number. Raises ValueError.

    NumPy reads the header as Python literals, which raises many kinds of errors.
    """
    import numpy as np

    try:
        version = np.lib.format.read_magic(file)
        if version not in NPY_VERSIONS:
            raise ValueError(f"version {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = read(file)
    except Exception as error:  # of ast and tokenize: SyntaxError, TokenError, RecursionError, MemoryError
        raise ValueError(one_line(error, 80).rstrip(".") or type(error).__name__) from None
    if not all(type(size) is int and size >= 0 for size in shape) or dtype.hasobject:
        raise ValueError(f"{dtype} of shape {shape}")
    return shape, dtype, in_columns


def npy_array(content: bytes) -> np.ndarray:
    """The array of a whole .npy file in memory. Raises ValueError where its length is not what its header says."""
    import numpy as np

    file = io.BytesIO(content)
    shape, dtype, in_columns = npy_layout(file)
    values = memoryview(content)[file.tell() :]
    if math.prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"{len(values)} bytes, expected {math.prod(shape) * dtype.itemsize}")
    array = np.frombuffer(values, dtype)
    return array.reshape(shape, order="F" if in_columns else "C").copy()


def require_fields(facts: Any, kinds: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """`facts`, if it is a dictionary with these keys, each of its kind. Raises ValueError."""
    if not isinstance(facts, dict):
        raise ValueError(f"a {type(facts).__name__}, expected named values")
    for name, kind in kinds.items():
        if name not in facts:
            raise ValueError(f"no {name}")
        if not isinstance(facts[name], kind) or isinstance(facts[name], bool):
            raise ValueError(f"{name} is {one_line(repr(facts[name]), 40)}")
    return facts
