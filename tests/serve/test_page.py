"""Laws of the page: it has the limits of the REST interface, loads nothing from other hosts, and keeps nothing."""

import asyncio
import json
import logging
import os
import re
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from running import ABOUT, LIMITS, Serve, Served, babble

from farfeel.models.logmel import LogMel
from farfeel.recipe import Audio
from farfeel.serve.limits import Refusal
from farfeel.serve.page import _recognise
from farfeel.serve.page_files import PageFiles, remove_leftovers
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


def test_an_exception_of_gradio_is_one_line_of_the_log(
    paged: Served, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A wrong value for one of the functions of the page, here the one with six inputs."""
    functions = httpx.get(f"{paged.url}/ui/config").json()["dependencies"]
    function = next(each["id"] for each in functions if len(each["inputs"]) == 6)
    joined = {"data": [5, None, "", "largest", "both", "x"], "fn_index": function, "session_hash": "any"}
    with caplog.at_level(logging.INFO, "farfeel.serve"):
        assert httpx.post(f"{paged.url}/ui/gradio_api/queue/join", json=joined).status_code == 200
        for _ in range(500):
            if any("page failed on a request: " in record.getMessage() for record in caplog.records):
                break
            time.sleep(0.02)
        else:
            raise AssertionError("the exception is not in the log")
    assert "Traceback" not in capfd.readouterr().err


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PageFiles:
    """The files of a page that may keep 4 x 4 MB."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return PageFiles(LIMITS)


def put(path: Path, age_s: float, size: int = 1) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    for each in (path, path.parent):
        os.utime(each, (time.time() - age_s,) * 2)


def test_old_uploads_and_empty_folders_are_deleted_and_examples_are_kept(files: PageFiles) -> None:
    put(files.folder / "a" / "old", 1000)
    put(files.folder / "b" / "example", 1000)
    put(files.folder / "c" / "new", 0)
    files.examples = {files.folder / "b" / "example"}
    files.sweep(300)
    os.utime(files.folder / "a", (time.time() - 1000,) * 2)
    files.sweep(300)
    left = sorted(str(path.relative_to(files.folder)) for path in files.folder.rglob("*"))
    assert left == ["b", "b/example", "c", "c/new"]


def test_the_oldest_uploads_give_room_to_new_ones_and_new_ones_are_refused_then(files: PageFiles) -> None:
    limit = LIMITS.stored_bytes
    for age_s in (50, 40, 35):
        put(files.folder / f"{age_s}" / "clip", age_s, limit // 4)
    put(files.folder / "1" / "clip", 1, limit // 2)
    asyncio.run(files.add(limit + 1))
    assert sorted(path.parent.name for path in files.folder.rglob("clip")) == ["1", "35", "40"]
    put(files.folder / "2" / "clip", 2, limit)
    with pytest.raises(Refusal, match="this server keeps 16 MB") as refused:
        asyncio.run(files.add(limit))
    assert refused.value.status == 429


def test_many_small_files_count_too(files: PageFiles) -> None:
    for index in range(LIMITS.stored_bytes // 2**16 + 10):
        put(files.folder / f"{index}", 60 + index)
    files.make_room()
    assert len(list(files.folder.iterdir())) == LIMITS.stored_bytes // 2**16


def test_uploads_to_the_page_never_take_more_than_their_room(serve: Serve) -> None:
    """Files of the last seconds stay, so an upload is refused as soon as there is no room."""
    with serve(page=True) as served:
        statuses = []
        for _ in range(6):
            content = np.random.default_rng(len(statuses)).bytes(3_900_000)
            response = httpx.post(f"{served.url}/ui/gradio_api/upload", files={"files": ("a.wav", content)}, timeout=60)
            statuses.append(response.status_code)
            stored = sum(path.stat().st_size for path in served.folder.rglob("uploads/*/*.wav"))
            assert stored <= LIMITS.stored_bytes
        assert statuses == [200] * 4 + [429] * 2
        assert "try again" in response.json()["detail"]
        served.require_nothing_arrives()


def test_the_page_allows_no_other_page(paged: Served) -> None:
    for origin, status in ((paged.url, 200), ("http://evil.example", 403), ("null", 403)):
        for method in ("GET", "OPTIONS"):
            headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
            response = httpx.request(method, f"{paged.url}/ui/config", headers=headers)
            assert response.status_code == status
            assert not [name for name in response.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("route", "options"),
    [
        ("upload", {"data": {"files": "text"}, "files": {"other": ("a", b"a")}}),
        ("upload", {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}),
        ("upload", {"content": b"nonsense"}),
        ("queue/join", {"json": {"fn_index": 99, "data": [], "session_hash": "a"}}),
        ("queue/join", {"json": {"fn_index": "x"}}),
        ("queue/join", {"content": b"\xff{"}),
        ("run/predict", {"json": {"data": [1, 2]}}),
        ("call/recognise", {"json": {"data": None}}),
        ("component_server", {"json": {"session_hash": 1}}),
        ("cancel", {"json": {}}),
        ("reset", {"json": {"event_id": 5}}),
    ],
)
def test_garbage_for_the_page_is_no_failure_of_the_server(
    paged: Served, route: str, options: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    response = httpx.post(f"{paged.url}/ui/gradio_api/{route}", timeout=60, **options)  # type: ignore[arg-type]
    assert response.status_code < 500, response.text
    assert not [record for record in caplog.records if record.exc_info], "a traceback is in the log"


def test_folders_of_killed_servers_are_deleted_and_others_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("farfeel-page-4194999-x", f"farfeel-page-{os.getpid()}-y", "farfeel-page-mine", "other-1-z"):
        (tmp_path / name).mkdir()
    remove_leftovers()
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
