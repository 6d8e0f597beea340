"""A user id without an entry in the list of users, as in many containers, can use every command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

import farfeel

SOURCE = Path(farfeel.__file__).parents[1]
# What the interpreter needs may be in the folder of another user. It may be read, but nothing may be written.
NOBODY = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
READ_ALL = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def as_nobody(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environment = kept | {"HOME": "/nonexistent", "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*NOBODY, *READ_ALL, sys.executable, *map(str, words)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, voices: Path) -> Path:
    """A folder that everybody can enter, with a recording."""
    if shutil.which("setpriv") is None or os.geteuid() != 0 or as_nobody("-c", "", cwd=Path("/")).returncode:
        pytest.skip("needs setpriv and the rights to change the user id")
    folder = tmp_path_factory.mktemp("nobody")
    samples, rate = soundfile.read(sorted(voices.rglob("*.flac"))[0])
    soundfile.write(folder / "clip.wav", samples, rate)
    return folder


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_predict_answers_a_user_without_a_name(place: Path, engine: str) -> None:
    found = as_nobody("-m", "farfeel.cli", "predict", place / "clip.wav", "--engine", engine, cwd=place)
    assert found.returncode == 0, found.stderr
    assert "1 microphone" in found.stdout


def test_torch_is_imported_by_a_user_without_a_name(place: Path) -> None:
    lines = "import farfeel, torch._dynamo, timm, torchvision; print(farfeel.load().emotions[0])"
    found = as_nobody("-c", lines, cwd=place)
    assert (found.returncode, found.stdout.strip()) == (0, "neutral"), found.stderr


def test_a_user_with_a_name_keeps_torchs_own_folder(tmp_path: Path) -> None:
    lines = "import os, farfeel; print(os.environ.get('TORCHINDUCTOR_CACHE_DIR'))"
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment |= {"USER": "anna", "PYTHONPATH": str(SOURCE)}
    found = subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "None"
