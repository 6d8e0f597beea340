"""A decoder that dies of a file, as of bytes made to break it, and one of two processes that fails. Without torch:
workers import this."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from farfeel.recipe import Recipe
from farfeel.recognise.decoding import ModelInput, decode
from farfeel.recognise.options import Options
from farfeel.training.processes import this_process
from farfeel.types import FarfeelError


def decode_or_die(path: Path, recipes: Sequence[Recipe], options: Options) -> ModelInput | FarfeelError:
    if path.stem.endswith("surprised-01"):
        os._exit(9)
    return decode(path, recipes, options)


def fail_or_wait() -> None:
    if this_process().rank == 1:
        raise FarfeelError("sad.wav is damaged")
    time.sleep(600)
