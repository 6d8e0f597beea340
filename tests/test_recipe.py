"""Laws of recipes: YAML and back is the identity, and no setting is ever silently ignored."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from farfeel.cli import main
from farfeel.models.emotion import EmotionModel
from farfeel.recipe import RANGES, Recipe, Section, choices, describe, load_recipe, recipe_names, save_recipe
from farfeel.types import EMOTIONS, FarfeelError

SETTINGS = sorted(key for key, _, _ in describe())
LETTERS = "abcdefghijklmnopqrstuvwxyz_"


def value_of(recipe: Recipe, setting: str) -> Any:
    found: Any = recipe
    for name in setting.split("."):
        found = getattr(found, name)
    return found


def ranges() -> list[str]:
    sections: dict[str, type[Section]] = {
        name: type(field.default) for name, field in Recipe.model_fields.items() if isinstance(field.default, Section)
    }
    fields = [(f"{name}.{key}", f) for name, section in sections.items() for key, f in section.model_fields.items()]
    return [setting for setting, field in fields if field.annotation in RANGES]


@st.composite
def mistyped(draw: st.DrawFn) -> tuple[str, str]:
    """A setting, and the same with one letter wrong, absent, too many or changed with its neighbour."""
    setting = draw(st.sampled_from(SETTINGS))
    place = draw(st.sampled_from([i for i, letter in enumerate(setting) if letter != "."]))
    letter = draw(st.sampled_from(LETTERS))
    wrong = draw(
        st.sampled_from(
            [
                setting[:place] + letter + setting[place + 1 :],
                setting[:place] + setting[place + 1 :],
                setting[:place] + letter + setting[place:],
                setting[: place - 1] + setting[place] + setting[place - 1] + setting[place + 1 :]
                if place
                else letter + setting,
            ]
        )
    )
    assume(wrong not in SETTINGS and all(wrong.split(".")))
    return setting, wrong


def nested(key: str, value: Any) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def complaint(*overrides: str, recipe: str | Path = "tiny") -> str:
    with pytest.raises(FarfeelError) as raised:
        load_recipe(recipe, overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_yaml_gives_it_back(tmp_path: Path, name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    save_recipe(recipe, tmp_path / "saved.yaml")
    assert load_recipe(tmp_path / "saved.yaml") == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_a_printed_recipe_is_that_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["recipe", name, "train.epochs=7"]) == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert load_recipe(tmp_path / "printed.yaml") == load_recipe(name, ["train.epochs=7"])


@pytest.mark.parametrize("name", ["tiny", "default", "paper-sum-pe"])
def test_a_shipped_recipe_builds_its_model(name: str) -> None:
    model = EmotionModel(load_recipe(name))
    assert sum(p.numel() for p in model.parameters()) > 0


def test_the_model_of_the_paper_has_the_size_of_the_reference() -> None:
    first, *others = [load_recipe(name).model for name in recipe_names() if name.startswith("paper-")]
    assert all(other == first for other in others)  # its strategies differ in the microphones, not in the network
    parameters = sum(p.numel() for p in EmotionModel(load_recipe("paper-single")).parameters())
    assert 27e6 < parameters < 31e6


def test_the_settings_that_are_listed_typed_as_listed_are_the_default_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe"]) == 0
    listed = [line.strip() for line in capsys.readouterr().out.splitlines() if " = " in line and line[2] != " "]
    assert sorted(line.partition(" = ")[0] for line in listed) == SETTINGS
    assert set(SETTINGS) >= {f"train.{name}" for name in Recipe().model_dump()["train"]} | {"name", "seed"}
    (tmp_path / "empty.yaml").write_text("")
    assert load_recipe(tmp_path / "empty.yaml", [line.replace(" = ", "=") for line in listed]) == Recipe()


@given(typo=mistyped())
def test_a_mistyped_setting_is_never_ignored(tmp_path_factory: pytest.TempPathFactory, typo: tuple[str, str]) -> None:
    setting, wrong = typo
    default = {key: default for key, default, _ in describe()}[setting]
    message = complaint(f"{wrong}={default}")
    assert "unknown key" in message or "not a section" in message
    file = tmp_path_factory.mktemp("recipes") / "mine.yaml"
    file.write_text(yaml.safe_dump(nested(wrong, 1)))
    assert str(file) in complaint(recipe=file)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("train.epohcs", "train.epochs"),
        ("augmnet.mixup", "augment.mixup"),
        ("augment.mixpu", "augment.mixup"),
        ("epochs", "train.epochs"),
        ("t60_s", "simulation.t60_s"),
        ("model.mel_bands", "audio.mel_bands"),
        ("TRAIN.Epochs", "train.epochs"),
        ("microphone.count", "microphones.count"),
    ],
)
def test_a_mistyped_setting_is_told_the_right_one(tmp_path: Path, wrong: str, meant: str) -> None:
    expected = f"unknown key {wrong}; did you mean {meant}?"
    assert expected in complaint(f"{wrong}=1")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(nested(wrong, 1)))
    assert expected in complaint(recipe=tmp_path / "mine.yaml")


@given(setting=st.sampled_from(ranges()), ends=st.tuples(st.floats(0, 100), st.floats(0, 100)))
def test_a_range_ascends(setting: str, ends: tuple[float, float]) -> None:
    low, high = sorted(ends)
    assert value_of(load_recipe("tiny", [f"{setting}=[{low}, {high}]"]), setting) == (low, high)
    if low < high:
        assert "expected a range with its lower end first" in complaint(f"{setting}=[{high}, {low}]")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs=many", "train.epochs is 'many', expected a whole number"),
        ("train.epochs=1.5", "train.epochs is 1.5, expected a whole number"),
        ("train.epochs=0", "train.epochs is 0, expected greater than or equal to 1"),
        ("model.frequency_norm=much", "model.frequency_norm is 'much', expected a number"),
        ("model.frequency_norm=[0,0.1]", "frequency_norm has 2 numbers, expected one or as many as members"),
        ("train.learning_rate=fast", "train.learning_rate is 'fast', expected a number"),
        ("train.learning_rate=.nan", "train.learning_rate is nan, expected a finite number"),
        ("train.learning_rate=.inf", "train.learning_rate is inf, expected a finite number"),
        ("train=5", "train is 5, expected a section with keys"),
        ("simulation.t60_s=[1]", "simulation.t60_s is [1], expected two numbers"),
        ("simulation.t60_s=[1, 2, 3]", "simulation.t60_s is [1, 2, 3], expected two numbers"),
        ("simulation.t60_s=1", "simulation.t60_s is 1, expected a list in brackets"),
        ("simulation.width_m=[-3, 3]", "simulation.width_m is -3, expected greater than or equal to 0"),
        (
            "microphones.strategy=sum",
            "microphones.strategy is 'sum', expected one of average-mels, normalised-sum, single, sum-patches",
        ),
        ("rooms.noise=[pink]", "rooms.noise is 'pink', expected one of babble, fan, recorded, white"),
        ("rooms.noise=[]", "rooms.noise is [], expected one or more"),
        ("name=5", "name is 5, expected text"),
        ("seed=-1", "seed is -1, expected greater than or equal to 0"),
        ("data.emotions=[happy, glad]", "emotions are happy, glad, expected two or more different ones of neutral"),
        ("data.emotions=[happy]", "emotions are happy, expected two or more"),
        ("data.emotions=[happy, happy]", "emotions are happy, happy, expected two or more different"),
        ("audio.fmax_hz=10", "fmin_hz is 50, expected less than 10 Hz"),
        ("audio.fmin_hz=9000", "fmin_hz is 9000, expected less than 8000 Hz"),
        ("audio.n_fft=100000", "n_fft is 100000, the window has"),
        ("audio.sample_rate=10", "audio.sample_rate is 10, expected greater than or equal to 8000"),
        ("model.heads=[4]", "heads [4], expected one number per stage"),
        ("model.heads=[64, 64]", "heads are [64, 64], expected at most the widths of the stages"),
        ("model.depths=[1, 0]", "model.depths is 0, expected greater than or equal to 1"),
        ("train.epochs", "override 'train.epochs' is not of the form section.key=value"),
        ("=5", "override '=5' is not of the form"),
        ("train.=5", "override 'train.=5' is not of the form"),
        ("train.epochs.x=5", "epochs is 15, not a section; did you mean train.epochs?"),
        ("train.epochs=[:", "'[:' is not a YAML value; quote it"),
        ("train={epochs: 3, epochs: 4}", "is not a YAML value"),
    ],
)
def test_a_wrong_value_is_one_line_with_what_was_found_and_expected(override: str, said: str) -> None:
    assert said in complaint("train.epochs=15", override)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("train: {epochs: 3}\ntrain: {batch_size: 2}", "train stands there twice"),
        ("train: {epochs: 3, epochs: 4}", "epochs stands there twice"),
        ("- train", "holds a list, expected sections with keys"),
        ("train: [", "is not YAML"),
        ("train:", "train is None, expected a section with keys"),
        ("1: 2", "is 1, expected a key in letters"),
        ("train: !!python/object/apply:os.system ['true']", "is not YAML"),
        ("\0", "is not YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_line_that_names_it(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    message = complaint(recipe=file)
    assert message.startswith(str(file))
    assert said in message


def test_an_unknown_recipe_is_told_the_nearest_name() -> None:
    assert "did you mean tiny?" in complaint(recipe="tinny")
    assert "neither a file nor one of default" in complaint(recipe="nosuch/recipe.yaml")


def test_what_a_file_does_not_name_keeps_its_default(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("train: {epochs: 3}")
    assert load_recipe(tmp_path / "mine.yaml") == load_recipe(tmp_path / "mine.yaml", ["train.epochs=3"])
    assert load_recipe(tmp_path / "mine.yaml").model_copy(update={"train": Recipe().train}) == Recipe()
    (tmp_path / "empty.yaml").write_text("")
    assert load_recipe(tmp_path / "empty.yaml") == Recipe()


def test_the_last_override_wins_and_dotted_numbers_are_numbers() -> None:
    recipe = load_recipe(
        "tiny", ["train.epochs=3", "train.epochs=4", "train.learning_rate=1e-4", "data.split=folds-6:2"]
    )
    assert (recipe.train.epochs, recipe.train.learning_rate, recipe.data.split) == (4, 1e-4, "folds-6:2")


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("tiny").train.epochs = 3  # type: ignore[misc]


def test_emotions_keep_the_order_of_the_recipe() -> None:
    assert load_recipe("tiny", ["data.emotions=[sad, happy]"]).data.emotions == ("sad", "happy")
    assert load_recipe("tiny").data.emotions == EMOTIONS


def test_every_setting_with_choices_is_listed_with_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe"]) == 0
    entries = capsys.readouterr().out.split("settings and their defaults:")[1].split("\n  ")[1:]
    listed: dict[str, str] = {}
    for entry in entries:
        if " = " in entry.splitlines()[0] and not entry.startswith(" "):
            key = entry.partition(" = ")[0].strip()
            listed[key] = ""
        listed[key] += entry + "\n"
    for key, values in choices().items():
        for value, meaning in values.items():
            assert (f"- {value}: {meaning}" if meaning else value) in listed[key], (key, value)
    expected = {"train.optimizer": {"adamw", "adam"}, "model.patch": {"2", "4", "8", "16"}}
    assert {key: set(choices()[key]) for key in expected} == expected


@pytest.mark.parametrize("key", choices())
def test_the_choices_are_what_a_recipe_takes(key: str) -> None:
    default = {key: default for key, default, _ in describe()}[key]
    in_list = default.startswith("[")
    more = {"rooms.noise": ["rooms.noise_folder=x"]}.get(key, [])
    for value in choices()[key]:
        chosen = value_of(load_recipe("tiny", [*more, f"{key}={[value] if in_list else value}"]), key)
        assert str(chosen[0] if in_list else chosen) == value
    assert "expected" in complaint(f"{key}={['nonsense'] if in_list else 'nonsense'}")


def test_a_recipe_from_before_fusions_had_names_is_the_same_and_is_written_the_same(tmp_path: Path) -> None:
    save_recipe(load_recipe("default"), tmp_path / "new.yaml")
    written = (tmp_path / "new.yaml").read_text()
    assert not {"options", "packages"} & {line.strip().partition(":")[0] for line in written.splitlines()}
    assert yaml.safe_load(written)["fusion"] == {"hidden": 256, "dropout": 0.2, "experts": True}
    assert load_recipe(tmp_path / "new.yaml").fusion.strategy == "concatenation"


def test_options_and_packages_are_written_and_read(tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["microphones.strategy=loudest", "microphones.options={peak: false}"])
    save_recipe(recipe, tmp_path / "mine.yaml")
    tree = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert tree["packages"] == {"microphones.strategy": "farfeel-example 0.1"}
    assert tree["microphones"]["options"] == {"peak": False}
    assert load_recipe(tmp_path / "mine.yaml") == recipe
    tree["packages"]["microphones.strategy"] = "farfeel-example 0.0.1"  # another version is there now
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    assert load_recipe(tmp_path / "mine.yaml").packages == recipe.packages


@pytest.mark.parametrize("packages", ["nonsense", {"microphones.strategy": 5}, {"no.such": "a 1"}, None])
def test_packages_that_say_nothing_do_no_harm(tmp_path: Path, packages: Any) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"packages": packages, "train": {"epochs": 3}}))
    assert load_recipe(tmp_path / "mine.yaml") == load_recipe(tmp_path / "mine.yaml", ["train.epochs=3"])
    tree = {"packages": packages, "microphones": {"strategy": "quietest"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    assert "quietest" in complaint(recipe=tmp_path / "mine.yaml")
