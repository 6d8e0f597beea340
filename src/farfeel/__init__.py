"""farfeel: emotion recognition in real rooms, from several distant microphones and a camera.

>>> import farfeel
>>> farfeel.load().predict("clip.wav").label in farfeel.load().emotions
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from farfeel.support.user import allow_users_without_a_name

if TYPE_CHECKING:
    from farfeel.evaluate import evaluate
    from farfeel.recipe import Recipe, load_recipe
    from farfeel.recognise import load
    from farfeel.recognise.options import Options
    from farfeel.recognise.recognizer import Recognizer
    from farfeel.training import train
    from farfeel.types import FarfeelError, Prediction, Timeline

allow_users_without_a_name()

__version__ = "0.1.0"
__all__ = [
    "FarfeelError",
    "Options",
    "Prediction",
    "Recipe",
    "Recognizer",
    "Timeline",
    "evaluate",
    "load",
    "load_recipe",
    "train",
]
_MODULES = {
    "FarfeelError": "farfeel.types",
    "Options": "farfeel.recognise.options",
    "Prediction": "farfeel.types",
    "Recipe": "farfeel.recipe",
    "Recognizer": "farfeel.recognise.recognizer",
    "Timeline": "farfeel.types",
    "load": "farfeel.recognise",
    "load_recipe": "farfeel.recipe",
    "train": "farfeel.training",
}
"""Where each name is. It is imported at its first use, so that `import farfeel` and `farfeel --help` are instant."""


def __getattr__(name: str) -> Any:
    if name == "evaluate":  # the package itself: it can be called
        return importlib.import_module("farfeel.evaluate")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    attribute = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = attribute
    return attribute


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
