"""farfeel: emotion recognition in real rooms, from several distant microphones and a camera.

>>> import farfeel
>>> farfeel.load().predict("clip.wav").label                        # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farfeel.recognise.recognizer import Recognizer

__version__ = "0.1.0"


def load(*checkpoints: Any, **options: Any) -> Recognizer:
    """`Recognizer.load`: the checkpoint in the package, or those named."""
    from farfeel.recognise.recognizer import Recognizer  # `farfeel --help` is instant

    return Recognizer.load(list(checkpoints) or None, **options)
