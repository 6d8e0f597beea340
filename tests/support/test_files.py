"""Laws of writing: what is under a name is whole, the old or the new, whoever is killed and whenever."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from farfeel.support import files
from farfeel.support.files import (
    replacing_file,
    replacing_folder,
    require_only,
    require_replaceable,
    require_writable_file,
    require_writable_folder,
)
from farfeel.types import FarfeelError

WRITERS = {
    "file": """
        with replacing_file(Path("result")) as partial:
            partial.write_text("new, but only ha")
            die()
    """,
    "folder": """
        with replacing_folder(Path("result")) as partial:
            (partial / "a").write_text("new")
            die()
    """,
    "folder between its two moves": """
        moves, really = [], os.replace
        def replace(old, new):
            if moves:
                die()
            moves.append(really(old, new))
        os.replace = replace
        with replacing_folder(Path("result")) as partial:
            (partial / "a").write_text("new")
    """,
}


def kill(writer: str, folder: Path) -> int:
    """Run a writer in a process of its own that is killed in the middle; its process id."""
    lines = WRITERS[writer].replace("\n        ", "\n")
    imports = "import os, signal\nfrom pathlib import Path\n"
    imports += "from farfeel.support.files import replacing_file, replacing_folder\n"
    death = "def die():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    process = subprocess.Popen([sys.executable, "-c", imports + death + lines], cwd=folder)
    assert process.wait() == -signal.SIGKILL
    return process.pid


def hidden(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


def write_folder(path: Path, content: str) -> None:
    with replacing_folder(path) as partial:
        (partial / "a").write_text(content)


@contextmanager
def interrupted(error: BaseException) -> Iterator[None]:
    with pytest.raises((type(error), FarfeelError)):
        yield


def test_a_killed_file_leaves_the_old_one_whole_and_its_leftover_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "result").write_text("old")
    pid = kill("file", tmp_path)
    assert (tmp_path / "result").read_text() == "old"
    assert len(hidden(tmp_path)) == 1
    assert hidden(tmp_path)[0].startswith(f".result.{pid}-")
    with replacing_file(tmp_path / "result") as partial:
        partial.write_text("newer")
    assert (tmp_path / "result").read_text() == "newer"
    assert hidden(tmp_path) == []


def test_a_killed_folder_leaves_the_old_one_whole_and_its_leftover_goes_with_the_next(tmp_path: Path) -> None:
    write_folder(tmp_path / "result", "old")
    kill("folder", tmp_path)
    assert (tmp_path / "result" / "a").read_text() == "old"
    assert len(hidden(tmp_path)) == 1
    write_folder(tmp_path / "result", "newer")
    assert (tmp_path / "result" / "a").read_text() == "newer"
    assert hidden(tmp_path) == []


def test_a_first_writer_that_is_killed_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    for writer in ("file", "folder"):
        kill(writer, tmp_path)
        assert not (tmp_path / "result").exists()


def test_a_folder_killed_between_its_two_moves_is_put_back_by_the_next_writer_even_by_one_that_fails(
    tmp_path: Path,
) -> None:
    write_folder(tmp_path / "result", "old")
    kill("folder between its two moves", tmp_path)
    assert not (tmp_path / "result").exists()
    with interrupted(ValueError()), replacing_folder(tmp_path / "result"):
        raise ValueError
    assert (tmp_path / "result" / "a").read_text() == "old"
    assert hidden(tmp_path) == []


def test_a_folder_interrupted_between_its_two_moves_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "result", "old")
    move = os.replace

    def replace(old: Path, new: Path) -> None:
        if old.suffix == ".partial":
            raise KeyboardInterrupt
        move(old, new)

    monkeypatch.setattr(os, "replace", replace)
    with interrupted(KeyboardInterrupt()):
        write_folder(tmp_path / "result", "new")
    assert (tmp_path / "result" / "a").read_text() == "old"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "full"), FarfeelError("x")])
def test_any_failure_leaves_the_old_content_and_no_leftover(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "file").write_text("old")
    write_folder(tmp_path / "folder", "old")
    with interrupted(error), replacing_file(tmp_path / "file") as partial:
        partial.write_text("half")
        raise error
    with interrupted(error), replacing_folder(tmp_path / "folder") as partial:
        (partial / "a").write_text("half")
        raise error
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "a").read_text() == "old"
    assert hidden(tmp_path) == []


def test_a_full_disk_is_one_line_that_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    with pytest.raises(FarfeelError) as raised, replacing_file(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(raised.value).startswith(f"{tmp_path / 'file'} cannot be written (No space left on device)")
    assert "partial" not in str(raised.value)


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "result", "old")
    (tmp_path / "result" / "more").write_text("of the old one")
    write_folder(tmp_path / "result", "new")
    assert [entry.name for entry in (tmp_path / "result").iterdir()] == ["a"]


def name_of(pid: int, host: str | None = None, start: int | None = None) -> str:
    """The temporary name that a process writes under."""
    start = files._start_of(pid) if start is None else start
    return f".result.{pid}-{host or files._host()}-{start}.partial"


def left_beside(folder: Path, name: str, hours_ago: float = 0.0) -> Path:
    (folder / name).write_text("half")
    then = time.time() - 3600 * hours_ago
    os.utime(folder / name, (then, then))
    return folder / name


def write_result(folder: Path) -> None:
    with replacing_file(folder / "result") as partial:
        partial.write_text("new")


def test_what_a_running_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    theirs = left_beside(tmp_path, name_of(os.getppid()))
    of_another_name = left_beside(tmp_path, ".result.txt.999999999.partial", hours_ago=99)
    write_result(tmp_path)
    assert hidden(tmp_path) == sorted([theirs.name, of_another_name.name])


def test_what_a_process_of_another_container_is_writing_is_left_alone_for_a_day(tmp_path: Path) -> None:
    theirs = left_beside(tmp_path, name_of(999999999, "0123abcd", 7), hours_ago=23)
    of_an_older_version = left_beside(tmp_path, ".result.999999999.partial", hours_ago=23)
    write_result(tmp_path)
    assert hidden(tmp_path) == sorted([theirs.name, of_an_older_version.name])
    left_beside(tmp_path, theirs.name, hours_ago=25)
    left_beside(tmp_path, of_an_older_version.name, hours_ago=25)
    write_result(tmp_path)
    assert hidden(tmp_path) == []


def test_a_folder_that_is_still_being_filled_is_not_old(tmp_path: Path) -> None:
    theirs = tmp_path / name_of(999999999, "0123abcd", 7)
    theirs.mkdir()
    left_beside(theirs, "a")
    os.utime(theirs, (0, 0))
    write_result(tmp_path)
    assert hidden(tmp_path) == [theirs.name]


def test_a_process_that_has_the_id_of_a_dead_writer_does_not_keep_its_leftover(tmp_path: Path) -> None:
    left_beside(tmp_path, name_of(os.getppid(), start=1))
    write_result(tmp_path)
    assert hidden(tmp_path) == []


def test_two_hosts_never_write_under_one_temporary_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 of one container and process 1 of another."""
    with replacing_file(tmp_path / "result") as ours:
        monkeypatch.setattr(files, "_host", lambda: "0123abcd")
        with replacing_file(tmp_path / "result") as theirs:
            assert ours != theirs
            ours.write_text("ours")
            theirs.write_text("theirs")
        assert (tmp_path / "result").read_text() == "theirs"
    assert (tmp_path / "result").read_text() == "ours"


@pytest.mark.parametrize("name", ["a" * 250, "ü" * 125, "a" * 255])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path, name: str) -> None:
    with replacing_file(tmp_path / "files" / name) as partial:
        partial.write_text("new")
    write_folder(tmp_path / "folders" / name, "old")
    write_folder(tmp_path / "folders" / name, "new")
    assert [entry.name for entry in (tmp_path / "files").iterdir()] == [name]
    assert [entry.name for entry in (tmp_path / "folders").iterdir()] == [name]


@pytest.mark.parametrize("name", ["plain", "[a-z]*?", "with space", "ünï", ".hidden", "a.b.c", "-x"])
def test_any_name_can_be_written(tmp_path: Path, name: str) -> None:
    with replacing_file(tmp_path / "files" / name) as partial:
        partial.write_text("new")
    write_folder(tmp_path / "folders" / name, "new")
    assert [entry.name for entry in (tmp_path / "files").iterdir()] == [name]
    assert [entry.name for entry in (tmp_path / "folders").iterdir()] == [name]


def test_a_trailing_slash_and_a_link_lead_to_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(Path("result/"), "old")
    Path("link").symlink_to("result")
    write_folder(Path("link"), "new")
    assert Path("link").is_symlink()
    assert Path("result/a").read_text() == "new"
    Path("file").write_text("old")
    Path("file-link").symlink_to("file")
    with replacing_file(Path("file-link")) as partial:
        partial.write_text("new")
    assert Path("file-link").is_symlink()
    assert Path("file").read_text() == "new"


@pytest.mark.parametrize("here", [".", "./", "../here", "..", "", "sub/.."])
def test_the_folder_one_is_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str) -> None:
    (tmp_path / "here" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(FarfeelError, match="is the folder you are in"), replacing_folder(Path(here)):
        pytest.fail("must not come to writing")
    assert Path("sub").is_dir()


def test_neither_takes_the_place_of_the_other_nor_of_a_device(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FarfeelError, match="is a file, expected a folder or a new name"):
        require_writable_folder(tmp_path / "file")
    with pytest.raises(FarfeelError, match=r"file is a file, .*would be inside it"):
        require_writable_folder(tmp_path / "file" / "inside" / "deeper")
    with pytest.raises(FarfeelError, match="is a folder, expected a file or a new name"):
        require_writable_file(tmp_path)
    with pytest.raises(FarfeelError, match="is no file on a disk"):
        require_writable_file(Path(os.devnull))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_a_file_of_someone_else_is_told_from_one_of_ours(tmp_path: Path) -> None:
    for name in ("model", "epoch_001", "epoch_002"):
        (tmp_path / name).touch()
    require_only(tmp_path, ("model", "epoch_*"), "a run")
    require_only(tmp_path / "absent", (), "a run")
    with pytest.raises(FarfeelError, match="holds epoch_001, which is no part of a run"):
        require_only(tmp_path, ("model",), "a run")


def test_a_folder_is_replaced_only_where_all_that_it_holds_is_of_the_same_kind(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    assert require_replaceable(folder, ("model",), "a checkpoint") == folder.resolve()
    folder.mkdir()
    assert require_replaceable(folder, ("model",), "a checkpoint") == folder.resolve()
    (folder / "model").touch()
    assert require_replaceable(folder, ("model",), "a checkpoint") == folder.resolve()
    (folder / "thesis").touch()
    with pytest.raises(FarfeelError, match=r"holds thesis, which is no part of a checkpoint; .*choose another --out"):
        require_replaceable(folder, ("model",), "a checkpoint")
    with pytest.raises(FarfeelError, match=r"is a file, expected"):
        require_replaceable(folder / "model", ("model",), "a checkpoint")


@pytest.mark.parametrize("name", ["x" * 250, "x" * 255, "ö" * 127, "한" * 85])
def test_any_legal_name_can_be_written_and_its_leftovers_are_removed(tmp_path: Path, name: str) -> None:
    for text in ("old", "new"):
        with replacing_file(tmp_path / name) as partial:
            partial.write_text(text)
    assert (tmp_path / name).read_text() == "new"
    left = partial.with_name(partial.name.replace(f".{os.getpid()}-", ".999999999-"))  # of a process that is gone
    left.write_text("half")
    other = f"{name[:-1]}y"  # the same beginning, but another file
    with replacing_file(tmp_path / other) as partial:
        partial.write_text("other")
    assert left.exists()
    with replacing_file(tmp_path / name) as partial:
        partial.write_text("newest")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([name, other])
    with replacing_folder(tmp_path / "sub" / name) as partial:
        (partial / "a").touch()
    assert (tmp_path / "sub" / name / "a").is_file()
