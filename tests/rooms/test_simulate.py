import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from generated import SAMPLE_RATE, some_rirs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfilt

from farfeel.recipe import Simulation
from farfeel.rooms.acoustics import onset
from farfeel.rooms.bank import Bank, write_bank
from farfeel.rooms.simulate import SABINE, draw_room, furnished_rir, longest_response, simulate, simulate_rir
from farfeel.types import FarfeelError, Room

SMALL = Simulation(t60_s=(0.2, 0.4), distance_m=(0.5, 2.0))
FILES = ("taps.npy", "rirs.parquet", "parameters.json")


@given(
    seed=st.integers(0, 2**32),
    mics=st.integers(1, 8),
    array=st.sampled_from(["free", "linear", "circular"]),
    radius_m=st.floats(0.01, 0.6),
    distance_m=st.floats(0.3, 3.0),
    longest_s=st.floats(0.3, 1.5),
)
@settings(max_examples=60)
def test_a_drawn_room_keeps_every_range(seed, mics, array, radius_m, distance_m, longest_s):
    ranges = Simulation(
        array=array, array_radius_m=(0.01, radius_m), distance_m=(0.3, distance_m), t60_s=(0.1, longest_s)
    )
    room = draw_room(ranges, mics, np.random.default_rng(seed))
    size, source, at = np.array(room.size_m), np.array(room.source_m), np.array(room.mics_m)
    for side, allowed in zip(size, (ranges.width_m, ranges.length_m, ranges.height_m), strict=True):
        assert allowed[0] <= side <= allowed[1]
    for point in (source, *at):
        assert (point >= ranges.wall_margin_m - 1e-9).all()
        assert (point <= size - ranges.wall_margin_m + 1e-9).all()
    assert ranges.source_height_m[0] <= source[2] <= ranges.source_height_m[1]
    surface = 2 * (size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    assert 0.1 <= room.t60_s <= longest_s
    assert SABINE * size.prod() / (surface * room.t60_s) <= 1 + 1e-9
    assert at.shape == (mics, 3)
    distances = np.linalg.norm(at - source, axis=1)
    assert (distances >= 0.3 - 1e-9 - radius_m).all()
    assert (distances <= distance_m + radius_m + 1e-9).all()


def test_arrays_have_their_shape():
    def array(shape: str, mics: int) -> np.ndarray:
        ranges = Simulation(array=shape, array_radius_m=(0.2, 0.2))
        return np.array(draw_room(ranges, mics, np.random.default_rng(3)).mics_m)

    steps = np.diff(array("linear", 5), axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 0.1)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-9)
    ring = array("circular", 6)
    np.testing.assert_allclose(np.linalg.norm(ring - ring.mean(axis=0), axis=1), 0.2)
    np.testing.assert_allclose(ring[:, 2], ring[0, 2])


@pytest.mark.parametrize(
    ("ranges", "named"),
    [
        ({"distance_m": (30, 40)}, "distance_m"),
        ({"wall_margin_m": 2.0}, "wall_margin_m"),
        ({"t60_s": (0.01, 0.02)}, "t60_s"),
    ],
)
def test_ranges_that_cannot_be_met_are_named(ranges, named):
    with pytest.raises(FarfeelError, match=named) as error:
        draw_room(Simulation(**ranges), 2, np.random.default_rng(0))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def responses():
    """Forty rooms as `rooms simulate` draws them."""
    rooms = [draw_room(Simulation(), 3, np.random.default_rng((5, index))) for index in range(40)]
    return [simulate_rir(room, SAMPLE_RATE, np.random.default_rng(index)) for index, room in enumerate(rooms)]


def test_the_measured_t60_is_the_asked_one(responses):
    ratio = np.array([rir.t60_s / rir.geometry.t60_s for rir in responses])
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    assert np.quantile(np.abs(ratio - 1), 0.9) < 0.15


def furnished(**ranges):
    """Twenty rooms with what a plain shoebox does not have."""
    ranges = Simulation(t60_s=(0.4, 0.8), **ranges)
    rngs = [[np.random.default_rng((index, use)) for use in range(3)] for index in range(20)]
    return [
        furnished_rir(draw_room(ranges, 2, draw), ranges, longest_response(ranges), walls, field)
        for draw, walls, field in rngs
    ]


def test_octaves_decay_as_asked():
    def decay_s(rir, centre_hz):
        """T60 from the octave's energies around 120 and 200 ms."""
        edges_hz = [centre_hz / 2**0.25, centre_hz * 2**0.25]
        energy = np.square(sosfilt(butter(4, edges_hz, "band", fs=SAMPLE_RATE, output="sos"), rir.taps)).sum(axis=0)
        early, late = (energy[round(t * SAMPLE_RATE) :][: round(0.06 * SAMPLE_RATE)].sum() for t in (0.12, 0.2))
        return 60 * 0.08 / (10 * np.log10(early / late))

    rirs = furnished(t60_low=(1.4, 1.4), t60_high=(0.5, 0.5))
    for centre_hz, factor in ((250, 1.27), (1000, 1.0), (4000, 0.67)):
        ratios = [decay_s(rir, centre_hz) / rir.geometry.t60_s for rir in rirs]
        assert np.median(ratios) == pytest.approx(factor, rel=0.15)
    plain = furnished()
    assert np.median([rir.t60_s / rir.geometry.t60_s for rir in plain]) == pytest.approx(1, abs=0.05)


def test_a_talker_who_faces_the_microphones_is_more_direct():
    turned, facing = (np.array([rir.drr_db for rir in furnished(facing_db=(gain, gain))]) for gain in (0, 6))
    assert facing - turned == pytest.approx(6, abs=0.5)


def test_sound_arrives_when_geometry_says_and_falls_with_distance(responses):
    for rir in responses:
        distance_m = np.linalg.norm(np.array(rir.geometry.mics_m) - rir.geometry.source_m, axis=1)
        expected = distance_m / 343 * SAMPLE_RATE
        for taps, tap, metres in zip(rir.taps, expected, distance_m, strict=True):
            around = taps[int(tap) - 1 : int(tap) + 3]
            assert np.abs(around).max() == np.abs(taps[: int(tap) + 8]).max()  # nothing louder until 0.5 ms later
            # A sample between two taps still shows 64 % of its height (sinc 1/2) or more.
            assert 0.6 / metres < np.abs(around).max() < 1.5 / metres
        assert onset(rir.taps) <= expected.min() + 1


def test_a_nearer_microphone_hears_earlier_and_louder():
    room = Room((5.0, 6.0, 3.0), (1.0, 2.2, 1.6), ((1.5, 2.2, 1.6), (4.0, 2.2, 1.6)), 0.5)
    rir = simulate_rir(room, SAMPLE_RATE, np.random.default_rng(0))
    lag = onset(rir.taps[1]) - onset(rir.taps[0])
    assert lag == pytest.approx(2.5 / 343 * SAMPLE_RATE, abs=4)
    assert np.square(rir.taps[0]).sum() > 2 * np.square(rir.taps[1]).sum()


def test_late_reverberation_is_as_alike_at_two_microphones_as_a_diffuse_field():
    apart_m = (0.0, 0.05, 0.3)
    room = Room((5.0, 6.0, 3.0), (1.0, 3.0, 1.5), tuple((3.0 + d, 3.0, 1.5) for d in apart_m), 0.6)
    late = np.stack([simulate_rir(room, SAMPLE_RATE, np.random.default_rng(k)).taps[:, 2000:] for k in range(12)])
    spectrum = np.fft.rfft(late)
    frequency_hz = np.fft.rfftfreq(late.shape[-1], 1 / SAMPLE_RATE)
    band = (frequency_hz > 950) & (frequency_hz < 1050)
    cross = np.einsum("kif,kjf->ij", spectrum[..., band], spectrum[..., band].conj()).real
    coherence = cross / np.sqrt(np.outer(cross.diagonal(), cross.diagonal()))
    np.testing.assert_allclose(coherence[0], np.sinc(2 * 1000 * np.array(apart_m) / 343), atol=0.1)


def test_early_and_late_parts_meet_without_a_step(responses):
    at, block = round(0.09 * SAMPLE_RATE), round(0.03 * SAMPLE_RATE)
    steps_db, decay_db = [], []
    for rir in responses:
        energy = np.square(rir.taps, dtype=np.float64).sum(axis=0)
        steps_db.append(10 * np.log10(energy[at : at + block].sum() / energy[at - block : at].sum()))
        decay_db.append(-60 * block / SAMPLE_RATE / rir.geometry.t60_s)
    assert np.median(np.subtract(steps_db, decay_db)) == pytest.approx(0, abs=1)


def same_bytes(a, b) -> bool:
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in FILES)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A bank of 12 simulated by one process without interruption."""
    path = tmp_path_factory.mktemp("undisturbed") / "bank"
    simulate(12, 2, SMALL, 7, path, workers=1)
    return path


def test_a_simulated_bank_has_rooms_of_its_ranges(undisturbed):
    bank = Bank.open(undisturbed)
    assert bank.rooms == tuple(f"sim_{index:04d}" for index in range(12))
    assert (bank.mics, bank.sample_rate) == (2, 16000)
    assert list(undisturbed.parent.iterdir()) == [undisturbed]  # nothing is left beside it
    for rir in bank:
        assert 0.2 <= rir.geometry.t60_s <= 0.4
        assert rir.t60_s == pytest.approx(rir.geometry.t60_s, rel=0.5)
        assert rir.origin == "simulated"


def test_the_number_of_workers_does_not_matter_and_progress_counts_up(undisturbed, tmp_path):
    seen = []
    simulate(12, 2, SMALL, 7, tmp_path / "bank", workers=2, on_progress=lambda done, count: seen.append((done, count)))
    assert same_bytes(tmp_path / "bank", undisturbed)
    assert seen == [(done, 12) for done in range(1, 13)]


def test_a_bank_killed_part_way_resumes_to_the_same_bytes(undisturbed, tmp_path):
    out, waiting = tmp_path / "bank", tmp_path / ".bank.partial"
    code = (
        "from pathlib import Path; from farfeel.recipe import Simulation; from farfeel.rooms.simulate import simulate;"
        f"simulate(5000, 2, Simulation.model_validate({SMALL.model_dump()!r}), 7, Path({str(out)!r}), workers=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while len(list(waiting.glob("*.npz"))) < 3:
            assert time.monotonic() < deadline, "no response came"
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while group_lives(process.pid):  # its workers end with it
        assert time.monotonic() < deadline, "workers outlive the process that was killed"
        time.sleep(0.05)
    assert not out.exists()
    (waiting / ".000011.npz.1.partial").write_bytes(b"half a response")
    kept = len([path for path in waiting.glob("*.npz") if path.stem < "000012"])
    seen = []
    simulate(12, 2, SMALL, 7, out, workers=1, on_progress=lambda done, count: seen.append(done))
    assert seen == list(range(kept + 1, 13))
    assert same_bytes(out, undisturbed)
    assert list(tmp_path.iterdir()) == [out]


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_responses_follow_from_seed_and_index_whatever_the_count(undisturbed, tmp_path):
    few = simulate(3, 2, SMALL, 7, tmp_path / "few", workers=1)
    other = simulate(3, 2, SMALL, 8, tmp_path / "other", workers=1)
    whole = Bank.open(undisturbed)
    for index in range(3):
        np.testing.assert_array_equal(few.taps(index), whole.taps(index))
        assert np.abs(other.taps(index) - whole.taps(index)).max() > 0.01


def test_a_finished_bank_is_returned_and_other_parameters_are_refused(undisturbed):
    before = {name: (undisturbed / name).stat().st_mtime_ns for name in FILES}
    assert len(simulate(12, 2, SMALL, 7, undisturbed)) == 12
    for count, mics, ranges, seed, named in [
        (13, 2, SMALL, 7, "count 12, requested 13"),
        (12, 3, SMALL, 7, "mics 2, requested 3"),
        (12, 2, SMALL, 8, "seed 7, requested 8"),
        (12, 2, Simulation(), 7, "t60_s"),
    ]:
        with pytest.raises(FarfeelError, match=named) as error:
            simulate(count, mics, ranges, seed, undisturbed)
        assert "\n" not in str(error.value)
    assert before == {name: (undisturbed / name).stat().st_mtime_ns for name in FILES}


def test_an_interrupted_bank_is_not_mixed_with_another(tmp_path):
    class StopError(Exception):
        pass

    def stop(done: int, count: int) -> None:
        if done == 2:
            raise StopError

    with pytest.raises(StopError):
        simulate(4, 1, SMALL, 1, tmp_path / "bank", workers=1, on_progress=stop)
    with pytest.raises(FarfeelError, match="seed 1, requested 2"):
        simulate(4, 1, SMALL, 2, tmp_path / "bank", workers=1)
    # Without its record nobody knows whose the responses are: they are not used.
    (tmp_path / ".bank.partial" / "parameters.json").unlink()
    bank = simulate(4, 1, SMALL, 2, tmp_path / "bank", workers=1)
    assert json.loads((tmp_path / "bank" / "parameters.json").read_text())["seed"] == 2
    np.testing.assert_array_equal(bank.taps(0), simulate(1, 1, SMALL, 2, tmp_path / "again", workers=1).taps(0))


def test_only_a_simulated_bank_may_be_taken_for_one(tmp_path):
    write_bank(tmp_path / "measured", some_rirs())
    with pytest.raises(FarfeelError, match="none are recorded"):
        simulate(3, 2, SMALL, 1, tmp_path / "measured")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(FarfeelError, match=r"chapter\.tex"):
        simulate(3, 2, SMALL, 1, tmp_path / "thesis")


def test_places_of_one_room_share_all_but_the_source(tmp_path):
    ranges = SMALL.model_copy(update={"sources_per_room": 3})
    bank = simulate(6, 2, ranges, 1, tmp_path / "bank", workers=1)
    assert bank.rooms == ("sim_0000", "sim_0001")
    for room in bank.rooms:
        places = [bank[int(index)] for index in bank.indices(room)]
        assert [rir.position for rir in places] == ["0", "1", "2"]
        assert len({(rir.geometry.size_m, rir.geometry.mics_m, rir.geometry.t60_s) for rir in places}) == 1
        assert len({rir.geometry.source_m for rir in places}) == 3
        assert len({rir.taps.tobytes() for rir in places}) == 3
