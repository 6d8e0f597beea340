"""A decoder that dies of a file, as of bytes made to break it, and one of two processes that fails. Without torch:
workers import this."""

import os
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from farfeel.media.isolation import isolated, isolated_blocks
from farfeel.recipe import Recipe
from farfeel.recognise import decoding
from farfeel.recognise.decoding import ModelInput
from farfeel.recognise.options import Options
from farfeel.training.processes import this_process
from farfeel.types import FarfeelError


def decode_or_die(path: Path, recipes: Sequence[Recipe], options: Options) -> ModelInput | FarfeelError:
    if path.stem.endswith("surprised-01"):
        os._exit(9)
    return decoding.decode(path, recipes, options)


def fail_or_wait() -> None:
    if this_process().rank == 1:
        raise FarfeelError("sad.wav is damaged")
    time.sleep(600)


@isolated
def decode(path: Path, signal: int = 0) -> int:
    """The process that decodes; with a signal it dies of that."""
    if signal:
        os.kill(os.getpid(), signal)
    return os.getpid()


@isolated
def exhaust(path: Path) -> None:
    """More memory than any machine has."""
    bytearray(2**60)


@isolated_blocks
def decode_blocks(path: Path, count: int, signal: int = 0) -> Generator[int]:
    """`count` numbers, and then the signal."""
    yield from range(count)
    if signal:
        os.kill(os.getpid(), signal)
