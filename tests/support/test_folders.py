"""Laws of walking through folders: links are followed, loops end, litter is passed over."""

import os
from pathlib import Path

import pytest

from farfeel.support.folders import files_under, is_litter


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_files_come_in_sorted_order_those_of_a_folder_before_those_of_its_sub_folders(tmp_path: Path) -> None:
    names = ["b.wav", "z.wav", "a/2.wav", "a/x/1.wav", "c/0.wav"]
    made = [touch(tmp_path / name) for name in names]
    assert list(files_under(tmp_path)) == made


@pytest.mark.parametrize(
    "name",
    ["._clip.wav", ".DS_Store", ".hidden.wav", "Thumbs.db", "desktop.ini", "__MACOSX/clip.wav", "__MACOSX/._clip.wav",
     ".git/clip.wav", "deeper/__macosx/clip.wav", "$RECYCLE.BIN/clip.wav"],
)  # fmt: skip
def test_litter_is_passed_over_at_any_depth(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    kept = touch(tmp_path / "deeper" / "clip.wav")
    assert list(files_under(tmp_path)) == [kept]
    assert any(map(is_litter, name.split("/")))


def test_linked_folders_and_files_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "sub" / "1.wav")
    root = tmp_path / "root"
    root.mkdir()
    (root / "Actor_01").symlink_to(tmp_path / "elsewhere")
    (root / "one.wav").symlink_to(tmp_path / "elsewhere" / "sub" / "1.wav")
    assert list(files_under(root)) == [root / "one.wav", root / "Actor_01" / "sub" / "1.wav"]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "root" / "a" / "1.wav"), touch(tmp_path / "root" / "b" / "2.wav")
    (tmp_path / "root" / "a" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "b" / "self").symlink_to(tmp_path / "root" / "b")
    (tmp_path / "root" / "b" / "nowhere.wav").symlink_to("nowhere.wav")
    found = list(files_under(tmp_path / "root"))
    assert found == [first, second, tmp_path / "root" / "b" / "nowhere.wav"]


def test_pipes_are_never_opened_and_links_to_nothing_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "lost.wav").symlink_to(tmp_path / "moved.wav")
    assert list(files_under(tmp_path)) == [tmp_path / "lost.wav"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    told: list[tuple[Path, str]] = []
    assert list(files_under(tmp_path / "nosuch", lambda folder, reason: told.append((folder, reason)))) == []
    assert told == [(tmp_path / "nosuch", "No such file or directory")]
