"""A small world for the tests, made once: artificial voices, simulated rooms, and the example plug-in, installed."""

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import Split, split_clips
from farfeel.corpora.synthetic import generate
from farfeel.models.checkpoint import save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe, Simulation, load_recipe
from farfeel.rooms.bank import Bank
from farfeel.rooms.simulate import simulate

settings.register_profile("farfeel", deadline=None)  # A busy machine is no fault.
settings.load_profile("farfeel")
torch.set_num_threads(1)  # Small networks gain nothing from a second, and lose much where the machine is busy.


PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"


def pytest_configure(config: pytest.Config) -> None:
    """Build and install the example plug-in, before tests ask the registries for their names.

    Each state of its source gets a folder of its own. It appears whole or not at all: two runs of pytest at once and
    an interrupted installation do no harm.
    """
    files = [path for path in sorted(PLUGIN.rglob("*")) if path.suffix in (".py", ".toml")]
    contents = [part for path in files for part in (str(path.relative_to(PLUGIN)).encode(), path.read_bytes())]
    state = hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]
    installed = config.rootpath / "build" / f"plugin-{state}"
    if not installed.exists():
        installed.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=installed.parent) as folder:  # building leaves its files beside the source
            source = shutil.copytree(PLUGIN, Path(folder) / "source")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
            target = Path(folder) / "installed"
            where = ["--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
            subprocess.run([*pip, *where], check=True)
            try:
                target.rename(installed)
            except OSError:  # Another run was faster.
                if not installed.exists():
                    raise
    sys.path.append(str(installed))  # spawned processes get it from here, others from the environment
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(installed)]))
    importlib.invalidate_caches()


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a synthetic corpus: four speakers, one clip of each of eight emotions."""
    return generate(tmp_path_factory.mktemp("voices"), speakers=4, clips_per_emotion=1, seed=1)


@pytest.fixture(scope="session")
def split(voices: Path) -> Split:
    return split_clips(load_clips("synthetic", voices), "folds-4:1")


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """Six responses of three microphones, two places in each of three rooms."""
    ranges = Simulation(t60_s=(0.2, 0.4), sources_per_room=2)
    return simulate(6, 3, ranges, 1, tmp_path_factory.mktemp("rooms") / "bank", workers=1)


@pytest.fixture(scope="session")
def small() -> Callable[..., Recipe]:
    """The tiny recipe, made tinier: `small("key=value", …)`."""
    shrunk = ["audio.seconds=1.28", "model.image_frames=64", "train.batch_size=4", "train.epochs=3"]
    return lambda *overrides: load_recipe("tiny", [*shrunk, *overrides])


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, small: Callable[..., Recipe]) -> Path:
    """A folder with an untrained model of audio."""
    folder = tmp_path_factory.mktemp("checkpoint") / "best"
    save_checkpoint(folder, EmotionModel(small()).state_dict(), small(), "# untrained\n")
    return folder
