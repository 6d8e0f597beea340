"""Laws of calibration: a temperature is found, helps others than those it was fitted on, and changes no decision."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from farfeel.corpora.scan import load_clips
from farfeel.corpora.splits import Split, split_clips
from farfeel.corpora.synthetic import generate
from farfeel.evaluate.calibrate import UNDECIDED_BELOW, calibrate, calibrate_by, card_with
from farfeel.evaluate.metrics import expected_calibration_error
from farfeel.evaluate.run import prediction_table
from farfeel.evaluate.test_set import EvaluationSet
from farfeel.models.checkpoint import in_half_precision, load_checkpoint, save_checkpoint
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import Recipe
from farfeel.recognise.engines.pytorch import TorchEngine
from farfeel.recognise.recognizer import Recognizer
from farfeel.recognise.temperature import (
    combinations_of,
    fit_temperature,
    mean_over_windows,
    negative_log_likelihood,
    tempered,
)
from farfeel.recognise.windows import Recording
from farfeel.rooms.bank import Bank
from farfeel.types import FarfeelError

Small = Callable[..., Recipe]


def drawn(
    rng: np.random.Generator, count: int, temperature: float, most_windows: int = 1
) -> tuple[list[np.ndarray], np.ndarray]:
    """Recordings' windows (W, 8) at temperature 1 whose mean at `temperature` is the very chance of each target."""
    logits = [3 * rng.standard_normal((int(rng.integers(1, most_windows + 1)), 8)) for _ in range(count)]
    windows = [tempered(np.exp(each) / np.exp(each).sum(axis=1, keepdims=True), 1.0) for each in logits]
    chances = mean_over_windows(windows, temperature)
    target = np.array([rng.choice(8, p=p) for p in chances])
    return windows, target


@pytest.mark.parametrize("most_windows", [1, 4])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 3.0])
def test_a_known_temperature_is_found_again(temperature: float, most_windows: int) -> None:
    found = fit_temperature(*drawn(np.random.default_rng(1), 8000, temperature, most_windows))
    assert found == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_it_makes_others_likelier_than_those_it_was_fitted_on(temperature: float) -> None:
    rng = np.random.default_rng(2)
    found = fit_temperature(*drawn(rng, 200, temperature, 3))
    windows, target = drawn(rng, 2000, temperature, 3)
    before, after = (negative_log_likelihood(mean_over_windows(windows, t), target) for t in (1.0, found))
    assert after < before - 0.05


def test_each_speaker_is_judged_by_the_temperature_of_the_others(small: Small) -> None:
    emotions = small().data.emotions
    people = {"modest": 0.5, "boastful": 2.0}
    found, tables = {}, []
    for person, temperature in people.items():
        windows, target = drawn(np.random.default_rng(4), 600, temperature)
        found[person] = windows, target, fit_temperature(windows, target)
        table = pd.DataFrame(np.concatenate(windows), columns=[f"q_{emotion}" for emotion in emotions])
        table = table.assign(**{f"p_{emotion}": 1 / len(emotions) for emotion in emotions}, speaker=person)
        tables.append(table.assign(clip=person, room="dry", target=[emotions[t] for t in target]))
    (first, rows, one), (second, others, two) = found.values()
    crossed = np.concatenate([mean_over_windows(first, two), mean_over_windows(second, one)])
    right = crossed.argmax(axis=1) == np.concatenate([rows, others])
    fitted = calibrate_by(EmotionModel(small()), pd.concat(tables))
    assert fitted.ece_of_others == pytest.approx(expected_calibration_error(crossed.max(axis=1), right), abs=1e-3)
    assert fitted.ece_of_others > fitted.ece[1] + 0.05
    for below, answered in zip(UNDECIDED_BELOW, fitted.answered_by_others or (), strict=True):
        sure = crossed.max(axis=1) >= below
        assert answered == pytest.approx((sure.mean(), right[sure].mean()), abs=5e-3)
    alone = calibrate_by(EmotionModel(small()), tables[0])
    assert alone.ece_of_others is None
    assert alone.answered_by_others is None


def test_tempered_probabilities_are_those_of_divided_logits_and_can_be_reversed() -> None:
    logits = torch.from_numpy(5 * np.random.default_rng(3).standard_normal((50, 8)))
    plain, divided = (torch.softmax(logits / t, dim=1).numpy() for t in (1.0, 2.5))
    np.testing.assert_allclose(tempered(plain, 2.5), divided, rtol=1e-9)
    np.testing.assert_allclose(tempered(divided, 1 / 2.5), plain, rtol=1e-9)


def test_a_certain_float32_answer_stays_a_probability() -> None:
    certain = np.array([[1.0, 0.0, 0.0]])
    for temperature in (0.2, 1.0, 5.0):
        found = tempered(certain, temperature)
        assert np.isfinite(found).all()
        assert found.sum() == pytest.approx(1)
        assert found.argmax() == 0


@pytest.mark.parametrize("modalities", ["audio", "video", "both"])
def test_combinations_are_those_whose_temperature_the_model_takes(small: Small, modalities: str) -> None:
    recipe = small(f"modalities={modalities}")
    model = EmotionModel(recipe).eval()
    mic_mask = torch.tensor([[True], [True], [False]]) if modalities == "both" else torch.ones(3, 1, dtype=torch.bool)
    with_video = (
        torch.tensor([False, True, True]) if modalities == "both" else torch.tensor([modalities == "video"] * 3)
    )
    video = recipe.video
    frames = None if modalities == "audio" else torch.rand(3, 3, video.frames, video.size, video.size)
    audio = 0.1 * torch.randn(3, 1, round(recipe.audio.seconds * recipe.audio.sample_rate))
    which = combinations_of(modalities, mic_mask.numpy(), with_video.numpy())
    with torch.inference_mode():
        plain = model.probabilities(audio, mic_mask, frames, with_video).double().numpy()
        model.temperature.copy_(torch.tensor([1.5, 2.5, 0.5]))
        found = model.probabilities(audio, mic_mask, frames, with_video).double().numpy()
    np.testing.assert_allclose(found, tempered(plain, model.temperature.double().numpy()[which]), rtol=1e-4)


def test_no_recording_of_one_window_is_decided_otherwise(split: Split, small: Small) -> None:
    torch.manual_seed(0)
    model = EmotionModel(small())
    rng = np.random.default_rng(4)
    recordings = [Recording(rng.normal(0, 0.1, (2, 9000)).astype(np.float32)) for _ in range(6)]
    before = Recognizer([TorchEngine(model)]).probabilities(recordings)
    model.temperature.fill_(3.0)
    after = Recognizer([TorchEngine(model)]).probabilities(recordings)
    assert not np.allclose(before, after)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


@pytest.fixture(scope="module")
def audiovisual(tmp_path_factory: pytest.TempPathFactory) -> Split:
    root = generate(tmp_path_factory.mktemp("audiovisual"), speakers=3, clips_per_emotion=1, seed=2)
    return split_clips(load_clips("synthetic", root), "folds-3:1")


def test_each_combination_is_fitted_on_the_very_recordings_of_its_table(
    audiovisual: Split, bank: Bank, small: Small
) -> None:
    """The likelihood that was reported is that of the evaluation's table: as it is, without video, without audio."""
    recipe = small("modalities=both")
    torch.manual_seed(0)
    model = EmotionModel(recipe)
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.mul_(20)  # far too sure
    recordings = EvaluationSet(audiovisual.val, recipe, [bank], one_room_each=True)
    fitted = calibrate(model, recordings)
    assert [each.combination for each in fitted] == ["audio alone", "video alone", "both"]
    assert [each.recordings for each in fitted] == [len(audiovisual.val)] * 3
    assert model.temperature.tolist() == pytest.approx([each.temperature for each in fitted])
    for each in fitted:
        assert each.nll[1] <= each.nll[0] + 1e-6
    table = prediction_table(Recognizer([TorchEngine(model)]), recordings)
    target = [recipe.data.emotions.index(emotion) for emotion in table["target"]]
    p = table[[f"p_{emotion}" for emotion in recipe.data.emotions]].to_numpy()
    assert negative_log_likelihood(p, np.array(target)) == pytest.approx(fitted[2].nll[1], rel=1e-4)
    q = table[[f"q_{emotion}" for emotion in recipe.data.emotions]].to_numpy()
    assert negative_log_likelihood(q, np.array(target)) == pytest.approx(fitted[2].nll[0], rel=1e-4)
    again = calibrate(model, recordings)
    assert again == fitted  # what it was calibrated to before does not matter


def test_a_recipe_of_one_modality_has_one_temperature(split: Split, small: Small) -> None:
    torch.manual_seed(0)
    model = EmotionModel(small())
    fitted = calibrate(model, EvaluationSet(split.val, small()))
    assert [each.combination for each in fitted] == ["audio alone"]
    assert model.temperature[1:].tolist() == [1, 1]


def test_a_card_has_one_calibration_the_latest(split: Split, small: Small) -> None:
    fitted = calibrate(EmotionModel(small()), EvaluationSet(split.val, small()))
    once = card_with("# A model\n\nText.\n", fitted, "these clips")
    twice = card_with(once, fitted, "other clips")
    assert once.startswith("# A model\n\nText.\n\n## Calibration\n")
    assert fitted[0].line() in once
    assert twice == once.replace("these clips", "other clips")


def test_the_command_replaces_a_checkpoint_or_writes_another(
    tmp_path: Path, voices: Path, bank: Bank, small: Small
) -> None:
    from farfeel.cli.calibrate import COMMANDS

    recipe = small()
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "best", EmotionModel(recipe).state_dict(), recipe, "# untrained\n")
    before = (tmp_path / "best" / "model.safetensors").read_bytes()
    (command,) = COMMANDS
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    words = ["--corpus", "synthetic", "--root", str(voices), "--rirs", str(bank.path), "--device", "cpu"]
    words += ["--checkpoint", str(tmp_path / "best")]
    command.run(parser.parse_args([*words, "--out", str(tmp_path / "new")]))
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == before
    command.run(parser.parse_args(words))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "new"]
    ours, theirs = (load_checkpoint(tmp_path / name) for name in ("best", "new"))
    assert torch.equal(ours.temperature, theirs.temperature)
    assert ours.temperature[0] != 1
    assert (tmp_path / "best" / "card.md").read_text() == (tmp_path / "new" / "card.md").read_text()


def test_others_predictions_calibrate_a_checkpoint_that_learned_everyone(tmp_path: Path, small: Small) -> None:
    from farfeel.cli.calibrate import COMMANDS

    recipe = small()
    torch.manual_seed(0)
    weights = in_half_precision(EmotionModel(recipe).state_dict())
    save_checkpoint(tmp_path / "best", weights, recipe, "# untrained\n")
    before = (tmp_path / "best" / "model.safetensors").stat().st_size
    windows, target = drawn(np.random.default_rng(3), 400, 2.0)
    emotions = recipe.data.emotions
    for half in (0, 1):
        rows = slice(200 * half, 200 * half + 200)
        table = pd.DataFrame(np.concatenate(windows)[rows], columns=[f"q_{emotion}" for emotion in emotions])
        for emotion in emotions:
            table[f"p_{emotion}"] = 1 / len(emotions)  # what calibration made of it then does not count
        names = [f"clip{row}" for row in range(200 * half, 200 * half + 200)]
        table = table.assign(clip=names, speaker="one", room="clean", target=[emotions[t] for t in target[rows]])
        table.to_parquet(tmp_path / f"fold{half}.parquet", index=False)
    (command,) = COMMANDS
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    words = ["--checkpoint", str(tmp_path / "best"), "--evaluations"]
    command.run(parser.parse_args([*words, f"{tmp_path}/fold0.parquet,{tmp_path}/fold1.parquet"]))
    found = load_checkpoint(tmp_path / "best").temperature
    assert found[0] == pytest.approx(fit_temperature(windows, target), rel=1e-4)
    assert found[1:].tolist() == [1, 1]
    assert (tmp_path / "best" / "model.safetensors").stat().st_size == before  # still in 16 bits
    assert "400 recordings of 1 speakers" in (tmp_path / "best" / "card.md").read_text()
    table.drop(columns=[f"q_{emotion}" for emotion in emotions]).to_parquet(tmp_path / "plain.parquet", index=False)
    with pytest.raises(FarfeelError, match="no columns q_"):
        command.run(parser.parse_args([*words, f"{tmp_path}/plain.parquet"]))
    with pytest.raises(FarfeelError, match="found both"):
        command.run(parser.parse_args([*words, f"{tmp_path}/plain.parquet", "--corpus", "ravdess"]))
