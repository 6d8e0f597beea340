"""A decoder that dies of a file, as of bytes made to break it. Without torch: workers import this."""

import os
from collections.abc import Sequence
from pathlib import Path

from farfeel.opening import Options, Prepared, prepare
from farfeel.recipe import Recipe
from farfeel.types import FarfeelError


def prepare_or_die(path: Path, recipes: Sequence[Recipe], options: Options) -> Prepared | FarfeelError:
    if path.stem.endswith("surprised-01"):
        os._exit(9)
    return prepare(path, recipes, options)
