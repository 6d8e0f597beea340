import shutil

import numpy as np
import pytest
import soundfile
from generated import exponential

from farfeel.media.audio import files_in
from farfeel.rooms.importers.ace import ARRAYS, ROOMS
from farfeel.rooms.measured import read_response
from farfeel.types import FarfeelError
from farfeel.variants import ROOM_IMPORTERS

import_ace, import_r3vival, import_folder = (ROOM_IMPORTERS.get(name) for name in ("ace", "r3vival", "folder"))


def write(path, channels=1, sample_rate=48000, seconds=0.3, taps=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    taps = 0.5 * exponential(0.4, seconds, rng, channels, sample_rate) if taps is None else taps
    soundfile.write(path, taps.T, sample_rate, subtype="FLOAT")
    return path


@pytest.fixture
def ace(tmp_path):
    """ACE's own layout, with noises beside the responses; the Single ones of two rooms are real where they are."""
    for array, mics in ARRAYS.items():
        for code, room in ROOMS.items():
            for position in "12":
                folder = tmp_path / f"ACE_Corpus_RIRN_{array}" / array / room / position
                write(folder / f"{array}_{code}_{position}_RIR.wav", mics, seconds=0.1)
                for noise in ("Ambient", "Fan", "Babble_1"):
                    write(folder / f"{array}_{code}_{position}_{noise}.wav", mics, seconds=0.1)
    return tmp_path


def complaint(function, *arguments) -> str:
    with pytest.raises(FarfeelError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("array", "mics"), ARRAYS.items())
def test_each_array_of_ace_is_read_by_its_names_and_noises_are_left(ace, array, mics):
    rirs = import_ace(ace, array=array)
    assert {(rir.room, rir.position) for rir in rirs} == {(room, p) for room in ROOMS.values() for p in "12"}
    assert len(rirs) == 2 * len(ROOMS)
    assert {rir.taps.shape for rir in rirs} == {(mics, 1600)}
    assert {(rir.origin, rir.sample_rate) for rir in rirs} == {("measured", 16000)}


def test_real_ace_responses_have_the_reverberation_of_lecture_rooms(real, tmp_path):
    shutil.copytree(real("ace"), tmp_path / "ace")
    write(tmp_path / "ace/ACE_Corpus_RIRN_Mobile/Mobile/Office_1/1/Mobile_502_1_RIR.wav", 3)
    rirs = import_ace(tmp_path / "ace", array="Single")
    assert sorted((rir.room, rir.position) for rir in rirs) == [("Lecture_Room_1", "2"), ("Lecture_Room_2", "1")]
    for rir in rirs:
        assert 0.4 < rir.t60_s < 2
        assert np.isfinite(rir.drr_db)
    assert len(import_ace(tmp_path / "ace")) == 1


def test_ace_complaints_name_what_was_found(ace, tmp_path):
    shutil.rmtree(ace / "ACE_Corpus_RIRN_Mobile")
    assert "found 14 of Chromebook" in complaint(import_ace, ace, 16000, "Mobile")
    assert "Lin8Ch" in complaint(import_ace, ace, 16000, "Eigenmike")
    write(ace / "ACE_Corpus_RIRN_Mobile/Mobile/Office_1/1/Mobile_502_1_RIR.wav", channels=2)
    assert "2 channels, ACE's Mobile has 3" in complaint(import_ace, ace, 16000, "Mobile")
    assert "does not exist" in complaint(import_ace, ace / "none", 16000, "Mobile")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "found no file" in complaint(import_ace, empty, 16000, "Mobile")


def test_r3vival_has_three_rooms_of_34_places_and_7_microphones(r3vival):
    assert {rir.room for rir in r3vival} == {"r3vival_000", "r3vival_050", "r3vival_100"}
    for room in ("r3vival_000", "r3vival_050", "r3vival_100"):
        positions = {rir.position for rir in r3vival if rir.room == room}
        assert len(positions) == 34
        assert {"SBG1", "SBG2", "SBG3", "SBG4", "S000-150", "S330-200"} <= positions
    assert {rir.taps.shape for rir in r3vival} == {(7, 16000)}
    assert all(np.isfinite((rir.t60_s, rir.drr_db)).all() for rir in r3vival)


def test_a_response_is_the_same_from_its_48_khz_and_its_16_khz_form(real, r3vival):
    at_16_khz = {(rir.room, rir.position): rir for rir in r3vival}
    originals = import_r3vival(real("r3vival-original"))
    assert len(originals) == 2
    for original in originals:
        twin = at_16_khz[original.room, original.position]
        samples = min(original.taps.shape[1], twin.taps.shape[1])
        difference = original.taps[:, :samples] - twin.taps[:, :samples]
        assert np.square(difference).sum() < 1e-6 * np.square(twin.taps).sum()
        assert original.t60_s == pytest.approx(twin.t60_s, rel=0.01)
        assert original.drr_db == pytest.approx(twin.drr_db, abs=0.1)


def test_the_front_microphone_hears_the_front_first_and_the_back_one_the_back(r3vival):
    front, back = 0, 1
    for rir in r3vival:
        if rir.position.startswith(("S000", "S180")):
            peak = np.abs(rir.taps).argmax(axis=1)
            lag = peak[back] - peak[front] if rir.position.startswith("S000") else peak[front] - peak[back]
            assert lag == pytest.approx(0.1 / 343 * 16000, abs=1.5), rir.position  # the array's diameter: 10 cm


def test_a_source_farther_away_has_less_direct_sound(r3vival):
    for room in ("r3vival_000", "r3vival_050", "r3vival_100"):
        drr = {rir.position: rir.drr_db for rir in r3vival if rir.room == room}
        at = {d: np.median([v for p, v in drr.items() if p.endswith(f"-{d}")]) for d in (150, 200, 300)}
        assert at[150] > at[200] > at[300]


def test_delays_and_levels_between_microphones_survive_resampling(tmp_path):
    time = np.arange(4800)
    pulse = lambda delay: np.exp(-(((time - 600 - delay) / 12) ** 2))  # noqa: E731
    write(tmp_path / "room/a.wav", taps=np.stack([pulse(0), 0.25 * pulse(7.5)]))
    (rir,) = import_folder(tmp_path)
    places = np.arange(rir.taps.shape[1])
    centre = (np.square(rir.taps) * places).sum(axis=1) / np.square(rir.taps).sum(axis=1)
    assert centre[1] - centre[0] == pytest.approx(7.5 / 3, abs=0.01)
    assert np.abs(rir.taps[1]).max() / np.abs(rir.taps[0]).max() == pytest.approx(0.25, rel=0.02)


def test_a_folder_gives_rooms_by_folder_or_by_name_and_one_length(tmp_path):
    write(tmp_path / "kitchen/near.wav", 2, seconds=0.3)
    write(tmp_path / "kitchen/far.flac.wav", 2, 44100, seconds=0.2)
    write(tmp_path / "hall.wav", 2, 16000, seconds=0.05)
    (tmp_path / "readme.txt").write_text("not audio")
    rirs = import_folder(tmp_path)
    assert sorted((rir.room, rir.position) for rir in rirs) == [
        ("hall", "hall"),
        ("kitchen", "far.flac"),
        ("kitchen", "near"),
    ]
    assert {rir.taps.shape for rir in rirs} == {(2, 4800)}


def test_complaints_about_files_are_one_line_that_names_them(tmp_path):
    path = tmp_path / "room" / "a.wav"
    good = exponential(0.3, 0.2, np.random.default_rng(0))
    write(path, taps=np.where(np.arange(good.shape[1]) == 5, np.nan, good))
    assert "NaN" in complaint(read_response, path, 16000)
    write(path, taps=np.zeros((2, 4800)))
    assert "silent" in complaint(read_response, path, 16000)
    write(path, taps=np.zeros((1, 0)))
    assert "silent" in complaint(read_response, path, 16000)
    write(path, sample_rate=8000, seconds=22)
    assert "lasts 22 s" in complaint(import_folder, tmp_path)
    path.write_bytes(b"not audio")
    assert "cannot be read" in complaint(import_folder, tmp_path)
    write(path, 2)
    other = write(tmp_path / "room" / "b.wav", 3)
    text = complaint(import_folder, tmp_path)
    assert str(path) in text
    assert str(other) in text
    assert "2 microphones" in text
    other.unlink()
    path.rename(tmp_path / "room" / "a.txt")
    assert "1 .txt files" in complaint(import_folder, tmp_path)
    name = "RLRVarAcLab_Absorptive_000_S000-150_R1_FRL10cm"
    write(tmp_path / f"{name}.wav", 7)
    write(tmp_path / "again" / f"{name}.flac.wav".replace(".flac", ""), 7)
    assert "one response" in complaint(import_r3vival, tmp_path)


def imported(rirs) -> set[tuple[str, str]]:
    return {(rir.room, rir.position) for rir in rirs}


@pytest.mark.parametrize("kind", ["nan", "silent", "text", "cut", "empty"])
def test_a_damaged_response_is_named_and_left_out_and_the_others_are_imported(tmp_path, capsys, kind):
    for name in "abc":
        write(tmp_path / "room" / f"{name}.wav", 2)
    bad = tmp_path / "room" / "b.wav"
    taps = exponential(0.3, 0.2, np.random.default_rng(0), 2)
    taps[:, -10:] = np.nan if kind == "nan" else 0.0
    if kind in ("nan", "silent"):
        write(bad, taps=taps if kind == "nan" else 0 * taps)
    else:
        content = bad.read_bytes()
        bad.write_bytes({"text": b"no audio" * 99, "cut": content[: len(content) // 2], "empty": b""}[kind])
    assert imported(import_folder(tmp_path)) == {("room", "a"), ("room", "c")}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"left out: 1 of 3 responses cannot be used: {bad} ")


def test_without_a_good_response_the_first_fault_is_the_error(tmp_path):
    for name in "ab":
        write(tmp_path / "room" / f"{name}.wav", taps=np.zeros((2, 4800)))
    text = complaint(import_folder, tmp_path)
    assert text.startswith(f"{tmp_path / 'room' / 'a.wav'} is silent")
    assert "1 more file" in text


def test_litter_is_passed_over_links_are_followed_and_other_files_are_counted(tmp_path, capsys):
    write(tmp_path / "disk" / "far.wav", 2)
    root = tmp_path / "root"
    write(root / "hall" / "near.wav", 2)
    (root / "kitchen").symlink_to(tmp_path / "disk")
    (root / "hall" / "loop").symlink_to(root)
    for name in ("hall/._near.wav", "__MACOSX/hall/._near.wav", ".DS_Store"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0\5\x16\7")
    (root / "readme.txt").write_text("no audio")
    (root / "plan.pdf").write_text("no audio")
    assert imported(import_folder(root)) == {("hall", "near"), ("kitchen", "far")}
    assert files_in(root) == [root / "hall" / "near.wav", root / "kitchen" / "far.wav"]  # what noise folders give
    assert capsys.readouterr().err == "left out: 2 of 4 files are no responses: plan.pdf, readme.txt\n"


@pytest.mark.parametrize("condition", ["000", "X", "Y", "half_open", "050-B"])
def test_any_condition_of_r3vival_is_a_room(tmp_path, capsys, condition):
    for position in ("S000-150", "SBG1"):
        write(tmp_path / f"RLRVarAcLab_Absorptive_{condition}_{position}_R1_FRL10cm.wav", 7)
    assert imported(import_r3vival(tmp_path)) == {(f"r3vival_{condition}", p) for p in ("S000-150", "SBG1")}
    assert capsys.readouterr().err == ""


def test_what_is_no_response_of_r3vival_is_counted_and_named(tmp_path, capsys):
    for name in (
        "Absorptive_000_S000-150_R1_FRL10cm",
        "Reflective_S000-150_R1_FRL10cm",
        "Absorptive_000_S000-150_R2_FRL10cm",
    ):
        write(tmp_path / f"RLRVarAcLab_{name}.wav", 7)
    write(tmp_path / "calibration.wav", 7)
    (tmp_path / "LICENSE").write_text("text")
    places = {("r3vival_000", "S000-150"), ("r3vival_Reflective", "S000-150"), ("r3vival_000", "S000-150-R2")}
    assert imported(import_r3vival(tmp_path)) == places
    assert capsys.readouterr().err == "left out: 2 of 5 files are no responses: LICENSE, calibration.wav\n"


def test_an_unknown_room_of_ace_is_a_room_and_other_names_are_counted(ace, capsys):
    folder = ace / "ACE_Corpus_RIRN_Mobile" / "Mobile" / "Annexe" / "1"
    write(folder / "Mobile_Annexe_2_1_RIR.wav", 3, seconds=0.1)
    write(folder / "Mobile_508_near_RIR.wav", 3, seconds=0.1)
    write(folder / "Kinect_508_1_RIR.wav", 4, seconds=0.1)
    (folder / "readme.txt").write_text("text")
    found = imported(import_ace(ace))
    assert len(found) == 2 * len(ROOMS) + 2
    assert {("Annexe_2", "1"), ("Lecture_Room_1", "near")} <= found
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out: 1 of 17 files are no responses: ")
    assert line.endswith("Kinect_508_1_RIR.wav")
