"""A recipe: every setting of an experiment, and its YAML form.

A recipe is a tree of frozen sections (`farfeel.recipe.sections`). `load_recipe("tiny")` reads one that comes with
farfeel, and `load_recipe("my.yaml")` reads a file. A file need only contain what differs from the defaults. Overrides
of the form `section.key=value` follow. An unknown key is an error that names the nearest known one. A mistyped setting
is never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from farfeel.recipe.base import RANGES, UNKNOWN_NAME, Section, choices_of, settings
from farfeel.recipe.sections import (
    NAMED,
    Audio,
    Augment,
    Camera,
    Data,
    Fusion,
    Microphones,
    Model,
    Recipe,
    Rooms,
    Simulation,
    Train,
    Video,
)
from farfeel.support.files import replacing_file
from farfeel.support.reading import LONGEST_YAML, read_yaml
from farfeel.support.registry import Registry, nearest
from farfeel.support.text import one_line
from farfeel.types import FarfeelError

__all__ = [
    "RANGES",
    "Audio",
    "Augment",
    "Camera",
    "Data",
    "Fusion",
    "Microphones",
    "Model",
    "Recipe",
    "Rooms",
    "Section",
    "Simulation",
    "Train",
    "Video",
    "apply_override",
    "as_yaml",
    "choices",
    "describe",
    "load_recipe",
    "recipe_from_tree",
    "recipe_names",
    "save_recipe",
]

EXPECTED = {  # instead of pydantic's words, which speak of Python
    "missing": "two numbers",
    "too_long": "two numbers",
    "too_short": "one or more",
    "invalid_key": "a key in letters",
    "model_type": "a section with keys",
    "tuple_type": "a list in brackets",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "string_type": "text (in quotes)",
}
LONGEST_SHOWN = 200  # characters of a wrong value in an error


def recipe_names() -> list[str]:
    """Names of the recipes that come with farfeel."""
    folder = resources.files("farfeel") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by name or from a file.

    name_or_file: one of `recipe_names()`, or the path of a YAML file. overrides: `section.key=value`, the last one of a
    key counts. Raises FarfeelError with one line where the file, a key or a value is wrong.
    """
    name = str(name_or_file)
    if name in recipe_names():
        text = (resources.files("farfeel") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        with Path(name).open(encoding="utf-8", errors="replace") as file:
            text = file.read(LONGEST_YAML + 1)
    else:
        near = nearest(name, recipe_names())
        raise FarfeelError(
            f"recipe {name} is neither a file nor one of {', '.join(recipe_names())}"
            + (f"; did you mean {near}?" if near else "; check the name")
        )
    try:
        tree = read_yaml(text) or {}
    except ValueError as error:
        raise FarfeelError(f"{name} is not YAML ({error}); correct that line") from None
    if not isinstance(tree, dict):
        raise FarfeelError(
            f"{name} holds a {type(tree).__name__}, expected sections with keys; see farfeel train --help"
        )
    for override in overrides:
        apply_override(tree, override)
    return recipe_from_tree(tree, source=name)


def recipe_from_tree(tree: dict[str, Any], source: str) -> Recipe:
    """A recipe from nested dictionaries, checked.

    tree: as YAML gives it. source: what errors call it. Raises FarfeelError with one line where a key or a value is
    wrong, and where it needs a package that is not installed.
    """
    _require_packages(tree, source)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        found = first["input"]
        mistyped = first["type"] == "extra_forbidden"
        # Without positions in lists, and without pydantic's names of types ("constrained-float").
        key = ".".join(p for p in first["loc"] if isinstance(p, str) and (mistyped or p.isidentifier()))
        if mistyped:
            inner = f".{next(iter(found))}" if isinstance(found, dict) and found else ""  # a mistyped section
            raise FarfeelError(f"{source}: unknown key {key}{inner}; {_nearest(key + inner)}") from None
        if first["type"] == UNKNOWN_NAME:
            raise FarfeelError(f"{source}: {key} is {_shown(found)}, {first['msg']}") from None
        if first["type"] == "value_error":  # of our own validators
            message = first["msg"].removeprefix("Value error, ")
            raise FarfeelError(f"{source}: {f'{key}: ' if key else ''}{message}") from None
        expected = EXPECTED.get(first["type"], first["msg"].removeprefix("Input should be "))
        raise FarfeelError(
            f"{source}: {key or 'a key'} is {_shown(found)}, expected {expected}; correct it, farfeel recipe lists all "
            "settings"
        ) from None


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the whole recipe, defaults included: it means the same when a later version has other defaults.

    recipe: with the names of the packages that it needs, if any. path: of the YAML file, which is replaced.
    """
    text = as_yaml(recipe)
    with replacing_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def as_yaml(recipe: Recipe) -> str:
    """The whole recipe as YAML. Raises FarfeelError where an option holds what YAML cannot express."""
    try:
        return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100)
    except (PydanticSerializationError, yaml.YAMLError) as error:
        raise FarfeelError(
            f"recipe {recipe.name} cannot be written as YAML ({one_line(error, 100)}), expected "
            "options of numbers, texts, lists and dictionaries; change them"
        ) from None


def describe() -> Iterator[tuple[str, str, str]]:
    """Every setting as (dotted key, default, meaning), for help and documentation."""
    for key, section, name in settings(Recipe):
        field = section.model_fields[name]
        yield key, _plain(field.default), one_line(field.description or "")


def choices() -> dict[str, dict[str, str]]:
    """Setting → its possible values, each with one line about it; the line is empty where the setting's own meaning
    explains the values. Settings that take any value are not in it."""
    found: dict[str, dict[str, str]] = {}
    for key, section, name in settings(Recipe):
        values = choices_of(section, name)
        if isinstance(values, Registry):
            found[key] = {name: _about(values, name) for name in values}
        elif values:
            found[key] = {str(value): "" for value in values}
    return found


def _about(registry: Registry[Any], name: str) -> str:
    """One line about a variant. A plug-in that cannot be read does not keep the others from being listed."""
    try:
        variant = registry.variant(name)
        return variant.summary + (f" (from {variant.package})" if variant.package else "")
    except FarfeelError as error:
        return f"cannot be used: {error}"


def _shown(value: Any) -> str:
    """A wrong value in an error. Python refuses to write out a number of thousands of digits."""
    try:
        text = repr(value)
    except ValueError:
        return "a very long number"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value)


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Put one `section.key=value` into a tree of dictionaries. Raises FarfeelError where it has not that form."""
    key, separator, value = override.partition("=")
    if not separator or not all(key.split(".")):
        raise FarfeelError(f"override {override!r} is not of the form section.key=value, e.g. train.epochs=5")
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise FarfeelError(f"override {override!r}: {section} is {tree!r}, not a section; {_nearest(key)}")
    try:
        tree[last] = read_yaml(value)
    except ValueError:
        raise FarfeelError(f"override {override!r}: {value!r} is not a YAML value; quote it") from None


def _require_packages(tree: dict[str, Any], source: str) -> None:
    """Raise FarfeelError where a variant is unknown here and the tree names the package that has it."""
    named = tree.get("packages")
    for key, registry in NAMED.items():
        if not isinstance(named, dict) or key not in named:
            continue
        found: Any = tree
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        for name in found if isinstance(found, list | tuple) else [found]:
            if isinstance(name, str) and name not in registry:
                package = str(named[key])
                install = " ".join(each.split()[0] for each in package.split(",") if each.split())
                raise FarfeelError(
                    f"{source} needs {registry.what} {name} of {package}, which is not installed; pip install {install}"
                )


def _nearest(key: str) -> str:
    key = key.lower()
    known = [name for name, _, _ in describe()]
    by_leaf = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
    guess = by_leaf[0] if by_leaf else nearest(key, known, cutoff=0.3)
    return f"did you mean {guess}?" if guess else "farfeel recipe lists all keys"
