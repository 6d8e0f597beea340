"""Variants found by name: those in the package, one file each, and those that other packages bring as entry points.

A built-in variant is the object that has the name of its module, apart from case and underscores: `AverageMels` in
`average_mels.py` is `average-mels`. A plug-in is an entry point in the registry's group, for instance
`loudest = "my_package.loudest:Loudest"`. Names, first docstring lines and constants are read from the source code.
Nothing is imported for them, so that help and checks need neither PyTorch nor the code of other packages.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from farfeel.support.text import one_line
from farfeel.types import FarfeelError

T = TypeVar("T")


def nearest(name: str, known: list[str] | tuple[str, ...], cutoff: float = 0.6) -> str | None:
    """The known name that is most like a mistyped one; None where none is."""
    found = difflib.get_close_matches(name.lower(), known, n=1, cutoff=cutoff)
    return found[0] if found else None


@dataclass(frozen=True)
class Variant:
    """Where a variant is: `module:attribute`, and the package that brings it ("my-package 0.1"); "" for farfeel's."""

    name: str
    module: str
    attribute: str
    package: str = ""

    @property
    def summary(self) -> str:
        """The first line of its docstring, else of its module's; "" where there is none."""
        node, tree = _source_of(self.module, self.attribute)
        if tree is None:
            text = getattr(self.load(), "__doc__", "") or ""
        else:
            own = ast.get_docstring(node) if isinstance(node, ast.ClassDef | ast.FunctionDef) else None
            text = own or ast.get_docstring(tree) or ""
        return text.strip().partition("\n")[0]

    def constant(self, name: str, default: Any) -> Any:
        """The value of a class attribute that is written as a literal, read without importing the class."""
        node, tree = _source_of(self.module, self.attribute)
        if tree is None:
            return getattr(self.load(), name, default)
        for line in node.body if isinstance(node, ast.ClassDef) else ():
            targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return ast.literal_eval(line.value)  # type: ignore[attr-defined]
        return default

    def load(self) -> Any:
        """Import it. Raises FarfeelError where a plug-in cannot be imported."""
        try:
            return getattr(importlib.import_module(self.module), self.attribute)
        except Exception as error:
            if not self.package:
                raise
            reason = one_line(error, 160)
            raise FarfeelError(
                f"{self.name} of {self.package} cannot be loaded ({type(error).__name__}: {reason}); expected "
                f"{self.module}:{self.attribute}; repair or uninstall that package"
            ) from None


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The variants of one kind.

    group: of entry points, such as `farfeel.microphones`. package: whose modules are the built-in variants. what: the
    kind, as errors call it.
    """

    group: str
    package: str
    what: str

    @property
    def names(self) -> tuple[str, ...]:
        """The built-in variants, then those of other packages, each in alphabetical order."""
        return tuple(
            dict.fromkeys([*_built_in(self.package), *sorted(plug_in.name for plug_in in _plug_ins(self.group))])
        )

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def variant(self, name: str) -> Variant:
        """The variant of that name, not yet imported. Raises FarfeelError where there is none, or more than one."""
        built_in, brought = _built_in(self.package), [each for each in _plug_ins(self.group) if each.name == name]
        found = [built_in[name], *brought] if name in built_in else brought
        if not found:
            near = nearest(name, self.names)
            remedy = f"did you mean {near}?" if near else "correct the name, or install the package that brings it"
            raise FarfeelError(f"{name} is no {self.what}, expected one of {', '.join(self.names)}; {remedy}")
        if len(found) > 1:
            brings = " and ".join(each.package or "farfeel" for each in found)
            raise FarfeelError(f"{brings} both bring a {self.what} {name}, expected one; uninstall one of them")
        return found[0]

    def get(self, name: str) -> T:
        """The variant of that name, imported. Raises FarfeelError."""
        loaded: T = self.variant(name).load()
        return loaded

    def summary(self, name: str) -> str:
        """The first line of a variant's docstring."""
        return self.variant(name).summary


@functools.cache
def _built_in(package: str) -> dict[str, Variant]:
    """Name → variant of each public module in a package of ours."""
    spec = importlib.util.find_spec(package)
    found = {}
    for module in pkgutil.iter_modules(spec.submodule_search_locations if spec else None):
        if module.name.startswith("_"):
            continue
        name = re.sub(r"_(?=[a-z])", "-", module.name)  # r2plus1d_18 keeps its own
        full = f"{package}.{module.name}"
        found[name] = Variant(name, full, _attribute_like(full))
    return found


def _attribute_like(module: str) -> str:
    """The public name in a module's top level that is the module's own, but for case and underscores."""
    tree = _parsed(module)
    wanted = module.rpartition(".")[2].replace("_", "")
    for node in tree.body if tree else ():
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        names = [getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)]
        for name in names:
            if name and name.lower().replace("_", "") == wanted:
                return str(name)
    raise LookupError(f"{module} has nothing named like itself")


@functools.cache
def _plug_ins(group: str) -> tuple[Variant, ...]:
    return tuple(_variant(each) for each in entry_points(group=group))


def _variant(point: EntryPoint) -> Variant:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "another package"
    return Variant(point.name, point.module, point.attr or "", package)


def _source_of(module: str, attribute: str) -> tuple[ast.AST | None, ast.Module | None]:
    """The definition of an attribute and its module's tree; None where the source cannot be had without importing."""
    tree = _parsed(module)
    nodes = [node for node in tree.body if getattr(node, "name", None) == attribute] if tree else []
    return (nodes[0] if nodes else None), tree


@functools.cache
def _parsed(module: str) -> ast.Module | None:
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            return None
        return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (ImportError, OSError, SyntaxError, ValueError):
        return None
