"""Ray: the same results as without it, in their order, also where a worker is killed."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farfeel.corpora.scan import load_clips
from farfeel.recipe import Recipe, Simulation
from farfeel.recognise.many_machines import LoadOptions, predict_on
from farfeel.recognise.recognizer import Recognizer
from farfeel.rooms.bank import Bank
from farfeel.rooms.simulate import simulate
from farfeel.shards.prepare import prepare
from farfeel.support import pool, ray_pool
from farfeel.types import FarfeelError

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def local_cluster() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # its workers cannot import tests
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def squared(number: int) -> int:
    if number == 7:
        raise FarfeelError("seven is no number to square")
    return number**2


def dies_once(folder: Path, number: int) -> int:
    """Its process is killed the first time that it works on 2."""
    (folder / f"{number}-{len(list(folder.glob(f'{number}-*')))}").touch()
    if number == 2 and len(list(folder.glob("2-*"))) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_results_come_in_order_and_an_error_is_the_error() -> None:
    assert list(ray_pool.run_all(squared, [3, 1, 2], 2)) == list(pool.run_all(squared, [3, 1, 2], 1)) == [9, 1, 4]
    with pytest.raises(FarfeelError, match="seven is no number"):
        list(ray_pool.run_all(squared, [1, 7], 2))
    assert list(ray_pool.run_all(squared, [], 2)) == []


def test_a_killed_worker_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    assert list(ray_pool.run_all(functools.partial(dies_once, tmp_path), [0, 1, 2, 3], 2)) == [0, 1, 2, 3]
    assert len(list(tmp_path.glob("2-*"))) == 2


def test_shards_and_rooms_have_the_same_bytes(
    voices: Path, bank: Bank, small: Callable[..., Recipe], tmp_path: Path
) -> None:
    clips = load_clips("synthetic", voices)
    for name, run in (("here", pool.run_all), ("there", ray_pool.run_all)):
        prepare(clips, small(), bank, tmp_path / f"shards-{name}", [0, 2], per_shard=12, workers=1, run=run)
        simulate(3, 2, Simulation(t60_s=(0.2, 0.3)), 4, tmp_path / f"rooms-{name}", workers=1, run=run)
    assert contents(tmp_path / "shards-here") == contents(tmp_path / "shards-there")
    assert contents(tmp_path / "rooms-here") == contents(tmp_path / "rooms-there")


def test_predictions_are_the_same_to_the_bit(voices: Path, checkpoint: Path, tmp_path: Path) -> None:
    files = [clip.audio for clip in load_clips("synthetic", voices)[:18]]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound")
    files.insert(4, broken)
    here = list(Recognizer.load(checkpoint).predict_many(files))
    there = list(predict_on(ray_pool.run_all, LoadOptions((checkpoint,)), files, workers=2))
    assert len(there) == len(files)
    for ours, theirs in zip(here, there, strict=True):
        assert str(ours) == str(theirs) if isinstance(ours, FarfeelError) else ours == theirs
