"""Laws of `farfeel serve`: it prints its address, stops on a signal, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from farfeel.cli.serve import COMMANDS
from farfeel.models.checkpoint import save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe
from farfeel.serve.run import require_access
from farfeel.types import FarfeelError

MAIN = """
import argparse, sys
from farfeel.cli.serve import COMMANDS
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    COMMANDS[0].arguments(parser)
    sys.exit(COMMANDS[0].run(parser.parse_args()))
"""


def run(*words: str) -> None:
    parser = ArgumentParser()
    COMMANDS[0].arguments(parser)
    COMMANDS[0].run(parser.parse_args(words))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_leaves_nothing_behind(
    number: signal.Signals, tmp_path: Path, small: Callable[..., Recipe], array: Path
) -> None:
    recipe = small()
    save_checkpoint(tmp_path / "best", EmotionModel(recipe).state_dict(), recipe, "# untrained\n")
    (tmp_path / "main.py").write_text(MAIN)
    # The address of a process's socket has at most 107 characters: the folder's name is a short one.
    temporary = Path(tempfile.mkdtemp())
    page = [] if number == signal.SIGTERM else ["--no-page"]
    command = [sys.executable, tmp_path / "main.py", "--checkpoint", tmp_path / "best", "--port", "0", *page]
    added = {
        "TMPDIR": str(temporary),
        "FARFEEL_API_KEY": "open",
        "OMP_NUM_THREADS": "1",
    }
    server = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | added, start_new_session=True
    )
    assert server.stderr is not None
    for line in server.stderr:
        if "http://" in line:
            url = line.split()[2].rstrip(";").removesuffix("/v1")
            break
    files, key = {"file": ("array.wav", array.read_bytes())}, {"X-API-Key": "open"}
    response = httpx.post(f"{url}/v1/predict", files=files, headers=key, timeout=120)
    assert response.status_code == 200, response.text
    assert httpx.get(f"{url}/v1/model").status_code == 401
    server.send_signal(number)
    log = server.communicate(timeout=120)[1]
    assert server.returncode == 0, log
    assert "Traceback" not in log
    temporary.rmdir()  # refused while anything is left in it
    with pytest.raises(ProcessLookupError):
        os.killpg(server.pid, 0)


def test_wrong_options_and_addresses_are_one_line(tmp_path: Path, small: Callable[..., Recipe]) -> None:
    recipe = small()
    save_checkpoint(tmp_path / "best", EmotionModel(recipe).state_dict(), recipe, "# untrained\n")
    for words, problem in (
        (["--workers", "0"], "--workers is 0"),
        (["--max-mb", "-1"], "--max-mb is -1"),
        (["--port", "99999999"], "cannot be used as the address of the server"),
        (["--host", "198.51.100.1", "--open"], "cannot be used as the address of the server"),
        (["--host", "0.0.0.0"], "there is no key; set FARFEEL_API_KEY, or add --open"),
        (["--host", "::"], "there is no key"),
        (["--host", "machine.example"], "there is no key"),
        (["--allow-host", "http://emotions.example"], "without http:// and without a port"),
        (["--allow-host", "emotions.example:80"], "without http:// and without a port"),
        (["--allow-host", ""], "without http:// and without a port"),
    ):
        with pytest.raises(FarfeelError, match=problem):
            run("--checkpoint", str(tmp_path / "best"), "--no-page", *words)


@pytest.mark.parametrize(("words", "is_warned"), [(["--open"], True), (["--api-key", "secret"], False)])
def test_a_server_for_everybody_states_what_that_means(
    words: list[str],
    is_warned: bool,
    tmp_path: Path,
    small: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = small()
    save_checkpoint(tmp_path / "best", EmotionModel(recipe).state_dict(), recipe, "# untrained\n")
    monkeypatch.delenv("FARFEEL_API_KEY", raising=False)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("farfeel.serve.run._stop_helper_processes", lambda: None)
    run("--checkpoint", str(tmp_path / "best"), "--no-page", "--host", "0.0.0.0", "--port", "0", *words)
    printed = capsys.readouterr().err
    assert ("everybody who can reach 0.0.0.0" in printed) == is_warned
    assert "farfeel serves http://0.0.0.0:" in printed


def test_other_machines_need_a_key_or_the_word_of_the_operator() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        require_access(host, None, is_open=False)
    for host in ("0.0.0.0", "::", "192.168.0.7", "machine.example", ""):
        require_access(host, "secret", is_open=False)
        require_access(host, None, is_open=True)
        with pytest.raises(FarfeelError, match="there is no key; set FARFEEL_API_KEY, or add --open"):
            require_access(host, None, is_open=False)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("farfeel.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(
        FarfeelError, match=r"serve needs uvicorn, which is not installed; pip install 'farfeel\[serve\]'"
    ):
        run()
