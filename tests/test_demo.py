"""The demo, made small: it runs all steps, and a second call resumes."""

from pathlib import Path

import pytest

from farfeel import demo as module
from farfeel.cli import main
from farfeel.recipe import Recipe, load_recipe


def test_the_demo_ends_with_a_table_and_a_report_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shrunk(name: str, overrides: list[str]) -> Recipe:
        return load_recipe(name, [*overrides, "train.epochs=1"])

    monkeypatch.setattr(module, "load_recipe", shrunk)
    for name, value in {"SPEAKERS": 6, "CLIPS_PER_EMOTION": 1, "TRAINING_ROOMS": 2, "TEST_ROOMS": 1}.items():
        monkeypatch.setattr(module, name, value)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr()
    for system in (*module.SYSTEMS, module.CAMERA_OFF_SYSTEM):
        assert system in printed.out
    for report in ("report-clean", "report-in-rooms"):
        assert (tmp_path / "demo" / report / "report.html").is_file()
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    again = capsys.readouterr()
    assert again.out == printed.out
    assert "epoch   1" in printed.err
    assert "epoch   1" not in again.err
