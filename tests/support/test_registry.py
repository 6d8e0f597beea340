"""Laws of registries: names come from files and entry points, facts from the source; nothing is imported for them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from farfeel.support.registry import Registry, nearest
from farfeel.types import FarfeelError
from farfeel.variants import AUDIO_NETWORKS, FUSIONS, MICROPHONES, VIDEO_NETWORKS

Make = Callable[..., Registry]
NETWORKS = (MICROPHONES, FUSIONS, AUDIO_NETWORKS, VIDEO_NETWORKS)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Make:
    """A registry of its own, with packages that are installed for this test: `make(other={"loud": "class Loud: …"})`.

    Package `other` 0.1 has a module for each name, and an entry point for the class of that name.
    """
    tag = f"t{abs(hash(request.node.nodeid)):x}"
    monkeypatch.syspath_prepend(tmp_path)

    def install(**packages: dict[str, str]) -> Registry:
        built_in = tmp_path / f"{tag}_ours"
        built_in.mkdir(exist_ok=True)
        (built_in / "__init__.py").write_text("raise RuntimeError('imported')")
        (built_in / "two_words.py").write_text('"""File."""\nclass TwoWords:\n    """Ours."""\n')
        for package, modules in packages.items():
            folder, info = tmp_path / f"{tag}_{package}", tmp_path / f"{tag}_{package}-0.1.dist-info"
            folder.mkdir()
            info.mkdir()
            (folder / "__init__.py").write_text("LOADED = True\n")
            lines = [f"[{tag}]"]
            for name, text in modules.items():
                (folder / f"{name}.py").write_text(text.replace("PACKAGE", folder.name))
                lines.append(f"{name} = {folder.name}.{name}:{name.title()}")
            (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
        return Registry(tag, built_in.name, "voice")

    return install


def test_names_are_those_of_our_files_then_those_of_entry_points(make: Make) -> None:
    registry = make(other={"zoom": "class Zoom: pass", "loud": "class Loud: pass"})
    assert registry.names == ("two-words", "loud", "zoom")
    assert list(registry) == list(registry.names)
    assert "loud" in registry
    assert "quiet" not in registry
    assert [registry.variant(name).package for name in registry] == ["", "other 0.1", "other 0.1"]


def test_without_packages_of_others_there_are_only_ours(make: Make) -> None:
    assert make().names == ("two-words",)
    assert Registry("no.such.group", "farfeel.types", "thing").names == ()  # a module has no variants


def test_facts_are_read_from_the_source_without_importing_it(make: Make) -> None:
    registry = make(
        other={
            "loud": '"""File."""\nfrom PACKAGE.base import Base\nraise RuntimeError\n'
            'class Loud(Base):\n    """Is loud.\n\n    More."""',
            "base": 'class Base:\n    takes: str = "one"\n    level: int\nBase.title = Base',
            "moved": "from .base import Base as Moved\nraise RuntimeError",
            "bare": '"""What the file is for."""\nclass Bare:\n    takes = "any"\n    none = None\nraise RuntimeError',
        }
    )
    assert registry.summary("loud") == "Is loud."
    assert registry.summary("bare") == "What the file is for."
    assert registry.summary("two-words") == "Ours."
    assert registry.variant("loud").constant("takes", "?") == "one"  # of its base, in another module
    assert registry.variant("moved").constant("takes", "?") == "one"  # defined elsewhere, imported here
    assert registry.variant("bare").constant("takes", "?") == "any"
    assert registry.variant("bare").constant("none", "?") is None
    assert registry.variant("bare").constant("level", "?") == "?"
    assert registry.variant("loud").constant("level", "?") == "?"  # a type alone is no value
    assert not [name for name in sys.modules if name.endswith(("_other", "_other.loud", "_ours"))]


def test_what_the_source_does_not_show_is_taken_from_the_class(make: Make) -> None:
    computed = "import fractions\nclass Sum:\n    takes = 'o' + 'ne'\nclass Loud(fractions.Fraction):\n    'x'\n"
    registry = make(other={"loud": computed, "sum": computed})
    assert registry.variant("sum").constant("takes", "?") == "one"
    assert registry.variant("loud").constant("denominator", None) is not None


def test_an_unknown_name_is_one_line_with_the_nearest(make: Make) -> None:
    registry = make(other={"loud": "class Loud: pass"})
    with pytest.raises(FarfeelError, match=r"^lout is no voice, expected one of two-words, loud; did you mean loud\?$"):
        registry.get("lout")
    with pytest.raises(FarfeelError, match=r"or install the package that brings it$"):
        registry.get("xyz")


def test_two_packages_with_one_name_are_one_line(make: Make) -> None:
    registry = make(other={"loud": "class Loud: pass"}, another={"loud": "class Loud: pass"})
    with pytest.raises(
        FarfeelError, match=r"(another 0\.1 and other 0\.1|other 0\.1 and another 0\.1) both bring a voice loud"
    ):
        registry.variant("loud")
    assert registry.names == ("two-words", "loud")


def test_a_package_that_cannot_be_imported_is_one_line_that_names_it(make: Make) -> None:
    registry = make(other={"loud": "import no_such_module\nclass Loud: pass", "lost": "class Other: pass"})
    with pytest.raises(FarfeelError, match=r"^loud of other 0.1 cannot be loaded \(ModuleNotFoundError: .*uninstall"):
        registry.get("loud")
    with pytest.raises(FarfeelError, match=r"^lost of other 0.1 cannot be loaded \(AttributeError"):
        registry.get("lost")


def test_options_are_arguments_and_others_are_one_line(make: Make) -> None:
    text = (
        "class Loud:\n    def __init__(self, bands, share=1.0):\n        self.held = bands, share\n"
        "        if share < 0: raise ValueError('negative')"
    )
    registry = make(other={"loud": text})
    assert registry.build("loud", "x.options", {}, 3).held == (3, 1.0)
    assert registry.build("loud", "x.options", {"share": 0.5}, 3).held == (3, 0.5)
    for options, said in (
        ({"shar": 1}, r"^x.options: loud has no option shar, expected share; did you mean share\?$"),
        ({"bands": 1}, r"^x.options: loud has no option bands, expected share; remove it from x.options$"),
        ({"share": -1}, r"^loud of other 0.1 cannot be built \(ValueError: negative\); correct x.options"),
    ):
        with pytest.raises(FarfeelError, match=said):
            registry.build("loud", "x.options", options, 3)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("sum", "sum-patches"), ("avrage-mels", "average-mels"), ("SINGLE", "single"), ("q", None), ("", None)],
)
def test_the_nearest_name_begins_with_it_or_is_spelt_alike(typed: str, meant: str | None) -> None:
    assert nearest(typed, ["average-mels", "single", "sum-patches"]) == meant


@pytest.mark.parametrize("registry", NETWORKS, ids=lambda registry: registry.what)
def test_every_variant_has_a_line_about_it_and_can_be_imported(registry: Registry) -> None:
    assert len(registry.names) > 1
    for name in registry:
        assert len(registry.summary(name)) > 10
        assert callable(registry.get(name))


@pytest.mark.parametrize("registry", NETWORKS, ids=lambda registry: registry.what)
def test_constants_in_the_source_are_those_of_the_classes(registry: Registry) -> None:
    for name in registry:
        variant = registry.variant(name)
        for constant in ("takes", "pretrained"):
            assert variant.constant(constant, "absent") == getattr(variant.load(), constant, "absent")


def test_names_lines_and_constants_need_neither_torch_nor_the_packages() -> None:
    script = """
import sys
from farfeel.cli import main
from farfeel.recipe import load_recipe
from farfeel.variants import MICROPHONES
assert main(["recipe"]) == 0
assert load_recipe("tiny", ["microphones.strategy=loudest"]).microphones.takes == "any"
heavy = {"torch", "timm", "farfeel_example", "farfeel.models"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
