"""Laws of the options: one object for all calls, checked when it is made."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from farfeel.recipe import Recipe
from farfeel.recognise.options import OptionChanges, Options, options_of
from farfeel.recognise.recognizer import Recognizer
from farfeel.types import FarfeelError
from untrained import make


@pytest.fixture(scope="module")
def recognizer(small: Callable[..., Recipe]) -> Recognizer:
    return make(small("modalities=both"))


def test_every_option_is_also_a_keyword() -> None:
    assert set(OptionChanges.__annotations__) == {field.name for field in fields(Options)}


def test_a_change_leaves_the_other_options() -> None:
    options = Options(mics=[2, 0], face="left")
    assert options_of(options, abstain_below=0.5) == Options(mics=(2, 0), face="left", abstain_below=0.5)
    assert options_of(None) == Options()
    with pytest.raises(TypeError, match="nosuch"):
        options_of(options, nosuch=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mics": 3}, "mics is 3, expected different numbers from 0"),
        ({"mics": []}, r"mics is \[\], expected different numbers from 0"),
        ({"mics": [0, 0]}, "expected different numbers from 0"),
        ({"mics": [-1]}, "expected different numbers from 0"),
        ({"mics": [0.5]}, "expected different numbers from 0"),
        ({"face": "nose"}, "face is 'nose', expected largest, left, right, whole"),
        ({"modalities": "smell"}, "modalities is 'smell', expected audio, video, both"),
        ({"abstain_below": 1.5}, "abstain_below is 1.5, expected a number from 0 to 1"),
        ({"abstain_below": float("nan")}, "abstain_below is nan, expected a number from 0 to 1"),
        ({"audio_offset_s": float("inf")}, "audio_offset_s is inf, expected a finite number"),
    ],
)
def test_an_option_that_is_not_possible_is_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(FarfeelError, match=message):
        Options(**changes)  # type: ignore[arg-type]


def test_an_object_and_keywords_give_the_same_prediction(recognizer: Recognizer, voices: Path) -> None:
    path = sorted(voices.rglob("*.mp4"))[0]
    audio = path.with_suffix(".flac")
    options = Options(audio=audio, face="whole", abstain_below=1.0)
    found = recognizer.predict(path, options)
    assert found == recognizer.predict(path, audio=audio, face="whole", abstain_below=1.0)
    assert found.label is None
    assert recognizer.predict(path, options, abstain_below=0.0).label == found.best
    assert recognizer.timeline(path, 0.5, options) == recognizer.timeline(
        path, 0.5, audio=audio, face="whole", abstain_below=1.0
    )
    assert next(iter(recognizer.predict_many([path], options))) == found


def test_microphones_instead_of_options_are_one_line(recognizer: Recognizer) -> None:
    with pytest.raises(FarfeelError, match=r"the options are of type list, expected farfeel.Options; .* mics=\[0, 2\]"):
        recognizer.predict("clip.wav", [0, 2])  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [Options(mics=[0]), Options(audio="a.wav"), Options(audio_offset_s=1.0)])
def test_a_stream_refuses_the_options_of_files(recognizer: Recognizer, options: Options) -> None:
    with pytest.raises(FarfeelError, match="a stream has no option"):
        recognizer.stream(16000, 2, 1.0, options)


def test_a_stream_without_video_takes_no_frame(recognizer: Recognizer) -> None:
    stream = recognizer.stream(16000, modalities="audio")
    with pytest.raises(FarfeelError, match="this stream takes no video"):
        stream.push_frame(np.zeros((8, 8, 3), np.uint8), 0.0)
    with pytest.raises(FarfeelError, match="modalities=video is not possible"):
        recognizer.stream(16000, modalities="video")


def test_a_detector_is_not_sent_to_processes(recognizer: Recognizer) -> None:
    from farfeel.media.face import FaceDetector

    with pytest.raises(FarfeelError, match="a detector cannot be sent to 2 worker processes"):
        recognizer.predict_many([], detector=FaceDetector(), workers=2)
