"""Damage: what disks, transfers and attackers do to bytes, and to the values inside a file."""

from __future__ import annotations

import copy
import io
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Reader:
    """A reader of files under test.

    make: draws a damaged file. read: reads it; the folder is empty, for files that the reader wants. It may raise
    FarfeelError, and nothing else.
    """

    name: str
    make: Callable[[random.Random], bytes]
    read: Callable[[bytes, Path], object]


DEEP: list[Any] = []
for _ in range(100):
    DEEP = [DEEP]
JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**30, -(2**70), 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "x", "../../etc/passwd", "/etc/passwd", "a\0b", "a\nb\x1b[2J", "\ud800".encode("utf-8", "surrogatepass").decode(
        "utf-8", "replace"), "ä" * 300, "²", "1e999", "0x10", "1:2:3", "2020-13-45", [], {}, [[]], [None], {"": None},
    {"a": {"b": {}}}, ["x"] * 50, [1, 2, 3], [1e300, -1e300], DEEP, "happy", "average-mels", "both", "video", "htsat",
)  # fmt: skip
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1)


def damaged(rng: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """One of the seeds, damaged once or several times."""
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(content) + 1)
        length = min(rng.choice((1, 1, 2, 4, 8, 100, 1000, rng.randrange(1, 4000))), len(content))
        kind = rng.randrange(12)
        if kind == 0:
            del content[at:]  # cut off
        elif kind == 1:
            content[at : at + length] = bytes(length)  # a sector of zeros
        elif kind == 2:
            content[at : at + length] = rng.randbytes(length)
        elif kind == 3:
            del content[at : at + length]
        elif kind == 4:
            content[at:at] = content[at : at + length]  # written twice
        elif kind == 5:
            content[at:at] = rng.randbytes(length)
        elif kind in (6, 7) and tokens:
            token = rng.choice(tokens)
            content[at : at + rng.choice((0, len(token)))] = token
        elif kind == 8:
            number = rng.choice(NUMBERS) & 0xFFFFFFFF
            content[at : at + 4] = struct.pack(rng.choice("<>") + "I", number)
        elif kind == 9:
            content[at : at + 8] = struct.pack(rng.choice("<>") + "Q", rng.choice(NUMBERS))
        elif kind == 10 and len(seeds) > 1:
            other = rng.choice(seeds)
            content[at:] = other[rng.randrange(len(other) + 1) :]
        elif content:
            content[at % len(content)] ^= 1 << rng.randrange(8)
    return bytes(content)


def damaged_tree(rng: random.Random, tree: Any) -> Any:
    """A copy of nested lists and dictionaries, in which some values are others, absent, renamed or repeated."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        where = _places(tree)
        if not where:
            return rng.choice(JUNK)
        parent, key = rng.choice(where)
        kind = rng.randrange(8)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(("", "x", "seed", "name", "options", "a\nb", "ü" * 200, str(key).upper()))] = parent.pop(
                key
            )
        elif kind == 2:
            parent[key] = copy.deepcopy(rng.choice(where)[0]) if len(where) < 300 else None
        elif kind == 3 and isinstance(parent[key], (int, float)) and not isinstance(parent[key], bool):
            parent[key] = rng.choice((-parent[key], parent[key] * 10**6, parent[key] + 1, str(parent[key])))
        else:
            parent[key] = copy.deepcopy(rng.choice(JUNK))
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """(list or dictionary, index or key) of every value in a tree."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        each = waiting.pop()
        inside = each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ()
        for key, value in inside:
            found.append((each, key))
            waiting.append(value)
    return found


def damaged_table(rng: random.Random, table: pa.Table) -> bytes:
    """A whole Parquet file of a table in which columns, types, cells or metadata are others."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not table.num_columns:
            break
        at = rng.randrange(table.num_columns)
        name = table.column_names[at]
        kind = rng.randrange(8)
        if kind == 0:
            table = table.remove_column(at)
        elif kind == 1:
            names = list(table.column_names)
            names[at] = rng.choice(("", "x", "room", "clip", "p_happy", "p_", "a\nb", name.upper(), names[0]))
            table = table.rename_columns(names)
        elif kind == 2:
            table = table.set_column(at, name, _junk_column(rng, table.num_rows))
        elif kind == 3:
            table = table.slice(0, rng.choice((0, 1, table.num_rows // 2)))
        elif kind == 4:
            table = pa.concat_tables([table, table.slice(0, 1)])
        elif kind == 5:
            junk = (b"", b"{}", b"[]", b"null", b"\xff", b'{"version": 2}')
            metadata = {
                key: rng.choice((*junk, value[: len(value) // 2]))
                for key, value in (table.schema.metadata or {}).items()
            }
            table = table.replace_schema_metadata(metadata if rng.random() < 0.7 else None)
        else:
            try:
                values = table.column(at).to_pylist()
            except UnicodeDecodeError:  # of the column of bytes below, where a file is damaged twice
                values = []
            if values:
                values[rng.randrange(len(values))] = rng.choice(JUNK)
                try:
                    column = pa.array(values, table.schema.field(at).type)
                except (pa.ArrowException, ValueError, TypeError, OverflowError):
                    column = pa.nulls(len(values), table.schema.field(at).type)
                table = table.set_column(at, pa.field(name, column.type), column)
    stream = io.BytesIO()
    try:
        pq.write_table(table, stream)
    except (pa.ArrowException, ValueError):  # such as two columns of one name in a list
        return b"PAR1"
    return stream.getvalue()


def _junk_column(rng: random.Random, rows: int) -> pa.Array:
    kind = rng.randrange(7)
    if kind == 0:
        return pa.nulls(rows)
    if kind == 1:
        return pa.array([rng.choice((0, -1, 2**40)) for _ in range(rows)], pa.int64())
    if kind == 2:
        return pa.array([rng.choice((0.0, float("nan"), float("inf"), -1.0)) for _ in range(rows)], pa.float64())
    if kind == 3:
        return pa.array([rng.choice((b"", b"\xff\xfe", b"x" * 1000)) for _ in range(rows)], pa.binary())
    if kind == 4:  # text that is no UTF-8, as damage leaves it
        return pa.Array.from_buffers(pa.string(), rows, pa.array([b"\xff"] * rows, pa.binary()).buffers())
    if kind == 5:
        return pa.array([[[1.0], None]] * rows, pa.list_(pa.list_(pa.float64())))
    return pa.array(np.arange(rows) % 3, pa.int32()).cast(pa.string()).dictionary_encode()
