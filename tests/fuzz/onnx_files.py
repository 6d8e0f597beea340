"""ONNX files and their metadata."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import onnx
import torch
import yaml

from farfeel.models.checkpoint import save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recognise.engines.onnx import CHECKSUM_BYTES, OnnxEngine, checksum_entry
from farfeel.recognise.export import export

from .checkpoints import small
from .damaging import JUNK, Reader, damaged, damaged_tree

TOKENS = [
    b"recipe",
    b"farfeel",
    b"probabilities",
    b"audio",
    b"MatMul",
    b"\x7f\xff\xff\xff\x0f",
    b"../weights",
    b"\xff" * 9,
]


def readers(folder: Path) -> list[Reader]:
    """All readers of this group; `folder` is for what they need."""
    torch.manual_seed(1)
    save_checkpoint(folder / "best", EmotionModel(small()).state_dict(), small(), "# untrained\n")
    export(folder / "best", folder / "model.onnx")
    checked = (folder / "model.onnx").read_bytes()
    plain = checked[:-CHECKSUM_BYTES]
    proto = onnx.load_from_string(plain)
    held = {each.key: each.value for each in proto.metadata_props}
    tree = small().model_dump(mode="json")

    def metadata(rng: random.Random) -> bytes:
        changed = dict(held)
        if rng.random() < 0.6:
            changed["recipe"] = yaml.safe_dump(damaged_tree(rng, tree))
        elif rng.random() < 0.5:
            changed["temperature"] = json.dumps(damaged_tree(rng, [1.0, 1.0, 1.0]))
        else:
            key = rng.choice(sorted(held))
            changed[key] = rng.choice(("", "[" * 5000, "9" * 5000, "a: &a [*a]", str(rng.choice(JUNK))))
        if rng.random() < 0.1:
            changed.pop(rng.choice(sorted(held)))
        onnx.helper.set_model_props(proto, {k: v.encode("utf-8", "replace").decode() for k, v in changed.items()})
        content = proto.SerializeToString()
        return content + (checksum_entry(content) if rng.random() < 0.5 else b"")

    return [
        Reader("ONNX file", lambda rng: damaged(rng, [checked], TOKENS), _recognise),
        Reader("ONNX file without checksum", lambda rng: damaged(rng, [plain], TOKENS), _recognise),
        Reader("ONNX metadata", metadata, _recognise),
    ]


def _recognise(content: bytes, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(content)
    engine = OnnxEngine(folder / "model.onnx", threads=1)
    audio = np.zeros((1, 1, small().audio.window_samples), np.float32)
    audio[..., ::7] = 0.1
    found = engine.probabilities(audio, np.ones((1, 1), bool), None, np.zeros(1, bool))
    assert np.isfinite(found).all()
