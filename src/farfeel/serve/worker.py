"""The process that opens what a stranger sent: it decodes, finds the face, cuts windows; the network it asks through
its pipe. It never imports torch, writes no file, and ends with its job.

Messages on the pipe are bytes: JSON objects and, behind those that announce them, arrays. Nothing is unpickled but the
job itself, which the server made.
"""

from __future__ import annotations

import base64
import json
import resource
import signal
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from farfeel.media.audio import audio_info
from farfeel.media.face_video import FaceVideo
from farfeel.media.video import media_info
from farfeel.recipe import Recipe
from farfeel.recognise.decoding import Options, open_recording, prepare_recording
from farfeel.recognise.recognizer import Recognizer
from farfeel.recognise.windows import Recording
from farfeel.serve.limits import MEGABYTE, Limits, Refusal
from farfeel.serve.pictures import mel_picture
from farfeel.show.predictions import as_dict
from farfeel.show.timeline import as_json
from farfeel.support.pool import end_with_parent
from farfeel.support.text import one_line
from farfeel.types import FarfeelError, Prediction, Timeline

NAMES = ("the recording", "the sound file")  # of the files, in what is said about them
VIEWED_MICS = 8
VIEWED_FACES = 6
FRAME_SIDE = 720  # pixels, of what a camera sends: the face search needs no more
SOUND, FRAME, END = b"s", b"f", b"e"  # first byte of what a stream brings


@dataclass(frozen=True)
class Job:
    """What to make of the files: `wants` of prediction, timeline and views (pictures for the page), or a stream."""

    wants: tuple[str, ...]
    limits: Limits
    name: str = ""  # what the client calls its recording; nothing is opened under it
    checkpoint: str = ""
    files: int = 1
    audio_offset_s: float = 0.0
    mics: tuple[int, ...] | None = None
    face: str = "largest"
    modalities: str = "both"
    abstain_below: float = 0.0
    step_s: float = 1.0
    sample_rate: int = 0  # of a stream
    stream_mics: int = 1
    sample_format: str = "float32"


class _DistantEngine:
    """The network at the other end of the pipe."""

    def __init__(self, pipe: Connection, index: int, recipe: Recipe, temperature: np.ndarray) -> None:
        self.pipe, self.index, self.recipe, self.temperature = pipe, index, recipe, temperature

    def probabilities(
        self, audio: np.ndarray, mic_mask: np.ndarray, frames: np.ndarray | None, seen: np.ndarray
    ) -> np.ndarray:
        ask = {"engine": self.index, "windows": len(audio), "mics": audio.shape[1], "film": frames is not None}
        _tell(self.pipe, {"ask": ask})
        for array in (audio, mic_mask, seen, *([] if frames is None else [frames])):
            self.pipe.send_bytes(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return np.frombuffer(self.pipe.recv_bytes()).reshape(len(audio), -1)


def start() -> None:
    """A job that is none: what it needs is imported."""


def work(pipe: Connection, engines: Sequence[tuple[Recipe, np.ndarray]], job: Job) -> None:
    """The whole life of the process: the job's answer, or a refusal, goes into the pipe. `engines`: recipe and
    temperature of each network."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends its workers.
    files = [Path(f"/dev/fd/{reduction.recv_handle(pipe)}") for _ in range(job.files)]
    _confine(job.limits, job.limits.stream_s if job.wants == ("stream",) else job.limits.decode_s)
    cv2.setNumThreads(1)
    recognizer = Recognizer([_DistantEngine(pipe, index, *about) for index, about in enumerate(engines)])
    try:
        if job.wants == ("stream",):
            _stream(pipe, recognizer, job)
            return
        answer = _answer(recognizer, job, files)
    except Refusal as refusal:
        answer = {"refused": [refusal.status, refusal.detail]}
    except FarfeelError as error:
        scarce = "Cannot allocate memory" in str(error)
        answer = {"refused": [413, too_big(job.limits)] if scarce else [422, _said(str(error), files)]}
    except (MemoryError, cv2.error):
        answer = {"refused": [413, too_big(job.limits)]}
    except (BrokenPipeError, EOFError):
        return  # The server is gone, or needs no answer any more.
    except Exception as error:  # What hostile bytes bring about ends here, as one line, or the pipe would tell nothing.
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
        answer = {"refused": [500, f"the server failed on the recording ({type(error).__name__} in {where})"]}
    _tell(pipe, answer)


def _confine(limits: Limits, seconds: float) -> None:
    """From here on: no file written, no core dump, and so much memory and processor time."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_AS, used + limits.memory_mb * MEGABYTE),
    ):
        resource.setrlimit(what, (value, value))


def too_big(limits: Limits) -> str:
    return (
        f"the recording takes more than {limits.memory_mb} MB of memory to decode, which is all that this server gives "
        "it; cut it or make its pictures smaller"
    )


def _answer(recognizer: Recognizer, job: Job, files: list[Path]) -> dict[str, Any]:
    for file, name in zip(files, NAMES, strict=False):
        _measure(file, name, job)
    path, sound = files[0], files[1] if len(files) > 1 else None
    options = Options(job.mics, sound, job.audio_offset_s, job.face, job.modalities)
    result: dict[str, Any] = {}
    if "prediction" in job.wants:
        recording, notes = open_recording(path, recognizer.recipe, options)
        prepared = prepare_recording(recording, notes, recognizer.recipes, options.mics, str(sound or path))
        (prediction,) = recognizer.answer([prepared], job.abstain_below)
        result["prediction"] = _as_dict(prediction, job, files)
        if "views" in job.wants:
            result["views"] = _views(recording, recognizer.recipe)
    if "timeline" in job.wants:
        timeline = recognizer.timeline_of(path, job.step_s, options, abstain_below=job.abstain_below)
        result["timeline"] = _timeline_dict(timeline, job, files)
    return {"answer": result}


def _measure(path: Path, name: str, job: Job) -> None:
    """Refuse, by the header, what is no recording, too long or of too many channels."""
    limits = job.limits
    try:
        heard = audio_info(path)
    except FarfeelError as error:
        heard, problem = None, _said(str(error), [path], [name])
    if heard is not None and not heard.by_ffmpeg:
        seconds, channels = heard.seconds, heard.channels
    else:
        try:
            info = media_info(path)
        except FarfeelError as error:
            raise Refusal(415, problem if heard is None else _said(str(error), [path], [name])) from None
        seconds = max(info.seconds, info.video.seconds if info.video else 0, info.audio.seconds if info.audio else 0)
        channels = info.audio.channels if info.audio else 0
    if not seconds <= limits.seconds:
        raise Refusal(413, f"{name} lasts {seconds:.0f} s, this server takes {limits.seconds:g} s; cut it into parts")
    if channels > limits.channels:
        raise Refusal(
            422, f"{name} has {channels} channels, this server takes {limits.channels}; leave some of them out"
        )
    windows = seconds / job.step_s
    if "timeline" in job.wants and windows > limits.windows:
        raise Refusal(
            422,
            f"{name} lasts {seconds:.0f} s: at a step of {job.step_s:g} s that makes {windows:.0f} windows, "
            f"this server takes {limits.windows}; choose a longer step_s",
        )


def _said(sentence: str, files: Sequence[Path], names: Sequence[str] = NAMES) -> str:
    """A sentence for the command line, in the words of a request."""
    for file, name in zip(files, names, strict=False):
        sentence = sentence.replace(str(file), name)
    return one_line(sentence.replace(" --", " "))


def _as_dict(prediction: Prediction, job: Job, files: Sequence[Path]) -> dict[str, Any]:
    shown = as_dict(Path(job.name), prediction, job.checkpoint)
    shown["warnings"] = [_said(warning, files) for warning in shown["warnings"]]
    return shown


def _rows(predictions: Sequence[Prediction], job: Job, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Windows, as the command line writes those of a timeline."""
    rows: list[dict[str, Any]] = json.loads(
        as_json(Path(job.name), Timeline(tuple(predictions), (), 0.0, job.step_s, 0.0), job.checkpoint)
    )
    for row in rows:
        row["warnings"] = [_said(warning, files) for warning in row["warnings"]]
    return rows


def _timeline_dict(timeline: Timeline, job: Job, files: Sequence[Path]) -> dict[str, Any]:
    return {
        "path": job.name,
        "seconds": round(timeline.seconds, 3),
        "step_s": timeline.step_s,
        "window_s": timeline.window_s,
        "speech": [[round(start_s, 3), round(end_s, 3)] for start_s, end_s in timeline.speech],
        "predictions": _rows(timeline.predictions, job, files),
    }


def _views(recording: Recording, recipe: Recipe) -> dict[str, Any]:
    """PNG and JPEG files in base64: what the microphones heard, and the face as the network saw it."""
    mels = [] if recording.audio is None else [mel_picture(mic, recipe.audio) for mic in recording.audio[:VIEWED_MICS]]
    return {
        "mels": [_encoded(picture, ".png") for picture in mels],
        "faces": [_encoded(picture, ".jpg") for picture in _faces(recording.footage)],
    }


def _faces(footage: FaceVideo | None) -> list[np.ndarray]:
    if footage is None or not footage.crops:
        return []
    pixels = np.concatenate([crop.pixels for crop in footage.crops])
    chosen = np.unique(np.linspace(0, len(pixels) - 1, min(VIEWED_FACES, len(pixels))).round().astype(int))
    return [pixels[place][..., ::-1] for place in chosen]


def _encoded(picture: np.ndarray, form: str) -> str:
    return base64.b64encode(cv2.imencode(form, picture)[1].tobytes()).decode()


def _stream(pipe: Connection, recognizer: Recognizer, job: Job) -> None:
    """Each message in, the predictions that it made ready out."""
    stream = recognizer.stream(
        job.sample_rate, job.stream_mics, job.step_s, face=job.face, abstain_below=job.abstain_below
    )
    heard, last = 0, b""
    _tell(pipe, {"answer": []})
    while last != END:
        message = pipe.recv_bytes()
        last, content = message[:1], message[1:]
        if last == FRAME:
            (time_s,) = struct.unpack("<d", content[:8])
            stream.push_frame(_picture(content[8:]), time_s)
            found: list[Prediction] = []
        elif last == SOUND:
            block = _block(content, job)
            heard += block.shape[1]
            if heard > job.limits.stream_s * job.sample_rate:
                raise Refusal(413, f"a stream may last {job.limits.stream_s:g} s on this server; begin another")
            found = stream.push(block)
        else:
            found = stream.close()
        _tell(pipe, {"answer": _rows(found, job, ())})


def _block(content: bytes, job: Job) -> np.ndarray:
    """Interleaved samples → (M, n) float32."""
    kind = np.dtype("<i2" if job.sample_format == "int16" else "<f4")
    if len(content) % (kind.itemsize * job.stream_mics):
        raise Refusal(
            422,
            f"a block has {len(content)} bytes, expected a multiple of {kind.itemsize * job.stream_mics} "
            f"({job.stream_mics} interleaved samples of {job.sample_format})",
        )
    block = np.frombuffer(content, kind).reshape(-1, job.stream_mics).T
    return block.astype(np.float32) / 32768 if job.sample_format == "int16" else block


def _picture(content: bytes) -> np.ndarray:
    """JPEG → (H, W, 3) uint8 RGB, no larger than a face search needs."""
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if picture is None:
        raise Refusal(415, f"a frame of {len(content)} bytes is no picture, expected a JPEG")
    scale = FRAME_SIDE / max(picture.shape)
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture[..., ::-1])


def _tell(pipe: Connection, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message).encode())
