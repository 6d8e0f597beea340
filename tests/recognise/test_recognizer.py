"""Laws of recognition: a file, its samples and its test row agree; silent microphones are left out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from farfeel.corpora.splits import Split
from farfeel.evaluate.run import prediction_table
from farfeel.evaluate.table import checked
from farfeel.evaluate.test_set import EvaluationSet
from farfeel.recipe import Recipe
from farfeel.recognise.engines.pytorch import TorchEngine
from farfeel.recognise.recognizer import Recognizer
from farfeel.recognise.windows import Recording
from farfeel.rooms.bank import Bank
from farfeel.types import FarfeelError
from untrained import make

Small = Callable[..., Recipe]


@pytest.fixture(params=["none", "mvdr", "wpe"])
def recognizer(small: Small, request: pytest.FixtureRequest) -> Recognizer:
    return make(small(f"microphones.front_end={request.param}"))


def test_a_row_of_the_table_equals_the_prediction_of_that_recording_as_a_file(
    tmp_path: Path, split: Split, bank: Bank, small: Small, recognizer: Recognizer
) -> None:
    recordings = EvaluationSet(split.test, small(), [bank])
    table = checked(prediction_table(recognizer, recordings), "table")
    assert len(table) == len(split.test) * len(bank.rooms)
    for index in (0, 7):
        item = recordings[index]
        soundfile.write(tmp_path / "recorded.wav", item.recording.audio.T, 16000, subtype="FLOAT")
        prediction = recognizer.predict(tmp_path / "recorded.wav")
        row = table.iloc[index]
        assert (row["clip"], row["room"]) == (item.clip.id, item.room)
        columns = [f"p_{emotion}" for emotion in prediction.emotions]
        np.testing.assert_allclose(row[columns].astype(float), prediction.probabilities, atol=1e-6)


def test_probabilities_do_not_depend_on_the_others_in_the_batch(recognizer: Recognizer) -> None:
    rng = np.random.default_rng(1)
    sizes = ((1, 9000), (3, 50000), (3, 20000))
    recordings = [Recording(rng.normal(0, 0.1, size).astype(np.float32)) for size in sizes]
    together = recognizer.probabilities(recordings)
    for recording, expected in zip(recordings, together, strict=True):
        (alone,) = recognizer.probabilities([recording])
        np.testing.assert_allclose(alone, expected, atol=1e-5)
    assert all(p.sum() == pytest.approx(1.0) for p in together)


def test_an_ensemble_is_the_mean_of_its_members(small: Small) -> None:
    audio = np.random.default_rng(1).normal(0, 0.1, (2, 30000)).astype(np.float32)
    first, second = (Recognizer([engine]) for engine in make(small(), small()).engines)
    (mean,) = make(small(), small()).probabilities([Recording(audio)])
    each = [one.probabilities([Recording(audio)])[0] for one in (first, second)]
    np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-6)


def test_a_silent_channel_is_left_out_with_a_warning(recognizer: Recognizer) -> None:
    audio = np.random.default_rng(1).normal(0, 0.1, (3, 30000)).astype(np.float32)
    audio[1] = 0
    prediction = recognizer.predict_audio(audio)
    np.testing.assert_allclose(
        prediction.probabilities, recognizer.predict_audio(audio[[0, 2]]).probabilities, atol=1e-6
    )
    assert prediction.microphones == 2
    assert prediction.warnings == ("microphone 1 is silent and left out",)


def test_summed_patches_need_the_number_they_were_trained_with(small: Small) -> None:
    summing = make(small("microphones.strategy=sum-patches"))
    audio = np.random.default_rng(1).normal(0, 0.1, (2, 30000)).astype(np.float32)
    with pytest.raises(FarfeelError, match="has 2 channels, the checkpoint takes 3 microphones"):
        summing.predict_audio(audio, what="clip.wav")
    assert summing.predict_audio(audio, mics=[0, 1]).microphones == 2  # microphones that are chosen by number are used


def test_a_single_microphone_model_takes_the_first_with_a_warning(small: Small) -> None:
    single = make(small("microphones.strategy=single", "microphones.count=1"))
    audio = np.random.default_rng(1).normal(0, 0.1, (3, 30000)).astype(np.float32)
    prediction = single.predict_audio(audio)
    np.testing.assert_allclose(prediction.probabilities, single.predict_audio(audio[:1]).probabilities)
    assert "1 of 3 microphones used" in prediction.warnings[0]


def test_bfloat16_stays_near_float32(small: Small) -> None:
    model = make(small()).engines[0].model
    audio = np.random.default_rng(1).normal(0, 0.1, (7, 64000)).astype(np.float32)
    exact, rounded = (Recognizer([TorchEngine(model, precision=p)]).predict_audio(audio) for p in ("32", "bf16"))
    np.testing.assert_allclose(exact.probabilities, rounded.probabilities, atol=0.02)


def test_an_ensemble_of_different_emotions_is_one_clear_line(small: Small) -> None:
    with pytest.raises(FarfeelError, match="different emotions"):
        make(small(), small("data.emotions=[happy, sad]"))


@pytest.mark.parametrize("front_end", ["mvdr", "wpe"])
def test_the_front_end_is_that_of_the_checkpoint_or_the_chosen_one(small: Small, front_end: str) -> None:
    plain = make(small())
    audio = np.random.default_rng(1).normal(0, 0.1, (1, 2, 16000)).repeat(2, axis=0).astype(np.float32)
    audio[:, :, 8000:] *= 5
    recordings = [Recording(each) for each in audio]
    other = Recognizer(plain.engines, front_end=front_end)
    own = Recognizer(make(small(f"microphones.front_end={front_end}")).engines)
    assert not np.allclose(other.probabilities(recordings), plain.probabilities(recordings), atol=1e-6)
    np.testing.assert_array_equal(other.probabilities(recordings), own.probabilities(recordings))
    with pytest.raises(FarfeelError, match="front_end"):
        Recognizer(plain.engines, front_end="magic")
