"""Laws of the page: it has the limits of the REST interface, loads nothing from other hosts, and keeps nothing."""

import asyncio
import json
import os
import re
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from running import ABOUT, Serve, Served, babble

from farfeel.models.logmel import LogMel
from farfeel.recipe import Audio
from farfeel.serve.limits import Refusal
from farfeel.serve.page import _recognise, _remove_leftovers, sweep
from farfeel.serve.pictures import bars, images, mel_picture, timeline_chart
from farfeel.show.drawing import draw
from farfeel.show.timeline import as_html, as_json
from farfeel.types import Prediction, Timeline

COLOURS = {"happy": "#111111", "sad": "#222222"}


@pytest.fixture(scope="module")
def paged(serve: Serve) -> Served:  # type: ignore[misc]
    with serve(page=True) as served:  # At its end `serve` checks that the folder is deleted.
        yield served


def recognise(served: Served, *paths: Path | None, mics: str = "") -> dict[str, object]:
    uploads = [None if path is None else str(path) for path in paths]
    return asyncio.run(_recognise(served.pool, ABOUT, uploads, mics, "largest", "both", 0))


def test_the_page_loads_and_names_no_other_host(paged: Served) -> None:
    page = httpx.get(f"{paged.url}/", follow_redirects=True)
    assert page.status_code == 200
    fetched = re.findall(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["'](?:https?:)?//([^"'/]+)""", page.text)
    assert not fetched
    style = httpx.get(f"{paged.url}/ui/theme.css").text
    assert "googleapis" not in page.text + style
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_the_page_gives_the_same_results_as_the_rest_interface(paged: Served, clip: Path) -> None:
    answer = recognise(paged, clip, None)
    assert answer["prediction"] == paged.post(file=clip).json()
    assert answer["timeline"] == paged.post("/v1/timeline", clip).json()
    views = answer["views"]
    assert len(views["mels"]) == 1  # type: ignore[index]
    assert views["faces"]  # type: ignore[index]


def test_the_page_shows_why_a_file_is_refused(paged: Served, tmp_path: Path, array: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"PK\x03\x04 nonsense")
    for paths, mics, message in (
        ([tmp_path / "broken.mp4"], "", "cannot be read"),
        ([None, None], "", "no clip"),
        ([array], "one", "expected numbers"),
        ([tmp_path / "gone.wav"], "", "no longer"),
    ):
        with pytest.raises(Refusal, match=message):
            recognise(paged, *paths, mics=mics)


def test_the_page_refuses_larger_files_than_the_limits(paged: Served) -> None:
    for route in ("/ui/gradio_api/upload", "/gradio_api/upload"):
        response = httpx.post(f"{paged.url}{route}", files={"files": ("a.wav", bytes(6_000_000))}, timeout=60)
        assert response.status_code == 413


def test_old_uploads_are_deleted_and_examples_are_kept(tmp_path: Path) -> None:
    for name in ("old", "new", "example"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("old", "example"):
        os.utime(tmp_path / name, (time.time() - 1000,) * 2)
    sweep(tmp_path, {tmp_path / "example"}, 300)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["example", "new"]


def test_folders_of_killed_servers_are_deleted_and_others_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("farfeel-page-4194999-x", f"farfeel-page-{os.getpid()}-y", "farfeel-page-mine", "other-1-z"):
        (tmp_path / name).mkdir()
    _remove_leftovers()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"farfeel-page-{os.getpid()}-y",
        "farfeel-page-mine",
        "other-1-z",
    ]


def test_a_spectrogram_shows_low_tones_at_the_bottom() -> None:
    time_s = np.arange(16000) / 16000
    low, high = (mel_picture(np.sin(2 * np.pi * hz * time_s), Audio()).sum(axis=2).mean(axis=1) for hz in (200, 6000))
    assert low.argmax() > 0.8 * len(low)
    assert high.argmax() < 0.2 * len(high)
    assert mel_picture(babble(0.1, 1)[0][:100], Audio()).size, "audio shorter than one frame has a picture too"


@pytest.mark.parametrize("hz", [150, 400, 1000, 2500, 6000])
def test_a_spectrogram_shows_a_tone_in_the_band_in_which_the_model_has_it(hz: int) -> None:
    tone = np.sin(2 * np.pi * hz * np.arange(32000) / 16000).astype(np.float32)
    mels = LogMel(Audio())(torch.from_numpy(tone)[None, None])[0, 0].mean(dim=1)
    rows = mel_picture(tone, Audio()).sum(axis=2).mean(axis=1)[::-2]  # two pixels a band, the lowest band last
    assert len(rows) == len(mels)
    assert rows.argmax() == int(mels.argmax())


def test_text_from_clients_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    prediction = {
        "label": None,
        "probabilities": {"happy": 0.4, "sad": 0.6},
        "end_s": 1.0,
        "modalities": ["audio"],
        "microphones": 1,
        "warnings": [evil],
    }
    assert "<script" not in bars(prediction, COLOURS)
    assert "<script" not in images({"mels": [evil], "faces": []}, "mels")


def test_the_page_draws_a_timeline_as_the_report_does() -> None:
    """With a gap where nobody speaks, and a label that is open where the model is undecided."""
    emotions, shares = ("happy", "sad"), (0.4, 0.6)
    line = Timeline(
        tuple(
            Prediction(() if s == 2 else shares, emotions, s, s + 1, speech_share=float(s != 2), decided=s != 3)
            for s in range(5)
        ),
        ((0.0, 2.0), (3.0, 5.0)),
        5.0,
        1.0,
        1.0,
    )
    rows = json.loads(as_json(Path("clip"), line, "untrained"))
    answer = {"seconds": 5.0, "step_s": 1.0, "window_s": 1.0, "speech": line.speech, "predictions": rows}
    chart = timeline_chart(answer, emotions)
    assert chart.removeprefix("<h3>Timeline</h3>") == draw(line, emotions)
    assert draw(line, emotions) in as_html(Path("clip"), line, "untrained")
    assert [area.count("M") for area in re.findall(r'class="area".* d="(.*?)"', chart)] == [2, 2]
    assert chart.count('class="undecided"') == 1
