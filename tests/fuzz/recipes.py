"""Recipes, overrides and parameters: YAML and JSON."""

from __future__ import annotations

import json
import random
from importlib import resources
from pathlib import Path

import yaml

from farfeel.recipe import Recipe, as_yaml, load_recipe, recipe_names
from farfeel.support.parameters import difference, read_parameters

from .damaging import Reader, damaged, damaged_tree

TOKENS = [
    b"&a ", b"*a", b"<<: *a", b"[" * 50, b"{" * 50, b"!!python/object:os.system ", b"!!binary ", b"!!timestamp ", b"? ",
    b"- ", b"| ", b"> ", b"%YAML 9.9\n", b"---\n", b"...\n", b"0x", b"9" * 5000, b"1e999", b".nan", b"2020-13-45", b"'",
    b'"\\x', b"\xff", b"\xef\xbb\xbf", b"\0", b"\t", b": ", b"#", b"!!set {a}", b"!!omap [a: 1]", b"190:20:30", b"~",
]  # fmt: skip
BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (k, k, b", ".join([b"*%c" % (k - 1)] * 9)) for k in range(ord("b"), ord("k"))
)


def readers(folder: Path) -> list[Reader]:
    """All readers of this group; `folder` is for what they need."""
    texts = [(resources.files("farfeel") / "recipes" / f"{name}.yaml").read_bytes() for name in recipe_names()]
    whole = [as_yaml(load_recipe(name)).encode() for name in recipe_names()]
    trees = [load_recipe(name).model_dump(mode="json") for name in recipe_names()]
    parameters = json.dumps({"version": 1, "seed": 3, "ranges": trees[0]["rooms"]}).encode()

    def tree(rng: random.Random) -> bytes:
        return yaml.safe_dump(damaged_tree(rng, rng.choice(trees)), allow_unicode=True).encode("utf-8", "replace")

    def override(rng: random.Random) -> bytes:
        seeds = [b"train.epochs=5", b"data.emotions=[happy, sad]", b"rooms.noise=[white]", b"model.options={a: 1}"]
        return damaged(rng, seeds, TOKENS)

    def parameter(rng: random.Random) -> bytes:
        return damaged(rng, [parameters], [b"[" * 3000, b"9" * 5000, b"NaN", b'"a":', b"}", b"\xff"])

    return [
        Reader("recipe file", lambda rng: damaged(rng, [*texts, *whole, BOMB], TOKENS), _recipe),
        Reader("recipe with other values", tree, _recipe),
        Reader("override", override, lambda given, _: load_recipe("tiny", [given.decode("utf-8", "replace")])),
        Reader("parameters.json", parameter, _parameters),
    ]


def _recipe(content: bytes, folder: Path) -> Recipe:
    (folder / "recipe.yaml").write_bytes(content)
    recipe = load_recipe(folder / "recipe.yaml")
    as_yaml(recipe)
    return recipe


def _parameters(content: bytes, folder: Path) -> None:
    (folder / "parameters.json").write_bytes(content)
    difference(read_parameters(folder / "parameters.json"), {"version": 1, "seed": 3})
