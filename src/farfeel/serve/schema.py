"""What goes in and out of the REST interface, typed: FastAPI checks it and describes it as OpenAPI."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import UploadFile
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint's name and card."""

    name: str
    card: str = ""


MICS = r"^\d{1,3}(,\d{1,3}){0,63}$"


def _distinct(mics: str | None) -> str | None:
    if mics is not None and len(set(map(int, mics.split(",")))) < mics.count(",") + 1:
        raise ValueError("each microphone once")
    return mics


# A form has no null: what is left out is None.
class Recording(BaseModel):
    """A recording, and how to look at it."""

    model_config = ConfigDict(extra="ignore")

    file: Annotated[UploadFile, Field(description="Sound of any channel count, a film, or both in one container.")]
    audio: Annotated[
        UploadFile | SkipJsonSchema[None], Field(description="The sound of the film `file`, as of a microphone array.")
    ] = None
    audio_offset_s: Annotated[
        float, Field(ge=-86400, le=86400, description="Seconds after the film's start that `audio` begins.")
    ] = 0.0
    mics: Annotated[
        str | SkipJsonSchema[None],
        Field(pattern=MICS, description="Channels to use, from 0, with commas; all by default.", examples=["0,2,4"]),
        AfterValidator(_distinct),
    ] = None
    face: Annotated[
        Literal["largest", "left", "right", "whole"],
        Field(description="Whose face; `whole` where the film shows nothing else."),
    ] = "largest"
    modalities: Annotated[
        Literal["audio", "video", "both"], Field(description="Use only the sound, or only the film.")
    ] = "both"
    abstain_below: Annotated[
        float, Field(ge=0, le=1, description="A prediction less sure than this has no label.", examples=[0.5])
    ] = 0.0

    @property
    def microphones(self) -> tuple[int, ...] | None:
        return None if self.mics is None else tuple(map(int, self.mics.split(",")))


class TimelineRecording(Recording):
    step_s: Annotated[float, Field(ge=0.1, le=600, description="Seconds from one window to the next.")] = 1.0


class Prediction(BaseModel):
    """As `farfeel predict --format json` writes it."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "path": "clip.mp4",
                "start_s": 0.0,
                "end_s": 3.9,
                "label": "happy",
                "probabilities": {"neutral": 0.02, "happy": 0.81, "sad": 0.17},
                "modalities": ["audio", "video"],
                "microphones": 1,
                "checkpoint": "default",
                "warnings": [],
            }
        },
    )

    path: Annotated[str, Field(description="The file's name, as it was sent.")]
    start_s: float
    end_s: float
    label: Annotated[str | None, Field(description="Null where nobody speaks, or where it is not sure enough.")]
    probabilities: Annotated[dict[str, float], Field(description="Of each emotion; empty where nobody speaks.")]
    modalities: Annotated[list[str], Field(description="What was used: audio, video.")]
    microphones: Annotated[int, Field(description="How many were alive and used.")]
    checkpoint: str
    warnings: Annotated[list[str], Field(description="What of the recording could not be used, and why.")]


class Window(Prediction):
    """One window of a timeline or a stream."""

    speech_share: Annotated[float | None, Field(description="Share of the window in which somebody speaks.")] = None


class Timeline(BaseModel):
    """A recording, window by window."""

    path: str
    seconds: float
    step_s: float
    window_s: float
    speech: Annotated[list[tuple[float, float]], Field(description="Begin and end of each span of speech, in seconds.")]
    predictions: list[Window]


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Model(BaseModel):
    """What this server recognises with."""

    name: Annotated[str, Field(examples=["default"])]
    version: Annotated[str, Field(description="Of farfeel.", examples=["0.1.0"])]
    labels: Annotated[list[str], Field(examples=[["neutral", "happy", "sad", "angry"]])]
    sample_rate: Annotated[int, Field(description="Hz; recordings at other rates are resampled.", examples=[16000])]
    window_s: Annotated[float, Field(description="Seconds that the network hears at once.", examples=[4.0])]
    modalities: Annotated[str, Field(description="audio, video or both.", examples=["both"])]
    microphones: Annotated[int, Field(description="It was trained with.", examples=[3])]
    card: Annotated[str, Field(description="What it was trained on and how good it is, in Markdown.")]
    limits: Annotated[dict[str, float], Field(description="What this server takes: megabytes, seconds, channels.")]


class Problem(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"detail": "the recording lasts 900 s, this server …"}})

    detail: Annotated[str, Field(description="One sentence: what was found, what was expected, the remedy.")]


class StreamHeader(BaseModel):
    """The first message of /v1/stream."""

    model_config = ConfigDict(extra="forbid")

    sample_rate: Annotated[int, Field(ge=8000, le=192000)]
    mics: Annotated[int, Field(ge=1, le=256)] = 1
    step_s: Annotated[float, Field(ge=0.1, le=600)] = 1.0
    format: Literal["float32", "int16"] = "float32"
    face: Literal["largest", "left", "right", "whole"] = "largest"
    abstain_below: Annotated[float, Field(ge=0, le=1)] = 0.0


class StreamTag(BaseModel):
    """A text message inside a stream: the next binary message is a JPEG frame of that moment; or the stream's end."""

    model_config = ConfigDict(extra="forbid")

    frame_at_s: Annotated[float | None, Field(ge=0, le=1e6, allow_inf_nan=False)] = None
    end: bool = False


def shown_name(name: str | None) -> str:
    """The client's name for its recording: no path, one line, of a bearable length."""
    last = re.split(r"[/\\]", name or "")[-1]
    return "".join(letter for letter in last if letter.isprintable())[:120] or "recording"
