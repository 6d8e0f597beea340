"""Types of the requests and responses of the REST interface. FastAPI checks them and describes them as OpenAPI."""

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


MICS_PATTERN = r"^\d{1,3}(,\d{1,3}){0,63}$"


def _distinct(mics: str | None) -> str | None:
    if mics is not None and len(set(map(int, mics.split(",")))) < mics.count(",") + 1:
        raise ValueError("each microphone may be given only once")
    return mics


# A form has no null. A missing field becomes None.
class Recording(BaseModel):
    """A recording, and the options of its recognition."""

    model_config = ConfigDict(extra="ignore")

    file: Annotated[
        UploadFile, Field(description="An audio file with any number of channels, a video, or a video with audio.")
    ]
    audio: Annotated[
        UploadFile | SkipJsonSchema[None],
        Field(description="A separate audio file for the video `file`, for example from a microphone array."),
    ] = None
    audio_offset_s: Annotated[
        float, Field(ge=-86400, le=86400, description="Seconds from the start of the video to the start of `audio`.")
    ] = 0.0
    mics: Annotated[
        str | SkipJsonSchema[None],
        Field(
            pattern=MICS_PATTERN,
            description="Channels to use, counted from 0, separated by commas. Default: all.",
            examples=["0,2,4"],
        ),
        AfterValidator(_distinct),
    ] = None
    face: Annotated[
        Literal["largest", "left", "right", "whole"],
        Field(description="Which face to use. `whole`: use the whole picture, without a search for faces."),
    ] = "largest"
    modalities: Annotated[
        Literal["audio", "video", "both"], Field(description="Use only audio, only video, or both.")
    ] = "both"
    abstain_below: Annotated[
        float,
        Field(
            ge=0, le=1, description="If the highest probability is below this value, there is no label.", examples=[0.5]
        ),
    ] = 0.0

    @property
    def microphones(self) -> tuple[int, ...] | None:
        """The channels to use. None: all."""
        return None if self.mics is None else tuple(map(int, self.mics.split(",")))


class TimelineRecording(Recording):
    """A recording, and the options of its timeline."""

    step_s: Annotated[
        float, Field(ge=0.1, le=600, description="Seconds from the start of one window to the start of the next.")
    ] = 1.0


class Prediction(BaseModel):
    """A prediction, as `farfeel predict --format json` writes it."""

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

    path: Annotated[str, Field(description="Name of the uploaded file.")]
    start_s: float
    end_s: float
    label: Annotated[
        str | None,
        Field(description="The recognised emotion. Null if nobody speaks or the probability is too low."),
    ]
    probabilities: Annotated[
        dict[str, float], Field(description="Probability of each emotion. Empty if nobody speaks.")
    ]
    modalities: Annotated[list[str], Field(description="Which of audio and video were used.")]
    microphones: Annotated[int, Field(description="Number of microphones used. Dead microphones are not used.")]
    checkpoint: str
    warnings: Annotated[list[str], Field(description="Which parts of the recording could not be used, and why.")]


class Window(Prediction):
    """The prediction for one window of a timeline or a stream."""

    speech_share: Annotated[float | None, Field(description="Share of the window in which somebody speaks.")] = None


class Timeline(BaseModel):
    """The predictions for all windows of a recording."""

    path: str
    seconds: float
    step_s: float
    window_s: float
    speech: Annotated[list[tuple[float, float]], Field(description="Start and end of each span of speech, in seconds.")]
    predictions: list[Window]


class Health(BaseModel):
    """The state of the server."""

    status: Literal["ok"] = "ok"


class Model(BaseModel):
    """The model and the limits of this server."""

    name: Annotated[str, Field(examples=["default"])]
    version: Annotated[str, Field(description="Version of farfeel.", examples=["0.1.0"])]
    labels: Annotated[list[str], Field(examples=[["neutral", "happy", "sad", "angry"]])]
    sample_rate: Annotated[
        int,
        Field(
            description="Sample rate of the model, in hertz. Recordings at other rates are resampled.", examples=[16000]
        ),
    ]
    window_s: Annotated[float, Field(description="Length of a window in seconds.", examples=[4.0])]
    modalities: Annotated[str, Field(description="Modalities of the model: audio, video or both.", examples=["both"])]
    microphones: Annotated[int, Field(description="Number of microphones in training.", examples=[3])]
    card: Annotated[str, Field(description="The model card in Markdown: training data and accuracy.")]
    limits: Annotated[dict[str, float], Field(description="The limits of the server: megabytes, seconds, channels.")]


class Problem(BaseModel):
    """Why a request was refused."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"detail": "the recording lasts 900 s, this server accepts 600 s; cut it into parts"}
        }
    )

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
    """A text message in a stream: it announces a JPEG frame as the next message and its time, or it ends the stream."""

    model_config = ConfigDict(extra="forbid")

    frame_at_s: Annotated[float | None, Field(ge=0, le=1e6, allow_inf_nan=False)] = None
    end: bool = False


def shown_name(name: str | None) -> str:
    """The client's name of its recording, without folders and unprintable characters, and shortened."""
    last = re.split(r"[/\\]", name or "")[-1]
    return "".join(letter for letter in last if letter.isprintable())[:120] or "recording"
