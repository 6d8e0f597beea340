"""From a recording to predictions: decoding, windows, engines, the recognizer, streams, many files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from farfeel.recognise.recognizer import Recognizer


def load(
    *checkpoints: str | os.PathLike[str],
    device: str = "cpu",
    engine: Literal["torch", "onnx"] = "torch",
    precision: Literal["32", "bf16"] = "32",
    front_end: str | None = None,
) -> Recognizer:
    """Load a checkpoint, or several as one ensemble.

    checkpoints: folders, exported files (with engine="onnx"), or addresses on the Hugging Face hub: hf://owner/name and
        hf://owner/name@revision. Without any, the checkpoint in the package. Several become one recognizer, whose
        probabilities are the mean of theirs.
    device: cpu, cuda, cuda:1 or mps; for the torch engine.
    engine: torch, or onnx for files that `farfeel export` wrote. onnx runs on the CPU, without PyTorch.
    precision: 32, or bf16 for faster networks on a GPU; for the torch engine.
    front_end: what processes the microphones first, instead of the checkpoint's own choice: mvdr, a blind beamformer
        (Markovich et al., 2009); wpe, dereverberation (Nakatani et al., 2010); or none.

    Returns a Recognizer. Raises FarfeelError where a checkpoint cannot be loaded, or several do not fit together.

    >>> import farfeel
    >>> farfeel.load().modalities
    'both'
    """
    from farfeel.recognise.recognizer import Recognizer

    return Recognizer.load(list(checkpoints), device, precision, engine, front_end)
