"""The worker process, which handles an untrusted recording: it decodes, finds the face and cuts windows.

It sends the windows through its pipe to the network in the server. It never imports torch, cannot write files, and ends
after its job.

Messages on the pipe are bytes: JSON objects, some of them followed by arrays. Nothing is unpickled except the job
itself, which the server created.
"""

from __future__ import annotations

import base64
import json
import resource
import signal
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from farfeel.media.audio import audio_info
from farfeel.media.face_video import FaceVideo
from farfeel.media.face_windows import FaceWindows
from farfeel.media.video import media_info
from farfeel.recipe import Recipe
from farfeel.recognise.decoding import model_input, open_recording
from farfeel.recognise.options import DEFAULTS, Options
from farfeel.recognise.recognizer import Recognizer
from farfeel.recognise.windows import Recording
from farfeel.serve.limits import MEGABYTE, Limits, Refusal
from farfeel.serve.pictures import mel_picture
from farfeel.support.pool import end_with_parent
from farfeel.support.text import one_line
from farfeel.types import FarfeelError, Prediction, Timeline

NAMES = ("the recording", "the audio file")  # names of the files in error messages
MAX_SPECTROGRAMS = 8
MAX_FACES = 6
FRAME_SIDE = 720  # Camera frames are reduced to this longer side, in pixels. Face detection needs no more.
AUDIO, FRAME, END = b"s", b"f", b"e"  # first byte of a message of a stream


@dataclass(frozen=True)
class Job:
    """What a worker does.

    results: Any of "prediction", "timeline" and "views" (pictures for the page); or only "stream".
    limits: The limits of the server.
    name: The client's name of the recording. No file of this name is opened.
    checkpoint: Name of the checkpoint.
    files: Number of files: 0 for a stream, 2 for a video with a separate audio file.
    options: As the client chose them. The worker adds the audio file.
    step_s: Time from one window to the next, for a timeline or a stream.
    sample_rate: Sample rate of a stream, in hertz.
    stream_mics: Number of microphones of a stream.
    sample_format: "float32" or "int16", for a stream.
    """

    results: tuple[str, ...]
    limits: Limits
    name: str = ""
    checkpoint: str = ""
    files: int = 1
    options: Options = DEFAULTS
    step_s: float = 1.0
    sample_rate: int = 0
    stream_mics: int = 1
    sample_format: str = "float32"


class _RemoteEngine:
    """An engine that sends its windows through the pipe to the network in the server."""

    def __init__(self, pipe: Connection, index: int, recipe: Recipe, temperature: np.ndarray) -> None:
        self.pipe, self.index, self.recipe, self.temperature = pipe, index, recipe, temperature

    def probabilities(
        self, audio: np.ndarray, mic_mask: np.ndarray, frames: np.ndarray | None, seen: np.ndarray
    ) -> np.ndarray:
        shape = {"engine": self.index, "windows": len(audio), "mics": audio.shape[1], "has_video": frames is not None}
        _send(self.pipe, {"classify": shape})
        for array in (audio, mic_mask, seen, *([] if frames is None else [frames])):
            self.pipe.send_bytes(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return np.frombuffer(self.pipe.recv_bytes()).reshape(len(audio), -1)


def warm_up() -> None:
    """A job that does nothing. It makes the fork server import what workers need."""


def run_job(pipe: Connection, engines: Sequence[tuple[Recipe, np.ndarray]], job: Job) -> None:
    """The main function of the process. It sends the results of the job, or a refusal, through the pipe.

    Args:
        pipe: Connection to the server.
        engines: Recipe and temperature of each network.
        job: What to do.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C stops the server, which ends its workers.
    files = [Path(f"/dev/fd/{reduction.recv_handle(pipe)}") for _ in range(job.files)]
    _confine(job.limits, job.limits.stream_s if job.results == ("stream",) else job.limits.decode_s)
    cv2.setNumThreads(1)
    recognizer = Recognizer([_RemoteEngine(pipe, index, *engine) for index, engine in enumerate(engines)])
    try:
        if job.results == ("stream",):
            _stream(pipe, recognizer, job)
            return
        message = {"answer": _results(recognizer, job, files)}
    except Refusal as refusal:
        message = _refused(refusal)
    except FarfeelError as error:
        is_memory_error = "Cannot allocate memory" in str(error)
        message = _refused(
            memory_refusal(job.limits) if is_memory_error else Refusal(422, _for_client(str(error), files))
        )
    except (MemoryError, cv2.error):
        message = _refused(memory_refusal(job.limits))
    except (BrokenPipeError, EOFError):
        return  # The server has ended, or no longer needs the answer.
    except Exception as error:  # An untrusted recording can cause any error. The server must get one line about it.
        message = _refused(failure(error))
    _send(pipe, message)


def failure(error: Exception) -> Refusal:
    """The refusal of a recording on which the code failed with a foreign exception."""
    return Refusal(
        422,
        f"the recording cannot be processed ({type(error).__name__} in {position_of(error)}), expected an audio or "
        "video file; convert it to WAV or MP4 and send it again",
    )


def position_of(error: BaseException) -> str:
    """File name and line in which an exception was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"


def _refused(refusal: Refusal) -> dict[str, Any]:
    return {"refused": [refusal.status, refusal.detail]}


def _confine(limits: Limits, seconds: float) -> None:
    """Limit the process from here on: no file writes, no core dump, limited memory and processor time."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for resource_kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_AS, used + limits.memory_mb * MEGABYTE),
    ):
        resource.setrlimit(resource_kind, (value, value))


def memory_refusal(limits: Limits) -> Refusal:
    """The refusal of a recording that needs too much memory."""
    return Refusal(
        413,
        f"the recording takes more than {limits.memory_mb} MB of memory to decode, this server allows no more; "
        "send a shorter recording or a smaller video",
    )


def _results(recognizer: Recognizer, job: Job, files: list[Path]) -> dict[str, Any]:
    for file, name in zip(files, NAMES, strict=False):
        _check_size(file, name, job)
    path, audio_file = files[0], files[1] if len(files) > 1 else None
    options = replace(job.options, audio=audio_file)
    results: dict[str, Any] = {}
    if "prediction" in job.results:
        recording, notes = open_recording(path, recognizer.recipe, options)
        decoded = model_input(recording, notes, recognizer.recipes, options.mics, str(audio_file or path))
        _require_length(decoded.draft.end_s, job.limits)  # The header of a file may state less than there is.
        (prediction,) = recognizer.recognise([decoded], options)
        results["prediction"] = _as_dict(prediction, job, files)
        if "views" in job.results:
            results["views"] = _views(recording, recognizer.recipe)
    if "timeline" in job.results:
        timeline = recognizer.timeline(path, job.step_s, options)
        _require_length(timeline.seconds, job.limits)
        results["timeline"] = _timeline_dict(timeline, job, files)
    return results


def _check_size(path: Path, name: str, job: Job) -> None:
    """Read the header of a file. Raise Refusal if it is not a recording, too long, or has too many channels."""
    limits = job.limits
    try:
        audio = audio_info(path)
    except FarfeelError as error:
        audio, problem = None, _for_client(str(error), [path], [name])
    if audio is not None and not audio.by_ffmpeg:
        seconds, channels = audio.seconds, audio.channels
    else:
        try:
            info = media_info(path)
        except FarfeelError as error:
            raise Refusal(415, problem if audio is None else _for_client(str(error), [path], [name])) from None
        seconds = max(info.seconds, info.video.seconds if info.video else 0, info.audio.seconds if info.audio else 0)
        channels = info.audio.channels if info.audio else 0
    _require_length(seconds, limits, name)
    if channels > limits.channels:
        raise Refusal(
            422, f"{name} has {channels} channels, this server accepts {limits.channels}; send fewer channels"
        )
    windows = seconds / job.step_s
    if "timeline" in job.results and windows > limits.windows:
        raise Refusal(
            422,
            f"{name} lasts {seconds:.0f} s, which makes {windows:.0f} windows with step_s {job.step_s:g}; "
            f"this server accepts {limits.windows}; choose a longer step_s",
        )


def _require_length(seconds: float, limits: Limits, name: str = NAMES[0]) -> None:
    if not seconds <= limits.seconds:
        raise Refusal(413, f"{name} lasts {seconds:.0f} s, this server accepts {limits.seconds:g} s; cut it into parts")


def _for_client(message: str, files: Sequence[Path], names: Sequence[str] = NAMES) -> str:
    """A message of the command line, changed for clients: names instead of paths, and options without dashes."""
    for file, name in zip(files, names, strict=False):
        message = message.replace(str(file), name)
    return one_line(message.replace(" --", " "))


def _as_dict(prediction: Prediction, job: Job, files: Sequence[Path]) -> dict[str, Any]:
    row = prediction.to_dict(job.name, job.checkpoint)
    row["warnings"] = [_for_client(warning, files) for warning in row["warnings"]]
    return row


def _rows(predictions: Sequence[Prediction], job: Job, files: Sequence[Path]) -> list[dict[str, Any]]:
    """The windows as JSON objects, as `farfeel predict --timeline` writes them."""
    timeline = Timeline(tuple(predictions), (), 0.0, job.step_s, 0.0)
    rows: list[dict[str, Any]] = timeline.to_dict(job.name, job.checkpoint)["predictions"]
    for row in rows:
        row["warnings"] = [_for_client(warning, files) for warning in row["warnings"]]
    return rows


def _timeline_dict(timeline: Timeline, job: Job, files: Sequence[Path]) -> dict[str, Any]:
    return timeline.to_dict(job.name) | {"predictions": _rows(timeline.predictions, job, files)}


def _views(recording: Recording, recipe: Recipe) -> dict[str, Any]:
    """Pictures for the page, in base64: spectrograms of the microphones (PNG), and face crops (JPEG)."""
    mels = (
        []
        if recording.audio is None
        else [mel_picture(mic, recipe.audio) for mic in recording.audio[:MAX_SPECTROGRAMS]]
    )
    return {
        "mels": [_encoded(picture, ".png") for picture in mels],
        "faces": [_encoded(picture, ".jpg") for picture in _faces(recording.video)],
    }


def _faces(video: FaceWindows | None) -> list[np.ndarray]:
    if not isinstance(video, FaceVideo) or not video.crops:
        return []
    pixels = np.concatenate([crop.pixels for crop in video.crops])
    chosen = np.unique(np.linspace(0, len(pixels) - 1, min(MAX_FACES, len(pixels))).round().astype(int))
    return [pixels[index][..., ::-1] for index in chosen]


def _encoded(picture: np.ndarray, suffix: str) -> str:
    return base64.b64encode(cv2.imencode(suffix, picture)[1].tobytes()).decode()


def _stream(pipe: Connection, recognizer: Recognizer, job: Job) -> None:
    """Process the messages of a stream. The answer to each one is the list of new predictions."""
    stream = recognizer.stream(job.sample_rate, job.stream_mics, job.step_s, job.options)
    samples, kind = 0, b""
    _send(pipe, {"answer": []})
    while kind != END:
        message = pipe.recv_bytes()
        kind, content = message[:1], message[1:]
        if kind == FRAME:
            (time_s,) = struct.unpack("<d", content[:8])
            stream.push_frame(_decode_frame(content[8:]), time_s)
            predictions: list[Prediction] = []
        elif kind == AUDIO:
            block = _decode_block(content, job)
            samples += block.shape[1]
            if samples > job.limits.stream_s * job.sample_rate:
                raise Refusal(
                    413, f"the stream is too long, this server accepts {job.limits.stream_s:g} s; open another stream"
                )
            predictions = stream.push(block)
        else:
            predictions = stream.close()
        _send(pipe, {"answer": _rows(predictions, job, ())})


def _decode_block(content: bytes, job: Job) -> np.ndarray:
    """Bytes of interleaved samples → (M, n) float32."""
    sample_type = np.dtype("<i2" if job.sample_format == "int16" else "<f4")
    if len(content) % (sample_type.itemsize * job.stream_mics):
        raise Refusal(
            422,
            f"a block has {len(content)} bytes, expected a multiple of {sample_type.itemsize * job.stream_mics} "
            f"({job.stream_mics} interleaved samples of {job.sample_format})",
        )
    block = np.frombuffer(content, sample_type).reshape(-1, job.stream_mics).T
    return block.astype(np.float32) / 32768 if job.sample_format == "int16" else block


def _decode_frame(content: bytes) -> np.ndarray:
    """JPEG → (H, W, 3) uint8 RGB, reduced to FRAME_SIDE."""
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if picture is None:
        raise Refusal(415, f"a frame of {len(content)} bytes cannot be decoded, expected a JPEG; encode it again")
    scale = FRAME_SIDE / max(picture.shape)
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture[..., ::-1])


def _send(pipe: Connection, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message).encode())
