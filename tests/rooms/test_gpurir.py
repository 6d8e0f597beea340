"""The contract with gpuRIR, held against a stand-in with its documented signatures: the package needs a GPU."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from farfeel.cli import main
from farfeel.recipe import Simulation
from farfeel.rooms import gpurir
from farfeel.rooms.bank import Bank
from farfeel.rooms.simulate import simulate
from farfeel.types import FarfeelError, Room

ROOM = Room((5.0, 4.0, 3.0), (1.0, 1.0, 1.5), ((3.0, 2.0, 1.2), (3.1, 2.0, 1.2), (4.0, 3.0, 1.2)), 0.5)


# ruff: noqa: N802  # the package's names


class StandIn(ModuleType):
    """Checks what it is given as the documentation asks, and answers with a direct sound and a decaying tail."""

    def beta_SabineEstimation(self, room_sz, T60, abs_weights=(1.0,) * 6):
        assert len(room_sz) == 3
        assert len(abs_weights) == 6
        volume, surface = np.prod(room_sz), 2 * sum(np.prod(room_sz) / side for side in room_sz)
        return np.full(6, np.sqrt(1 - 0.161 * volume / (surface * T60)))

    def att2t_SabineEstimator(self, att_dB, T60):
        return att_dB / 60 * T60

    def t2n(self, T, room_sz, c=343.0):
        return [int(np.ceil(2 * T * c / side)) for side in room_sz]

    def simulateRIR(self, room_sz, beta, pos_src, pos_rcv, nb_img, Tmax, fs, Tdiff=None, spkr_pattern="omni",
                    mic_pattern="omni", orV_src=None, orV_rcv=None, c=343.0):  # fmt: skip
        pos_src, pos_rcv = np.asarray(pos_src), np.asarray(pos_rcv)
        assert pos_src.ndim == pos_rcv.ndim == 2
        assert pos_src.shape[1] == pos_rcv.shape[1] == 3
        assert len(beta) == 6
        assert all(isinstance(count, int) and count > 0 for count in nb_img)
        assert 0 < Tdiff <= Tmax
        assert (np.abs(beta) < 1).all()
        samples = int(np.ceil(Tmax * fs))
        samples += samples % 2  # the package computes an even number
        rng, t = np.random.default_rng(1), np.arange(samples) / fs
        distance = np.linalg.norm(pos_src[:, None] - pos_rcv[None], axis=-1)
        absorbed = 1 - beta[0] ** 2
        volume, surface = np.prod(room_sz), 2 * sum(np.prod(room_sz) / side for side in room_sz)
        t60 = 0.161 * volume / (surface * absorbed)
        tail = rng.standard_normal((*distance.shape, samples)) * 10 ** (-3 * t / t60) * 0.003
        tail[t < distance[..., None] / c] = 0
        for source, row in enumerate(distance):
            for microphone, metres in enumerate(row):
                tail[source, microphone, round(metres / c * fs)] += 1 / (4 * np.pi * metres)
        return tail.astype(np.float32)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = StandIn("gpuRIR")
    module.__spec__ = ModuleSpec("gpuRIR", None)
    monkeypatch.setitem(sys.modules, "gpuRIR", module)


@pytest.mark.usefixtures("installed")
def test_sound_arrives_when_geometry_says() -> None:
    taps = gpurir.shoebox(ROOM, 16000, np.random.default_rng(0), 8001)
    assert taps.shape == (3, 8001)
    assert taps.dtype == np.float32
    for response, microphone in zip(taps, ROOM.mics_m, strict=True):
        metres = np.linalg.norm(np.subtract(microphone, ROOM.source_m))
        assert np.abs(response).argmax() == round(metres / 343 * 16000)


@pytest.mark.usefixtures("installed")
def test_a_bank_of_it_is_a_bank(tmp_path: Path) -> None:
    ranges = Simulation(t60_s=(0.3, 0.5))
    bank = simulate(3, 2, ranges, 1, tmp_path / "gpu", workers=1, backend="gpurir")
    assert [bank[i].t60_s for i in range(3)] == pytest.approx([bank[i].geometry.t60_s for i in range(3)], rel=0.2)
    ours = simulate(3, 2, ranges, 1, tmp_path / "ours", workers=1)
    assert [bank[i].geometry for i in range(3)] == [ours[i].geometry for i in range(3)]
    with pytest.raises(FarfeelError, match="backend gpurir, requested None"):
        simulate(3, 2, ranges, 1, tmp_path / "gpu", workers=1)


@pytest.mark.usefixtures("installed")
def test_the_command_takes_it(tmp_path: Path) -> None:
    asked = ["rooms", "simulate", "--count", "2", "--mics", "2", "--backend", "gpurir", "--out", str(tmp_path / "bank")]
    assert main(asked) == 0
    assert len(Bank.open(tmp_path / "bank")) == 2


def test_without_the_package_one_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["rooms", "simulate", "--count", "2", "--mics", "2", "--backend", "gpurir", "--out", str(tmp_path / "bank")]
    assert main(asked) == 1
    assert "--backend gpurir needs gpuRIR, which is not installed" in capsys.readouterr().err
    assert not (tmp_path / "bank").exists()
