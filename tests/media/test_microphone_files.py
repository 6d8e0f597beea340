"""Laws of recordings with one file for each microphone: the same as one file with all channels."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from farfeel.media.audio import read_audio
from farfeel.media.microphone_files import files_blocks, files_info, read_files
from farfeel.types import FarfeelError

RATE = 16000


@pytest.fixture
def array() -> np.ndarray:
    """(4, T): one noise at four levels."""
    noise = np.random.default_rng(2).normal(0, 0.1, 33 * RATE + 7)
    return np.stack([noise * level for level in (1.0, 0.5, 0.25, 0.125)]).astype(np.float32)


def written(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, samples.T, rate, subtype="FLOAT")
    return path


def joined(files: list[Path]) -> np.ndarray:
    return np.concatenate(list(files_blocks(files)), axis=1)


def test_files_are_the_channels_of_one_file_in_their_order(tmp_path: Path, array: np.ndarray) -> None:
    whole = written(tmp_path / "whole.wav", array)
    parts = [written(tmp_path / f"{n}.wav", array[rows]) for n, rows in enumerate(([2], [0, 3], [1]))]
    expected = read_audio(whole, RATE)[[2, 0, 3, 1]]
    samples, notes = read_files(parts, RATE)
    assert notes == []
    np.testing.assert_array_equal(samples, expected)
    np.testing.assert_array_equal(joined(parts), expected)
    np.testing.assert_array_equal(read_files(parts, RATE, 1.5, 2.25)[0], expected[:, 24000:36000])
    info, notes = files_info(parts)
    assert (info.channels, info.sample_rate, info.seconds, notes) == (4, RATE, pytest.approx(33 + 7 / RATE), [])


def test_one_file_is_read_as_it_is(tmp_path: Path, array: np.ndarray) -> None:
    whole = written(tmp_path / "whole.wav", array)
    np.testing.assert_array_equal(read_files([whole], 8000)[0], read_audio(whole, 8000))
    np.testing.assert_array_equal(joined([whole]), array)


def test_files_of_different_sample_rates_become_one_rate_and_stay_in_time(tmp_path: Path) -> None:
    moments = (1.25, 12.5, 24.75)
    files = []
    for rate in (16000, 48000, 44100):
        time_s = np.arange(26 * rate) / rate
        pulses = sum(np.exp(-(((time_s - moment) / 0.002) ** 2)) for moment in moments)
        files.append(written(tmp_path / f"{rate}.wav", 0.5 * pulses[None].astype(np.float32), rate))
    at_48_khz, at_16_khz = joined(files), read_files(files, 16000)[0]
    assert files_info(files)[0].sample_rate == 48000
    for samples, rate in ((at_48_khz, 48000), (at_16_khz, 16000)):
        assert samples.shape == (3, pytest.approx(26 * rate, abs=2))
        for moment in moments:
            start = round((moment - 0.5) * rate)
            peaks = samples[:, start : start + rate].argmax(axis=1)
            assert np.ptp(peaks) <= 1


@pytest.mark.parametrize("missing_s", [0.1, 0.4, 2.0])
def test_a_file_that_ends_a_little_early_is_continued_with_silence_and_named(
    tmp_path: Path, array: np.ndarray, missing_s: float
) -> None:
    kept = array.shape[1] - round(missing_s * RATE)
    files = [written(tmp_path / "a.wav", array[:1]), written(tmp_path / "b.wav", array[1:2, :kept])]
    samples, notes = read_files(files, RATE)
    assert notes == [f"{files[1]} ends {missing_s:.2f} s before {files[0]}; it is continued with silence"]
    np.testing.assert_array_equal(samples[0], array[0])
    np.testing.assert_array_equal(samples[1, :kept], array[1, :kept])
    assert not samples[1, kept:].any()
    np.testing.assert_array_equal(joined(files), samples)
    assert files_info(files)[1] == notes


@pytest.mark.parametrize("share", [0.1, 0.5, 0.88])
def test_very_different_lengths_are_different_recordings(tmp_path: Path, array: np.ndarray, share: float) -> None:
    files = [written(tmp_path / "a.wav", array[:1]), written(tmp_path / "b.wav", array[1:2, : int(33 * share) * RATE])]
    for read in (files_info, joined, lambda both: read_files(both, RATE)):
        with pytest.raises(FarfeelError, match=r"a\.wav lasts 33\.0 s, .*b\.wav .* expected the same length"):
            read(files)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_dead_microphone_among_several_files_is_zeros(tmp_path: Path, array: np.ndarray, value: float) -> None:
    dead = array[1:2].copy()
    dead[:, 1000 if value else 0 :] = value
    files = [written(tmp_path / "a.wav", array[:1]), written(tmp_path / "dead.wav", dead)]
    samples, notes = read_files(files, RATE)
    assert not samples[1].any()
    np.testing.assert_array_equal(samples[0], array[0])
    assert notes == ([] if value == 0 else [f"{files[1]} contains NaN or infinite samples; it is left out"])


def test_a_file_that_is_not_there_is_named(tmp_path: Path, array: np.ndarray) -> None:
    files = [written(tmp_path / "a.wav", array[:1]), tmp_path / "nosuch.wav"]
    for read in (files_info, joined, lambda both: read_files(both, RATE)):
        with pytest.raises(FarfeelError, match=r"nosuch\.wav does not exist"):
            read(files)
