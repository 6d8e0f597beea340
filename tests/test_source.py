"""Laws of the source code that the linters do not check."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import farfeel

ROOT = Path(farfeel.__file__).parent
MOST_LINES = 80


def modules() -> dict[str, ast.Module]:
    """Name → syntax tree of every module of the package."""
    trees = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        trees[name] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


def imported(tree: ast.Module, known: dict[str, ast.Module]) -> set[str]:
    """The modules of the package that a module imports: at its top, inside functions, or only for types."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else node.module for name in inner}
    return names & known.keys()


def test_no_modules_import_one_another_in_a_circle_also_not_only_for_types() -> None:
    known = modules()
    imports = {name: imported(tree, known) for name, tree in known.items()}
    assert imports["farfeel.training.run"] >= {"farfeel.training.loop", "farfeel.types"}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_no_function_is_longer_than_a_person_reads_at_once() -> None:
    long = [
        f"{module}.{node.name}"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MOST_LINES
    ]
    assert long == []
