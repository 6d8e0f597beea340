"""A corpus and a kind of noise from another package work on the command line like farfeel's own."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from farfeel.cli import main
from farfeel.corpora import corpus_of, get_corpus
from farfeel.corpora.scan import load_clips, scan
from farfeel.corpora.splits import PARTS, split_clips
from farfeel.models.checkpoint import CARD
from farfeel.recipe import load_recipe
from farfeel.rooms.bank import Bank
from farfeel.types import FarfeelError
from farfeel.variants import CORPORA, NOISES, ROOM_IMPORTERS

Capture = pytest.CaptureFixture[str]
TINY = ["audio.seconds=1.28", "model.image_frames=64", "train.epochs=1", "train.batch_size=8", "train.workers=0"]


@pytest.fixture(scope="module")
def savee(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAVEE's names with generated audio: two clips of each of four emotions of each speaker."""
    root = tmp_path_factory.mktemp("savee")
    rng = np.random.default_rng(1)
    for pitch_hz, speaker in zip((100, 120, 140, 160), get_corpus("savee").speakers, strict=True):
        for rate, letters in enumerate(("a", "h", "n", "sa"), start=1):
            for number in (1, 2):
                time_s = np.arange(12000) / 16000
                voice = np.sin(2 * np.pi * pitch_hz * rate * time_s) * np.sin(2 * np.pi * 3 * time_s) ** 2
                noisy = 0.2 * voice + 0.01 * rng.standard_normal(len(time_s))
                soundfile.write(root / f"{speaker}_{letters}{number:02d}.wav", noisy, 16000)
    return root


def test_the_plug_in_is_in_every_help(capsys: Capture) -> None:
    for words, names in (
        (("scan",), ["savee", *CORPORA]),
        (("train",), ["savee", *CORPORA]),
        (("evaluate",), ["savee", "hum", *CORPORA, *NOISES]),
        (("rooms", "import"), [*ROOM_IMPORTERS]),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        assert all(name in text for name in names)
        if "hum" in names:
            assert NOISES.summary("hum") in text


def test_a_corpus_of_a_plug_in_is_scanned(savee: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["scan", "savee", "--root", str(savee), "--out", str(tmp_path / "savee.parquet")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("SAVEE (research use)\nhttp://kahlan.eps.surrey.ac.uk/savee/")
    assert "32 clips of 4 speakers" in text
    assert "448 missing clips" in text
    assert [clip.id for clip in load_clips(str(tmp_path / "savee.parquet"))] == [
        clip.id for clip in load_clips("savee", savee)
    ]


def test_a_corpus_of_a_plug_in_is_complete_where_all_its_names_are_there(tmp_path: Path) -> None:
    for name in get_corpus("savee").expected:
        (tmp_path / f"{name}.wav").touch()
    assert len(list(get_corpus("savee").clips(tmp_path))) == 480
    assert scan(get_corpus("savee"), tmp_path).missing == ()


def test_a_corpus_of_a_plug_in_is_split_by_speakers(savee: Path) -> None:
    divided = split_clips(load_clips("savee", savee), "folds-4:1")
    speakers = [{clip.speaker for clip in divided.part(part)} for part in PARTS]
    assert [len(each) for each in speakers] == [2, 1, 1]
    assert set.union(*speakers) == {"DC", "JE", "JK", "KL"}


def test_a_plug_in_trains_and_is_tested_from_the_command_line(
    savee: Path, bank: Bank, tmp_path: Path, capsys: Capture
) -> None:
    rooms = ["--rirs", str(bank.path)]
    corpus = ["--corpus", "savee", "--root", str(savee)]
    noise = ["rooms.noise=[hum]", "rooms.snr_db=[0, 10]", "microphones.count=2"]
    run = tmp_path / "run"
    split = ["--split", "folds-4:1", "--emotions", "angry,happy,neutral,sad"]
    assert main(["train", "--recipe", "tiny", *corpus, *rooms, *split, "--out", str(run), *TINY, *noise]) == 0
    assert "SAVEE: research use" in (run / "best" / CARD).read_text()
    assert load_recipe(run / "best" / "recipe.yaml").rooms.noise == ("hum",)
    out = tmp_path / "test"
    test = ["evaluate", "--checkpoint", str(run / "best"), *corpus, *rooms, "--mics", "0,1", "--out", str(out)]
    assert main([*test, "--noise", "hum", "--snr", "0", "--device", "cpu"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["rooms"]) == set(bank.rooms)
    assert "hum, SNR 0 dB" in (out / "report.html").read_text()


def test_an_unknown_name_is_one_line_with_the_nearest(savee: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["scan", "save", "--root", str(savee)]) == 1
    assert "did you mean savee?" in capsys.readouterr().err
    with pytest.raises(FarfeelError, match=r"rooms\.noise is 'humm', expected one of .*hum; did you mean hum"):
        load_recipe("tiny", ["rooms.noise=[humm]"])


def test_a_corpus_that_is_not_installed_is_none() -> None:
    assert corpus_of("another") is None
    assert corpus_of("savee-surrogate") is get_corpus("savee")
