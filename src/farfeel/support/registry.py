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
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from farfeel.support.text import one_line
from farfeel.types import FarfeelError

T = TypeVar("T")
DOCUMENTED = ast.ClassDef | ast.FunctionDef
KNOWN_BASES = ("object", "ABC", "Protocol", "nn.Module", "torch.nn.Module")  # without constants of ours
MOST_IMPORTS = 8  # from one module to the next, until a definition is found
MISSING = object()

MOST_TYPED = 100  # characters of a name that are compared: the comparison of long ones takes minutes


def nearest(name: str, known: Sequence[str], cutoff: float = 0.6) -> str | None:
    """The known name that a mistyped one most likely means: one that begins with it, or one that is spelt alike.

    name: what was typed. known: the names that there are. cutoff: how much alike the two must be, from 0 to 1.
    Returns None where no name is near enough.
    """
    typed = name.lower()[:MOST_TYPED]
    begun = [candidate for candidate in known if len(typed) > 1 and candidate.lower().startswith(typed)]
    matches = begun[:1] if len(begun) == 1 else difflib.get_close_matches(typed, known, n=1, cutoff=cutoff)
    return matches[0] if matches else None


@dataclass(frozen=True)
class Variant:
    """One variant, not yet imported.

    name: what recipes and options call it. module, attribute: where it is. package: the name and the version of the
    package that brings it ("my-package 0.1"); "" for farfeel's own.
    """

    name: str
    module: str
    attribute: str
    package: str = ""

    @property
    def summary(self) -> str:
        """The first line of its docstring, else of its module's; "" where there is none."""
        tree = _parsed(self.module)
        if tree is None:
            text = getattr(self.load(), "__doc__", "") or ""
        else:
            definition = _definition(self.module, self.attribute)
            own = ast.get_docstring(definition[0]) if definition and isinstance(definition[0], DOCUMENTED) else None
            text = own or ast.get_docstring(tree) or ""
        return text.strip().partition("\n")[0]

    def constant(self, name: str, default: Any) -> Any:
        """The value of a class attribute, its own or that of a base class. The class is imported only where the source
        does not show the value.

        name: of the attribute. default: the answer where the class has none. Raises FarfeelError where a plug-in has
        to be imported and cannot be.
        """
        definition = _definition(self.module, self.attribute)
        if definition is None:
            return getattr(self.load(), name, default)
        try:
            return _constant(*definition, name, default)
        except ValueError:  # no literal, or a base class without source
            return getattr(self.load(), name, default)

    def load(self) -> Any:
        """The class or function itself, imported. Raises FarfeelError where a plug-in cannot be imported."""
        try:
            return getattr(importlib.import_module(self.module), self.attribute)
        except Exception as error:  # The code of a plug-in may raise anything; ours is not excused.
            if not self.package:
                raise
            raise FarfeelError(
                f"{self.name} of {self.package} cannot be loaded ({_reason(error)}); expected "
                f"{self.module}:{self.attribute}; repair or uninstall that package"
            ) from None


@dataclass(frozen=True)
class Registry(Generic[T]):
    """All variants of one kind.

    group: the group of entry points, such as `farfeel.microphones`. package: the package of ours with a module for each
    built-in variant. what: the kind, as errors call it. base: the class in that package that all of them extend, or "".
    """

    group: str
    package: str
    what: str
    base: str = ""

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

    def expected(self, name: str) -> str:
        """The end of an error about an unknown name: the names that there are, and the nearest."""
        near = nearest(name, self.names)
        remedy = f"did you mean {near}?" if near else "correct the name, or install the package that brings it"
        return f"expected one of {', '.join(self.names)}; {remedy}"

    def variant(self, name: str) -> Variant:
        """The variant of that name, not yet imported. Raises FarfeelError where there is none, or more than one."""
        ours = _built_in(self.package).get(name)
        variants = ([ours] if ours else []) + [plug_in for plug_in in _plug_ins(self.group) if plug_in.name == name]
        if not variants:
            raise FarfeelError(f"{name} is no {self.what}, {self.expected(name)}")
        if len(variants) > 1:
            brings = " and ".join(one.package or "farfeel" for one in variants)
            raise FarfeelError(f"{brings} both bring a {self.what} {name}, expected one; uninstall one of them")
        return variants[0]

    def get(self, name: str) -> T:
        """The variant of that name, imported. Raises FarfeelError."""
        loaded: T = self._checked(self.variant(name))
        return loaded

    def _checked(self, variant: Variant) -> Any:
        """The variant, imported. Raises FarfeelError where a plug-in's is not of the class that this kind has."""
        loaded = variant.load()
        if variant.package and self.base:
            base = getattr(importlib.import_module(self.package), self.base)
            if not (isinstance(loaded, type) and issubclass(loaded, base)):
                raise FarfeelError(
                    f"{variant.name} of {variant.package} ({variant.module}:{variant.attribute}) is no class of "
                    f"{self.package}.{self.base}, which a {self.what} is; correct that package"
                )
        return loaded

    def build(self, name: str, setting: str, options: Mapping[str, Any], *arguments: Any) -> Any:
        """An instance of the variant of that name: its class, called with the arguments and the options.

        name: of the variant. setting: the options' name in a recipe, such as `microphones.options`, for errors.
        options: keyword arguments. arguments: those that every variant of this kind takes. Raises FarfeelError where
        the class does not take an option, and where a plug-in's constructor fails.
        """
        variant = self.variant(name)
        made = self._checked(variant)
        signature = inspect.signature(made)
        try:
            signature.bind(*arguments, **options)
        except TypeError as error:
            free = list(signature.parameters)[len(arguments) :]
            raise FarfeelError(_misfit(name, setting, options, free, error)) from None
        try:
            return made(*arguments, **options)
        except FarfeelError:
            raise
        except Exception as error:  # The code of a plug-in may raise anything; ours is not excused.
            if not variant.package:
                raise
            raise FarfeelError(
                f"{name} of {variant.package} cannot be built ({_reason(error)}); correct {setting}, or ask its authors"
            ) from None

    def summary(self, name: str) -> str:
        """The first line of a variant's docstring."""
        return self.variant(name).summary


@functools.cache
def _built_in(package: str) -> dict[str, Variant]:
    """Name → variant of each public module in a package of ours."""
    spec = _spec(package)
    variants = {}
    for module in pkgutil.iter_modules(spec.submodule_search_locations or [] if spec else []):
        if module.name.startswith("_"):
            continue
        name = re.sub(r"_(?=[a-z])", "-", module.name)  # r2plus1d_18 keeps its own
        full = f"{package}.{module.name}"
        variants[name] = Variant(name, full, _attribute_like(full))
    return variants


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
    raise LookupError(f"{module} has no object with the name of its file")


def _plug_ins(group: str) -> tuple[Variant, ...]:
    """The entry points of a group, of the packages that are on the path now."""
    return _selected(group, tuple(sys.path))


@functools.cache
def _selected(group: str, path: tuple[str, ...]) -> tuple[Variant, ...]:
    return tuple(_variant(entry_point) for entry_point in _installed(path).select(group=group))


@functools.cache
def _installed(path: tuple[str, ...]) -> Any:
    """All entry points. To read them once takes less than once for each group."""
    return entry_points()


def _variant(point: EntryPoint) -> Variant:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "another package"
    return Variant(point.name, point.module, point.attr or "", package)


def _definition(module: str, attribute: str) -> tuple[ast.stmt, str] | None:
    """The definition of a module's attribute and the module that holds it, also where it is imported from there; None
    where the source does not show it."""
    for _ in range(MOST_IMPORTS):
        tree = _parsed(module)
        for node in tree.body if tree else ():
            if getattr(node, "name", None) == attribute:
                return node, module
            if isinstance(node, ast.ImportFrom):
                names = {alias.asname or alias.name: alias.name for alias in node.names}
                if attribute in names:
                    module, attribute = _imported(node, module), names[attribute]
                    break
        else:
            return None
    return None


def _imported(node: ast.ImportFrom, module: str) -> str:
    """The whole name of the module that a `from … import` names."""
    if not node.level:
        return node.module or ""
    spec = _spec(module)
    parts = module.split(".")
    is_package = bool(spec and spec.submodule_search_locations)
    above = parts[: len(parts) - node.level + is_package]
    return ".".join([*above, *([node.module] if node.module else [])])


def _constant(node: ast.stmt, module: str, name: str, default: Any) -> Any:
    """The literal that a class or its bases give an attribute. Raises ValueError where the source does not show it."""
    if not isinstance(node, ast.ClassDef):
        return default
    for line in node.body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        value = getattr(line, "value", None)
        if value is not None and any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(value)
    for base in node.bases:
        if ast.unparse(base) in KNOWN_BASES:
            continue
        definition = _definition(module, base.id) if isinstance(base, ast.Name) else None
        if definition is None:
            raise ValueError(f"the source does not show {ast.unparse(base)}")
        value = _constant(*definition, name, MISSING)
        if value is not MISSING:
            return value
    return default


@functools.cache
def _spec(module: str) -> ModuleSpec | None:
    """Where a module is. importlib's own function would import the packages around it."""
    first, *others = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    whole = first
    for part in others:
        if spec is None or spec.submodule_search_locations is None:
            return None
        whole = f"{whole}.{part}"
        spec = PathFinder.find_spec(whole, list(spec.submodule_search_locations))
    return spec


@functools.cache
def _parsed(module: str) -> ast.Module | None:
    spec = _spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None


def _misfit(name: str, setting: str, options: Mapping[str, Any], free: Sequence[str], error: TypeError) -> str:
    """One line about options that a constructor does not take, or that it lacks. free: the options that it takes."""
    wrong = [option for option in options if option not in free]
    if not wrong:
        return f"{setting}: {name} does not take {dict(options)} ({error}); correct {setting}"
    near = nearest(wrong[0], free)
    remedy = f"did you mean {near}?" if near else f"remove it from {setting}"
    return f"{setting}: {name} has no option {wrong[0]}, expected {' or '.join(free) or 'none'}; {remedy}"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error, 160)}"
