"""Laws of the REST interface: it gives the results of the library, and one sentence for every error."""

import json
import multiprocessing
import struct
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
import soundfile
from running import LIMITS, Serve, Served, babble

from farfeel.recipe import Recipe
from farfeel.recognise.recognizer import Recognizer
from farfeel.serve import worker as worker_module
from farfeel.serve.limits import Refusal
from farfeel.serve.worker import Job
from farfeel.serve.workers import Worker
from farfeel.show.predictions import as_dict
from farfeel.show.timeline import as_json


def detail(response: httpx.Response, status: int) -> str:
    """The sentence of a refusal."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]
    sentence: str = response.json()["detail"]
    assert "\n" not in sentence
    return sentence


def test_a_prediction_is_that_of_the_library_for_the_same_file(
    server: Served, recognizer: Recognizer, clip: Path, array: Path
) -> None:
    for path in (clip, array):
        expected = as_dict(Path(path.name), recognizer.predict(path), "untrained")
        assert server.post(file=path).json() == json.loads(json.dumps(expected))
    server.require_nothing_left()


def test_a_timeline_is_that_of_the_library(server: Served, recognizer: Recognizer, clip: Path) -> None:
    expected = recognizer.timeline(clip, 0.5)
    timeline = server.post("/v1/timeline", clip, step_s="0.5").json()
    assert timeline["speech"] == [[round(start_s, 3), round(end_s, 3)] for start_s, end_s in expected.speech]
    assert timeline["predictions"] == json.loads(as_json(Path("clip.mkv"), expected, "untrained"))
    assert (timeline["path"], timeline["step_s"], timeline["window_s"]) == ("clip.mkv", 0.5, 1.28)


def test_video_array_microphones_and_offset_reach_the_network(
    server: Served, recognizer: Recognizer, clip: Path, array: Path
) -> None:
    expected = recognizer.predict(clip, mics=[2, 0], audio=array, audio_offset_s=0.5, face="whole", abstain_below=0.9)
    response = httpx.post(
        f"{server.url}/v1/predict",
        files={"file": ("a.mkv", clip.read_bytes()), "audio": ("b.wav", array.read_bytes())},
        data={"mics": "2,0", "audio_offset_s": "0.5", "face": "whole", "abstain_below": "0.9"},
        timeout=60,
    )
    assert response.json() == json.loads(json.dumps(as_dict(Path("a.mkv"), expected, "untrained")))
    assert response.json()["label"] is None


def test_a_file_that_is_not_a_recording_is_refused_whatever_its_name(
    server: Served, tmp_path: Path, clip: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.mp4", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bomb:
        bomb.writestr("zeros", bytes(50_000_000))
    noise = np.random.default_rng(1).bytes(100_000)
    for content in (
        (tmp_path / "bomb.mp4").read_bytes(),
        b"",
        noise,
        b"\x00\x00\x00\x18ftypmp42" + noise,
        b"RIFF\xff\xff\xff\xffWAVEfmt " + noise,
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    ):
        sentence = detail(server.post(file=content), 415)
        assert sentence.startswith("the recording "), sentence
        assert "/dev/fd" not in sentence
        assert "expected" in sentence
    server.require_nothing_left()


def test_a_recording_that_is_cut_off_anywhere_gets_a_response(server: Served, clip: Path) -> None:
    content = clip.read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9, 0.99):
        response = server.post(file=content[: int(share * len(content))])
        assert response.status_code in (200, 415, 422), response.text
    server.require_nothing_left()


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..\\..\\passwd", "pass\x07wd", "a" * 2000, "'; rm"]
)
def test_a_file_name_is_repeated_and_never_opened(server: Served, array: Path, name: str) -> None:
    response = httpx.post(f"{server.url}/v1/predict", files={"file": (name, array.read_bytes())}, timeout=60)
    assert response.status_code == 200, response.text
    shown = response.json()["path"]
    assert not set("/\\\x07") & set(shown)
    assert 0 < len(shown) <= 120
    server.require_nothing_left()


def test_too_long_too_many_channels_and_too_many_windows_are_refused(server: Served, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", 0.1 * np.random.default_rng(1).standard_normal(21 * 8000), 8000)
    assert "lasts 21 s, this server accepts 20 s" in detail(server.post(file=tmp_path / "long.flac"), 413)
    soundfile.write(tmp_path / "wide.wav", 0.1 * np.random.default_rng(1).standard_normal((8000, 5)), 8000)
    assert "has 5 channels, this server accepts 4" in detail(server.post(file=tmp_path / "wide.wav"), 422)
    soundfile.write(tmp_path / "good.flac", 0.1 * np.random.default_rng(1).standard_normal(6 * 8000), 8000)
    assert "60 windows" in detail(server.post("/v1/timeline", tmp_path / "good.flac", step_s="0.1"), 422)


def test_the_limit_of_seconds_holds_for_the_samples_whatever_the_header_states(server: Served, tmp_path: Path) -> None:
    samples = (babble(25.0, 1)[0] * 32767).astype(np.int16)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        block = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        block.sample_rate = 16000
        container.mux([*stream.encode(block), *stream.encode(None)])
    content = (tmp_path / "a.mkv").read_bytes()
    place = content.index(b"\x44\x89\x88") + 3  # the element Duration: a float of 8 bytes, in milliseconds
    assert struct.unpack(">d", content[place : place + 8])[0] == pytest.approx(25_000, abs=50)
    content = content[:place] + struct.pack(">d", 3000.0) + content[place + 8 :]
    content = content.replace(b"DURATION", b"DURATIOM")  # the tag that states the length once more
    assert "lasts 25 s, this server accepts 20 s" in detail(server.post("/v1/timeline", content), 413)
    response = server.post("/v1/predict", content)
    assert response.status_code == 413 or response.json()["end_s"] <= 20, "more was used than the server accepts"


def test_the_second_file_is_checked_like_the_first(server: Served, clip: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "wide.wav", 0.1 * np.random.default_rng(1).standard_normal((8000, 5)), 8000)
    for content, status, problem in (((tmp_path / "wide.wav").read_bytes(), 422, "5 channels"), (b"no", 415, "cannot")):
        files = {"file": ("a.mkv", clip.read_bytes()), "audio": ("b", content)}
        sentence = detail(httpx.post(f"{server.url}/v1/predict", files=files, timeout=60), status)
        assert sentence.startswith("the audio file ")
        assert problem in sentence


def test_the_error_for_a_wrong_parameter_names_it(server: Served, array: Path) -> None:
    for options in (
        {"mics": "a"},
        {"mics": "0,0"},
        {"face": "nobody"},
        {"abstain_below": "2"},
        {"modalities": "smell"},
        {"audio_offset_s": "nan"},
    ):
        assert next(iter(options)) in detail(server.post(file=array, **options), 422)
    assert "mics asks for 7" in detail(server.post(file=array, mics="7"), 422)
    assert "file" in detail(httpx.post(f"{server.url}/v1/predict", data={"face": "left"}), 422)
    assert detail(httpx.post(f"{server.url}/v1/predict", content=b"{}"), 422)
    assert detail(httpx.get(f"{server.url}/v1/nothing"), 404)


def test_silence_is_an_error_and_not_a_prediction(server: Served, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "still.wav", np.zeros(16000), 16000)
    assert "silent" in detail(server.post(file=tmp_path / "still.wav"), 422)


def test_a_recording_that_takes_too_much_memory_or_time_to_decode_is_refused(
    serve: Serve, tmp_path: Path, array: Path
) -> None:
    samples = np.tile(0.1 * np.random.default_rng(1).standard_normal((480, 1)), (2000, 8))
    soundfile.write(tmp_path / "fat.flac", samples, 48000)  # 31 MB when decoded
    with serve(replace(LIMITS, megabytes=20, channels=8, memory_mb=24)) as served:
        assert "24 MB of memory" in detail(served.post(file=tmp_path / "fat.flac"), 413)
        served.require_nothing_left()
    with serve(replace(LIMITS, decode_s=0.0)) as served:
        assert "to decode" in detail(served.post(file=array), 413)
        served.require_nothing_left()


@pytest.mark.parametrize("route", ["/v1/predict", "/v1/timeline"])
def test_a_foreign_exception_of_the_network_is_one_sentence_and_no_failure_of_the_server(
    server: Served, array: Path, route: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server.pool, "classify", fail)
    sentence = detail(server.post(route, array), 422)
    assert "ZeroDivisionError in test_rest.py:" in sentence
    assert not [record for record in caplog.records if record.exc_info], "a traceback is in the log"
    server.require_nothing_left()


def test_an_answer_that_does_not_fit_the_description_is_no_failure_of_the_server(
    server: Served, array: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(*_: object) -> dict[str, object]:
        return {"prediction": {"probabilities": {"happy": float("nan")}}, "timeline": None}

    monkeypatch.setattr(server.pool, "run", run)
    for route in ("/v1/predict", "/v1/timeline"):
        assert "cannot be processed" in detail(server.post(route, array), 422)


@pytest.mark.parametrize(
    "message", [b"{", b"[]", b"{}", b'{"refused": 1}', b'{"classify": {"engine": 9}}', b"\xff", b'{"classify": []}']
)
def test_a_worker_that_a_recording_controls_cannot_make_the_server_fail(server: Served, message: bytes) -> None:
    worker = Worker(server.pool, Job(("prediction",), LIMITS), [], threading.Event())
    worker.pipe, other = multiprocessing.Pipe()
    other.send_bytes(message)
    with pytest.raises(Refusal) as refused:
        worker.receive_answer()
    assert 400 <= refused.value.status < 500


def test_every_foreign_exception_of_a_worker_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (KeyError("x"), TypeError(), OverflowError(), UnicodeDecodeError("utf-8", b"a", 0, 1, "bad")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        for name, function in (("_confine", lambda *_: None), ("end_with_parent", lambda: None), ("_results", fail)):
            monkeypatch.setattr(worker_module, name, function)
        monkeypatch.setattr(worker_module.signal, "signal", lambda *_: None)
        ours, theirs = multiprocessing.Pipe()
        worker_module.run_job(theirs, [(Recipe(), np.ones(1))], Job(("prediction",), LIMITS, files=0))
        status, sentence = json.loads(ours.recv_bytes())["refused"]
        assert status == 422
        assert f"{type(error).__name__} in test_rest.py:" in sentence


def test_a_worker_does_not_import_torch() -> None:
    code = "import sys, farfeel.serve.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_confined_process_cannot_write_files_or_take_more_memory(tmp_path: Path) -> None:
    code = f"""
from farfeel.serve.limits import Limits
from farfeel.serve.worker import _confine
_confine(Limits(memory_mb=64), 5)
try:
    bytearray(100_000_000)
except MemoryError:
    print("memory")
try:
    with open({str(tmp_path / "file")!r}, "wb", buffering=0) as file:
        file.write(b"content")
except OSError:
    print("file")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.split() == ["memory", "file"], ran.stderr


def test_the_model_is_described_and_requests_are_counted(server: Served, recognizer: Recognizer, array: Path) -> None:
    about = httpx.get(f"{server.url}/v1/model").json()
    assert about["labels"] == list(recognizer.emotions)
    assert (about["sample_rate"], about["modalities"], about["card"]) == (16000, "both", "# untrained\n")

    def count() -> float:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        begin = 'farfeel_requests_total{route="/v1/predict",status="200"}'
        return sum(float(line.split()[-1]) for line in lines if line.startswith(begin))

    before = count()
    assert server.post(file=array).status_code == 200
    assert count() == before + 1


def test_the_description_is_complete_and_no_page_loads_from_other_hosts(server: Served) -> None:
    description = httpx.get(f"{server.url}/openapi.json").json()
    for route in ("/v1/predict", "/v1/timeline"):
        assert {"200", "413", "415", "422", "429"} <= set(description["paths"][route]["post"]["responses"])
    assert httpx.get(f"{server.url}/docs").status_code == 404
    assert "default-src 'self'" in httpx.get(f"{server.url}/v1/health").headers["content-security-policy"]
