"""What the page shows: spectrograms, bars and the timeline.

Pictures are (H, W, 3) uint8 BGR. The rest is HTML and SVG that holds only numbers and escaped words. Nothing comes from
another host.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from scipy.signal import ShortTimeFFT

from farfeel.media.mel import POWER_FLOOR, mel_filters
from farfeel.recipe import Audio
from farfeel.show.drawing import draw
from farfeel.types import Prediction, Timeline

COLUMNS = 900  # pixels of a spectrogram, at most
RANGE_DB = 70.0  # from the loudest to black
BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def mel_picture(samples: np.ndarray, audio: Audio) -> np.ndarray:
    """(T,) → a picture of the log-mel spectrogram, low bands at the bottom. The bands are the model's own; long
    recordings have fewer columns than the model has frames."""
    window = np.hanning(audio.n_fft)
    hop = max(audio.hop, len(samples) // COLUMNS)
    transform = ShortTimeFFT(window, hop, audio.sample_rate, fft_mode="onesided")
    padded = np.pad(samples, (0, max(0, audio.n_fft - len(samples))))
    power = np.square(np.abs(transform.stft(padded))).astype(np.float32)
    filters = mel_filters(audio.sample_rate, audio.n_fft, audio.mel_bands, audio.fmin_hz, audio.fmax_hz)
    mels_db = 10 * np.log10(np.maximum(filters.T @ power, POWER_FLOOR))
    share = np.clip(1 + (mels_db - mels_db.max()) / RANGE_DB, 0, 1)
    picture = cv2.applyColorMap(np.ascontiguousarray((255 * share[::-1]).astype(np.uint8)), cv2.COLORMAP_MAGMA)
    return np.asarray(cv2.resize(picture, None, fx=1, fy=2, interpolation=cv2.INTER_NEAREST))


def bars(prediction: dict[str, Any], colours: dict[str, str]) -> str:
    """The label, and a bar for each emotion."""
    label = prediction["label"] or "no answer: not sure enough"
    rows = "".join(
        f'<div class="ff-row"><span>{html.escape(emotion)}</span><div><i style="width:{100 * p:.1f}%;'
        f'background:{colours[emotion]}"></i></div><b>{p:.0%}</b></div>'
        for emotion, p in prediction["probabilities"].items()
    )
    used = " + ".join(prediction["modalities"]) or "nothing"
    microphones = prediction["microphones"]
    about = f"{prediction['end_s']:.1f} s, from {used}"
    if microphones:
        about += f", {microphones} microphone{'s' * (microphones != 1)}"
    warnings = "".join(f"<li>{html.escape(warning)}</li>" for warning in prediction["warnings"])
    return (
        f'<div class="ff-answer"><h2 id="ff-label">{html.escape(label)}</h2><p>{html.escape(about)}</p>{rows}'
        f"<ul>{warnings}</ul></div>"
    )


def images(views: dict[str, list[str]], kind: str) -> str:
    """The worker's pictures (mels or faces), embedded; each with its caption."""
    form, caption = ("png", "microphone {}") if kind == "mels" else ("jpeg", "")
    shown = [
        f'<figure><img alt="{kind[:-1]}" src="data:image/{form};base64,{content}"/>'
        f"<figcaption>{caption.format(index)}</figcaption></figure>"
        for index, content in enumerate(views[kind])
        if BASE64.fullmatch(content)
    ]
    title, nothing = (
        ("Spectrograms of the microphones", "No audio was used.")
        if kind == "mels"
        else ("The face, as the model gets it", "No video was used.")
    )
    return f'<h3>{title}</h3><div class="ff-{kind}">{"".join(shown) or f"<p>{nothing}</p>"}</div>'


def timeline_chart(answer: dict[str, Any], emotions: Sequence[str]) -> str:
    """A worker's timeline as the drawing that the HTML report has."""
    timeline = Timeline(
        predictions=tuple(_prediction(row, tuple(emotions)) for row in answer["predictions"]),
        speech=tuple((start_s, end_s) for start_s, end_s in answer["speech"]),
        seconds=answer["seconds"],
        step_s=answer["step_s"],
        window_s=answer["window_s"],
    )
    return f"<h3>Timeline</h3>{draw(timeline, emotions)}"


def _prediction(row: dict[str, Any], emotions: tuple[str, ...]) -> Prediction:
    """A window of a worker's timeline; no probabilities where nobody speaks, no label where it is undecided."""
    shares = row["probabilities"]
    probabilities = tuple(shares[emotion] for emotion in emotions) if shares else ()
    return Prediction(probabilities, emotions, row["start_s"], row["end_s"], decided=row["label"] is not None)
