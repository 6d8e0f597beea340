"""Checkpoints: weights, recipe and card; `last.ckpt`; weights of other implementations."""

from __future__ import annotations

import io
import json
import random
import struct
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save

from farfeel.models.checkpoint import CARD, RECIPE, WEIGHTS, load_checkpoint, read_card, save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.models.reference import read_state_dict
from farfeel.models.tensor_files import COMMENT_BYTES, write_tensors
from farfeel.recipe import Recipe, load_recipe
from farfeel.training.loop import _restore
from farfeel.training.tracking import EpochReport

from .damaging import Reader, damaged, damaged_tree

TOKENS = [b'"dtype":"F32"', b'"F64"', b'"data_offsets":[0,', b"18446744073709551615", b'"__metadata__":', b"PK\x03\x04",
          b"cos\nsystem\n", b"\x80\x02}q\x00", b"ctorch\nload\n", b"null", b"[" * 200]  # fmt: skip
SMALL = ["audio.seconds=1.28", "model.image_frames=64", "model.depths=[1,1]", "model.heads=[1,1]", "model.embed_dim=8"]


@cache
def small() -> Recipe:
    """A network of a few kilobytes."""
    return load_recipe("tiny", SMALL)


def readers(folder: Path) -> list[Reader]:
    """All readers of this group; `folder` is for what they need."""
    torch.manual_seed(1)
    recipe, model = small(), EmotionModel(small())
    save_checkpoint(folder / "best", model.state_dict(), recipe, "# untrained\n")
    checked, text = (folder / "best" / WEIGHTS).read_bytes(), (folder / "best" / RECIPE).read_bytes()
    plain = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    report = EpochReport(1, 1.0, 1.0, 0.5, 0.5, 1e-3, 10.0, 1.0)
    state = {
        "model": model.state_dict(),
        "averaged": {},
        "optimizer": {"state": {}, "param_groups": []},
        "recipe": recipe.model_dump(mode="json"),
        "history": [asdict(report)],
    }
    write_tensors(folder / "last.ckpt", state)
    last = (folder / "last.ckpt").read_bytes()
    unchecked = last[:-COMMENT_BYTES][:-2] + b"\0\0"
    tensors = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(3), "b": torch.zeros(2, 2)}}, tensors)
    legacy = io.BytesIO()
    torch.save({"a": torch.ones(3)}, legacy, _use_new_zipfile_serialization=False)

    def header(rng: random.Random) -> bytes:
        size = struct.unpack("<Q", plain[:8])[0]
        tree = damaged_tree(rng, json.loads(plain[8 : 8 + size]))
        written = json.dumps(tree).encode()
        return struct.pack("<Q", len(written)) + written + plain[8 + size :]

    def recipe_of(rng: random.Random) -> bytes:
        tree = damaged_tree(rng, recipe.model_dump(mode="json"))
        return yaml.safe_dump(tree).encode("utf-8", "replace")

    def state_of(rng: random.Random) -> bytes:
        tree: Any = damaged_tree(rng, {name: value for name, value in state.items() if name != "model"})
        if isinstance(tree, dict) and rng.random() < 0.9:
            tree["model"] = {
                name: tensor
                for name, tensor in state["model"].items()
                if rng.random() < 0.99  # type: ignore[attr-defined]
            }
        stream = io.BytesIO()
        torch.save(tree, stream)
        return stream.getvalue()

    return [
        Reader("model.safetensors", lambda rng: damaged(rng, [checked], TOKENS), lambda c, f: _load(c, text, f)),
        Reader("the same without checksum", lambda rng: damaged(rng, [plain], TOKENS), lambda c, f: _load(c, text, f)),
        Reader("model.safetensors, header", header, lambda c, f: _load(c, text, f)),
        Reader("recipe.yaml", recipe_of, lambda c, f: _load(checked, c, f)),
        Reader("last.ckpt", lambda rng: damaged(rng, [last], TOKENS), _resume),
        Reader("last.ckpt without checksum", lambda rng: damaged(rng, [unchecked], TOKENS), _resume),
        Reader("last.ckpt with other values", state_of, _resume),
        Reader(
            "weights of others", lambda rng: damaged(rng, [tensors.getvalue(), legacy.getvalue()], TOKENS), _foreign
        ),
    ]


def _load(weights: bytes, recipe: bytes, folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(weights)
    (folder / RECIPE).write_bytes(recipe)
    (folder / CARD).write_bytes(weights[:50])
    read_card(folder)
    load_checkpoint(folder)


@cache
def _model() -> EmotionModel:
    return EmotionModel(small())


def _resume(content: bytes, folder: Path) -> None:
    (folder / "last.ckpt").write_bytes(content)
    _restore(folder, small(), _model(), None)


def _foreign(content: bytes, folder: Path) -> None:
    (folder / "weights.pt").write_bytes(content)
    read_state_dict(folder / "weights.pt")
