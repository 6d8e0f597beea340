"""What the page shows: spectrograms, bars and the timeline. Pictures are (H, W, 3) uint8 BGR; the rest is HTML and SVG
of our own, in which nothing but numbers and escaped words stand, so that the page needs nothing from elsewhere."""

from __future__ import annotations

import html
import re
from typing import Any

import cv2
import numpy as np
from scipy.signal import ShortTimeFFT

from farfeel.media.mel import POWER_FLOOR, mel_filters
from farfeel.recipe import Audio

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
        f"<figcaption>{caption.format(place)}</figcaption></figure>"
        for place, content in enumerate(views[kind])
        if BASE64.fullmatch(content)
    ]
    title, nothing = (
        ("What the microphones heard", "No sound was used.")
        if kind == "mels"
        else ("The face, as the model saw it", "No film was used.")
    )
    return f'<h3>{title}</h3><div class="ff-{kind}">{"".join(shown) or f"<p>{nothing}</p>"}</div>'


def timeline_chart(timeline: dict[str, Any], colours: dict[str, str]) -> str:
    """A line for each emotion over the middles of the windows; where somebody speaks is dark below."""
    width, height, left, bottom = 900, 240, 40, 40
    seconds = max(timeline["seconds"], 1e-3)

    def x(moment_s: float) -> float:
        return left + (width - left - 10) * min(max(moment_s / seconds, 0), 1)

    def y(p: float) -> float:
        return 10 + (height - bottom - 10) * (1 - p)

    parts = [
        f'<line x1="{left}" x2="{width - 10}" y1="{y(p):.0f}" y2="{y(p):.0f}" class="ff-grid"/>'
        f'<text x="{left - 6}" y="{y(p) + 4:.0f}" text-anchor="end">{p:.0%}</text>'
        for p in (0, 0.5, 1)
    ]
    for moment_s in np.linspace(0, seconds, 7):
        anchor = "end" if moment_s == seconds else "middle"
        parts.append(f'<text x="{x(moment_s):.0f}" y="{height - 6}" text-anchor="{anchor}">{moment_s:.1f} s</text>')
    for start_s, end_s in timeline["speech"]:
        span = f'x="{x(start_s):.1f}" width="{max(x(end_s) - x(start_s), 1):.1f}"'
        parts.append(f'<rect {span} y="{height - bottom + 6}" height="8" class="ff-speech"/>')
    for emotion, colour in colours.items():
        for run in _runs(timeline["predictions"], emotion):
            points = " ".join(f"{x(moment_s):.1f},{y(p):.1f}" for moment_s, p in run)
            dots = "".join(f'<circle cx="{x(m):.1f}" cy="{y(p):.1f}" r="2.5" fill="{colour}"/>' for m, p in run)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}')
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{html.escape(emotion)}</span>' for emotion, colour in colours.items()
    )
    return (
        f'<div class="ff-timeline"><h3>Timeline</h3><svg viewBox="0 0 {width} {height}" role="img">'
        f'{"".join(parts)}</svg><p>{legend}<span><i class="ff-speech"></i>speech</span></p></div>'
    )


def _runs(predictions: list[dict[str, Any]], emotion: str) -> list[list[tuple[float, float]]]:
    """(middle of the window, probability), broken where nothing was classified."""
    runs: list[list[tuple[float, float]]] = [[]]
    for prediction in predictions:
        if emotion in prediction["probabilities"]:
            middle_s = (prediction["start_s"] + prediction["end_s"]) / 2
            runs[-1].append((middle_s, prediction["probabilities"][emotion]))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
