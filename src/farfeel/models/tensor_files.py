"""Files of tensors that PyTorch has written: `last.ckpt`, and weights of other implementations. No code in them runs.

A file that `write_tensors` makes has a SHA-256 in the comment of its zip archive, where PyTorch does not look.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from farfeel.support.files import replacing_file
from farfeel.support.reading import damage
from farfeel.types import FarfeelError

LABEL = b"sha256:"
COMMENT_BYTES = len(LABEL) + 64
_END = b"PK\x05\x06"  # The last record of a zip archive has 22 bytes, of which the last two are the comment's length.
_END_BYTES = 22


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write a file whole or not at all, with its checksum. The same content gives the same bytes."""
    whole = io.BytesIO()  # torch's own writer has a RuntimeError for a full disk.
    torch.save(content, whole)
    held = whole.getbuffer()
    if bytes(held[-_END_BYTES:][:4]) != _END:
        raise ValueError("PyTorch has written a zip archive with a comment")
    held[-2:] = struct.pack("<H", COMMENT_BYTES)
    with replacing_file(path) as partial, partial.open("wb") as file:
        file.write(held)
        file.write(LABEL + hashlib.sha256(held).hexdigest().encode())


def read_tensors(path: Path, remedy: str) -> Any:
    """What PyTorch has saved in a file, on the CPU; of Python's objects only numbers, texts, lists and dictionaries.

    A file of an older farfeel, or of another program, has no checksum and is read without. Raises FarfeelError where
    the file is damaged or holds anything else.
    """
    path = Path(path)
    with damage(lambda reason: f"{path} is damaged, or no file of PyTorch tensors ({reason}); {remedy}"):
        _require_checksum(path)
        _require_stored(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise FarfeelError(
                f"{path} is not a plain file of tensors (it is damaged, or holds Python objects, which are never "
                "loaded); save its state_dict alone, with torch.save(model.state_dict(), file)"
            ) from None


def tensors_checksum(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and numbers, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{'x'.join(map(str, tensor.shape))}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def first_not_finite(state: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN or an infinite number."""
    return next(
        (
            name
            for name, tensor in state.items()
            if (tensor.is_floating_point() or tensor.is_complex())
            # The sum is finite only if all numbers are, and takes a quarter of the time. It may overflow.
            and not math.isfinite(abs(tensor.float().sum().item()))
            and not torch.isfinite(tensor).all()
        ),
        None,
    )


def _require_checksum(path: Path) -> None:
    """Raise ValueError where the checksum at the end is not that of what is before it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - COMMENT_BYTES))
        stored = file.read()
        if not stored.startswith(LABEL):
            return
        file.seek(0)
        digest, left = hashlib.sha256(), size - COMMENT_BYTES
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    if digest.hexdigest().encode() != stored.removeprefix(LABEL):
        raise ValueError("its checksum is another")


def _require_stored(path: Path) -> None:
    """Raise ValueError where entries of the archive are compressed: PyTorch stores them as they are, and a few
    compressed bytes can stand for gigabytes. Older files are no archives."""
    if not zipfile.is_zipfile(path):
        return
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
                raise ValueError(f"{entry.filename[:40]} is compressed")


def require_finite(state: Mapping[str, Tensor], what: str, remedy: str) -> None:
    """Raise FarfeelError where a number of the tensors is NaN or infinite."""
    if name := first_not_finite(state):
        raise FarfeelError(f"{what} has numbers in {name[:100]} that are not finite, expected finite ones; {remedy}")
