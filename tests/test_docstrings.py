"""The examples in the public docstrings run, in a folder with a clip.wav and a small corpus."""

import doctest
import importlib
import inspect
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import farfeel

METHODS = ("predict", "predict_audio", "predict_many", "stream", "timeline")


@pytest.fixture
def folder(tmp_path: Path, voices: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, as the docstrings describe it: clip.wav, and the corpus voices/."""
    shutil.copytree(voices, tmp_path / "voices")
    shutil.copy(sorted(voices.rglob("*.flac"))[0], tmp_path / "clip.wav")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def public() -> Iterator[tuple[str, object]]:
    yield "farfeel", farfeel
    for name in farfeel.__all__:
        yield name, getattr(farfeel, name)
    for name in METHODS:
        yield f"Recognizer.{name}", getattr(farfeel.Recognizer, name)


@pytest.mark.parametrize("name", [name for name, _ in public() if name not in ("Recipe", "load_recipe")])
def test_the_example_of_a_public_name_runs(name: str, folder: Path) -> None:
    text = inspect.getdoc(dict(public())[name])
    assert text
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert example.examples, f"{name} has no example"
    assert "+SKIP" not in text
    lines: list[str] = []
    failed = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=lines.append)
    assert not failed.failed, "".join(lines)


def test_every_public_name_is_there_and_nothing_else_is_shown() -> None:
    assert dir(farfeel) == sorted([*farfeel.__all__, "__version__"])
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        farfeel.nothing  # noqa: B018


def test_importing_farfeel_imports_neither_numpy_nor_torch() -> None:
    code = "import sys, farfeel; sys.exit(bool({'numpy', 'torch', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_evaluate_can_be_called_before_and_after_its_modules_are_imported() -> None:
    assert callable(farfeel.evaluate)
    metrics = importlib.import_module("farfeel.evaluate.metrics")
    assert callable(farfeel.evaluate)
    assert farfeel.evaluate.metrics is metrics
    assert list(inspect.signature(farfeel.evaluate).parameters)[:3] == ["checkpoint", "corpus", "root"]
