import pickle
import subprocess
import sys

import numpy as np
import pyarrow
import pytest
from generated import some_rirs
from pyarrow import parquet

from farfeel.rooms.bank import Bank, write_bank
from farfeel.types import FarfeelError


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_bank_gives_back_what_was_written(tmp_path):
    rirs = some_rirs(5)
    write_bank(tmp_path / "bank", rirs)
    bank = Bank.open(tmp_path / "bank", sample_rate=16000, min_mics=2)
    assert (len(bank), bank.mics, bank.sample_rate, bank.rooms) == (5, 2, 16000, ("room_0", "room_1", "room_2"))
    for written, found in zip(rirs, bank, strict=True):
        length = written.taps.shape[1]
        np.testing.assert_array_equal(found.taps[:, :length], written.taps)
        assert not found.taps[:, length:].any()
        for name in ("sample_rate", "room", "position", "t60_s", "drr_db", "origin", "geometry"):
            assert getattr(found, name) == getattr(written, name), name


def test_microphones_come_in_the_order_asked_and_rooms_have_their_responses(tmp_path):
    rirs = some_rirs(4, mics=3)
    bank = write_bank(tmp_path / "bank", rirs)
    np.testing.assert_array_equal(bank.taps(3, [2, 0]), rirs[3].taps[[2, 0]])
    assert bank.indices("room_1").tolist() == [2, 3]
    with pytest.raises(FarfeelError, match="room_0, room_1"):
        bank.indices("cellar")


def test_a_bank_goes_to_another_process_as_its_path(tmp_path):
    bank = write_bank(tmp_path / "bank", some_rirs())
    packed = pickle.dumps(bank)
    assert len(packed) < bank.taps(0).nbytes / 4
    np.testing.assert_array_equal(pickle.loads(packed).taps(1), bank.taps(1))


def test_a_bank_is_replaced_and_other_folders_are_refused(tmp_path):
    write_bank(tmp_path / "bank", some_rirs(2))
    assert len(write_bank(tmp_path / "bank", some_rirs(4))) == 4
    (tmp_path / "bank" / "notes.txt").write_text("mine")
    with pytest.raises(FarfeelError) as error:
        write_bank(tmp_path / "bank", some_rirs(2))
    assert "notes.txt" in one_line(error)
    assert len(Bank.open(tmp_path / "bank")) == 4
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FarfeelError, match="is a file"):
        write_bank(tmp_path / "file", some_rirs(2))


def test_a_failing_writer_leaves_nothing(tmp_path):
    def broken():
        yield from some_rirs(2)
        raise FarfeelError("the third is damaged")

    with pytest.raises(FarfeelError, match="third"):
        write_bank(tmp_path / "bank", broken(), shape=(3, 2, 500))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("others", [some_rirs(1, mics=3), some_rirs(1, sample_rate=8000)])
def test_a_bank_has_one_microphone_count_and_one_rate(tmp_path, others):
    with pytest.raises(FarfeelError) as error:
        write_bank(tmp_path / "bank", [*some_rirs(2), *others])
    assert "two banks" in one_line(error)
    with pytest.raises(FarfeelError, match="no response"):
        write_bank(tmp_path / "bank", [])


def test_opening_says_what_is_wrong(tmp_path):
    path = tmp_path / "bank"
    write_bank(path, some_rirs(3))

    def complaint(**asked) -> str:
        with pytest.raises(FarfeelError) as error:
            Bank.open(path, **asked)
        return one_line(error)

    assert "16000 Hz, 8000 Hz" in complaint(sample_rate=8000)
    assert "2 microphones, 7" in complaint(min_mics=7)

    whole = (path / "taps.npy").read_bytes()
    (path / "taps.npy").write_bytes(whole[:-8])
    assert f"{len(whole) - 8} of {len(whole)} bytes" in complaint()
    for damaged in (whole[:20], b"", b"RIFF....WAVE"):
        (path / "taps.npy").write_bytes(damaged)
        assert "not a NumPy array" in complaint()
    np.save(path / "taps.npy", np.zeros((3, 2, 8)))
    assert "float64" in complaint()
    np.save(path / "taps.npy", np.array([{"a": 1}]), allow_pickle=True)
    assert "object" in complaint()
    np.save(path / "taps.npy", np.zeros((2, 2, 8), np.float32))
    assert "2 responses" in complaint()

    (path / "taps.npy").write_bytes(whole)
    table = parquet.read_table(path / "rirs.parquet")
    parquet.write_table(table.drop_columns(["room"]), path / "rirs.parquet")
    assert "room" in complaint()
    (path / "rirs.parquet").write_bytes(b"PAR1")
    assert "not a table" in complaint()

    (path / "rirs.parquet").unlink()
    assert "holds taps.npy" in complaint()
    path = tmp_path / "nowhere"
    assert "does not exist" in complaint()


def test_banks_and_imports_need_no_torch():
    names = ("bank", "measured", "acoustics", "simulate", "noise")
    code = "import sys, " + ", ".join(f"farfeel.rooms.{name}" for name in names) + "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_response_that_is_not_finite_is_one_line_when_it_is_drawn(tmp_path):
    rirs = some_rirs(3)
    rirs[1].taps[0, 3] = np.nan
    bank = write_bank(tmp_path / "bank", rirs)
    bank.taps(0)
    with pytest.raises(FarfeelError, match="response 1 has numbers that are not finite"):
        bank.taps(1)


def test_a_header_whose_product_overflows_is_one_line(tmp_path):
    """NumPy's product of these sizes in 64 bits is 0."""
    write_bank(tmp_path / "bank", some_rirs(3))
    taps = tmp_path / "bank" / "taps.npy"
    content = taps.read_bytes()
    begin = content.index(b"(")
    end = content.index(b"}")
    taps.write_bytes(content[:begin] + b"(4294967296, 4294967296, 1), }".ljust(end + 1 - begin) + content[end + 1 :])
    with pytest.raises(FarfeelError) as error:
        Bank.open(tmp_path / "bank")
    assert "is cut off" in one_line(error)


@pytest.mark.parametrize(
    ("column", "value"),
    [("room", None), ("sample_rate", None), ("sample_rate", -1), ("mics_m", [[1.0, None, 2.0]]), ("source_m", None)],
)
def test_a_row_without_what_every_response_has_is_one_line(tmp_path, column, value):
    write_bank(tmp_path / "bank", some_rirs(3))
    table = parquet.read_table(tmp_path / "bank" / "rirs.parquet")
    rows = table.to_pylist()
    rows[2][column] = value
    parquet.write_table(pyarrow.Table.from_pylist(rows, table.schema), tmp_path / "bank" / "rirs.parquet")
    with pytest.raises(FarfeelError) as error:
        Bank.open(tmp_path / "bank")
    assert "is not a table of responses (row 2: " in one_line(error)
