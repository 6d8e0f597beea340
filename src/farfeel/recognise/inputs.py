"""What `predict` takes: paths, bytes and open binary files. The decoders need a file, so that the last two get one.

The temporary file is deleted when the recording has been recognised. Errors and warnings call it by its own name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO

from farfeel.types import FarfeelError, Prediction, Timeline

UNNAMED = "the recording"


@dataclass(frozen=True)
class NamedBytes:
    """The content of an open file, which can be sent to another process."""

    name: str
    content: bytes


Source = str | os.PathLike[str] | bytes | BinaryIO | NamedBytes
"""A path, the bytes of a file, or a file that is open for reading in binary mode."""


@dataclass(frozen=True)
class SourceFile:
    """A recording as a file on the disk, and what messages call it."""

    path: Path
    name: str

    def renamed(self, text: str) -> str:
        return text.replace(str(self.path), self.name)

    def named_in(self, timeline: Timeline) -> Timeline:
        """The timeline, whose warnings call the recording by its name."""
        return replace(timeline, predictions=tuple(map(self.named, timeline.predictions)))

    def named(self, prediction: Prediction) -> Prediction:
        return replace(prediction, warnings=tuple(map(self.renamed, prediction.warnings)))


@contextmanager
def source_file(source: Source) -> Iterator[SourceFile]:
    """The file of a recording. Raises FarfeelError where `source` is something else, or has no bytes left."""
    if isinstance(source, str | os.PathLike):
        path = Path(os.fspath(source))
        yield SourceFile(path, str(path))
        return
    with tempfile.TemporaryDirectory(prefix="farfeel-") as folder:
        name = name_of(source)
        file = SourceFile(Path(folder) / f"recording{Path(name).suffix}", name)
        with file.path.open("wb") as copy:
            _copy(source, copy, name)
        try:
            yield file
        except FarfeelError as error:
            raise FarfeelError(file.renamed(str(error))) from None


def sendable(source: Source) -> Source:
    """The same recording in a form that another process can be sent: an open file is read."""
    if isinstance(source, str | os.PathLike | bytes | NamedBytes):
        return source
    return NamedBytes(name_of(source), _content(source, name_of(source)))


def name_of(source: Any) -> str:
    """What messages call a recording."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    if isinstance(source, NamedBytes):
        return source.name
    name = getattr(source, "name", None)  # a number where it was opened by its descriptor
    return Path(name).name if isinstance(name, str) and Path(name).name else UNNAMED


def _copy(source: Any, target: IO[bytes], name: str) -> None:
    if isinstance(source, bytes | bytearray | memoryview):
        target.write(source)
    elif isinstance(source, NamedBytes):
        target.write(source.content)
    else:
        first = _content(source, name, 2**20)
        target.write(first)
        shutil.copyfileobj(source, target, 2**20)


def _content(source: Any, name: str, size: int = -1) -> bytes:
    """Bytes that an open file still has. Raises FarfeelError where it has none."""
    if not callable(getattr(source, "read", None)):
        raise FarfeelError(
            f"a recording is of type {type(source).__name__}, expected a path, bytes or an open binary file; "
            "give samples to predict_audio"
        )
    try:
        content = source.read(size)
    except ValueError as error:
        raise FarfeelError(f"{name} cannot be read ({error}), expected an open binary file; open it again") from None
    if not isinstance(content, bytes):
        raise FarfeelError(f"{name} is open as text, expected a binary file; open it with mode 'rb'")
    if not content:
        raise FarfeelError(f"{name} has no bytes left to read, expected a recording; rewind it with seek(0)")
    return content
