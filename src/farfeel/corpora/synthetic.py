"""Makes the synthetic corpus: artificial voices that speak nonsense, and drawn faces, with eight emotions, from a seed.

It is for demonstrations and tests without recordings. A result on it says nothing about people. The audio is 16 kHz,
mono, 16 bit. The video has no audio, 64 x 64 pixels and 12.5 frames a second; it is filled by a face. File names are in
`farfeel.corpora.readers.synthetic`.

No single modality distinguishes all emotions, so fusion can improve on both. Happy and angry have the same voice, and
so do calm and sad (`SAME_VOICE`). Neutral and calm have the same face, and so do fearful and surprised (`SAME_FACE`).
With one modality, at most three clips of four can be recognised; with both, all of them.

A voice is source and filter (Fant, 1960): a glottal pulse train (Rosenberg, 1971) with jitter, shimmer and breath noise
goes through formant resonators (Klatt, 1980) that glide from vowel to vowel (formants of Peterson and Barney, 1952),
with noise bursts for consonants. Speakers differ in pitch, vocal-tract length, rate, loudness and spectral tilt. An
emotion changes pitch level, range and contour, rate, loudness, tilt and roughness relative to the speaker's own. The
directions are those of actors (Banse and Scherer, 1996); the amounts were chosen here. The strength differs from clip
to clip, so emotions overlap. The faces are those of `drawn_faces`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import lfilter, sosfilt

from farfeel.corpora import drawn_faces
from farfeel.corpora.readers.synthetic import sentence_of
from farfeel.corpora.video_files import write_video
from farfeel.support.files import replacing_folder
from farfeel.types import EMOTIONS, FarfeelError

SAMPLE_RATE = 16000
SAME_VOICE = (("happy", "angry"), ("calm", "sad"))
SAME_FACE = (("neutral", "calm"), ("fearful", "surprised"))
VERSION = 2  # Raise it when audio or video changes: folders of another version are made anew.
MAX_COUNT = 99  # Speakers and clips have two digits in a name.
_MARKER = "synthetic.json"  # in each speaker's folder: what it was made from

_VOWELS_HZ = {  # first three formants of a man's vowels
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
_FOURTH_FORMANT_HZ = 3500
_BANDWIDTHS_HZ = (60, 90, 150, 200)
_CONSONANTS_HZ = {"s": 5500, "t": 4000, "k": 2000, "p": 900}  # centre of the noise burst


@dataclass(frozen=True)
class _Voice:
    """A speaker's habits."""

    pitch_hz: float
    tract: float  # formants relative to a man's
    syllables_per_s: float
    level_db: float
    cutoff_hz: float  # of the low-pass that tilts the spectrum
    breath: float


@dataclass(frozen=True)
class _Manner:
    """What an emotion changes in a voice."""

    pitch_st: float = 0.0  # semitones
    range_st: float = 1.5  # of the syllables' accents
    slope_st: float = -2.0  # from the first syllable to the last
    rate_log2: float = 0.0
    level_db: float = 0.0
    effort_oct: float = 0.0  # octaves that the tilt's cutoff moves up
    roughness: float = 0.01  # jitter, share of a period
    tremor_st: float = 0.0
    breath_db: float = 0.0
    smile_log2: float = 0.0  # lips spread: the tract is shorter


_AROUSED = _Manner(3.5, 3.0, -2.0, 0.1, 8.0, 1.2, 0.02, 0.0, -2.0, 0.04)
_SUBDUED = _Manner(-2.0, 0.7, -3.0, 0.0, -7.0, -1.0, 0.015, 0.1, 5.0, -0.02)

_MANNERS = {  # pitch, range, slope, rate, level, effort, roughness, tremor, breath, smile
    # Emotions with one face have one rate: otherwise the lips and the length of the video would distinguish them.
    "neutral": _Manner(),
    "calm": _SUBDUED,
    "happy": _AROUSED,
    "sad": _SUBDUED,
    "angry": _AROUSED,
    "fearful": _Manner(6.0, 1.2, 0.0, 0.2, 0.0, 0.0, 0.04, 0.9, 6.0, 0.03),
    "disgust": _Manner(-2.5, 2.2, -6.0, -0.3, 1.0, 0.3, 0.09, 0.0, 2.0, -0.09),
    "surprised": _Manner(5.0, 3.8, 9.0, 0.2, 4.0, 0.4, 0.01, 0.0, 2.0, 0.02),
}
_SPREAD = _Manner(0.9, 0.35, 1.1, 0.08, 1.5, 0.2, 0.005, 0.1, 1.7, 0.015)
"""Standard deviation between clips of one emotion and speaker."""


def generate(
    root: Path,
    speakers: int = 12,
    clips_per_emotion: int = 6,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the corpus into `root`, one folder per speaker, and return `root`.

    A speaker's folder appears when it is complete. A folder that was made from the same parameters is kept: an
    interrupted run can be resumed. A speaker does not depend on the number of the others. progress: called with the
    number of speakers done and of all speakers. Raises FarfeelError for counts below 1 or above 99.
    """
    root = Path(root)
    for what, count in (("speakers", speakers), ("clips_per_emotion", clips_per_emotion)):
        if not 1 <= count <= MAX_COUNT:
            raise FarfeelError(f"{what} is {count}, expected 1 to {MAX_COUNT}; correct it")
    for speaker in range(1, speakers + 1):
        folder = root / f"speaker_{speaker:02d}"
        recipe = {"version": VERSION, "seed": seed, "speaker": speaker, "clips_per_emotion": clips_per_emotion}
        if not _is_complete(folder, recipe):
            with replacing_folder(folder) as partial:
                _write_speaker(partial, speaker, clips_per_emotion, seed)
                (partial / _MARKER).write_text(json.dumps(recipe), encoding="utf-8")
        if progress:
            progress(speaker, speakers)
    for speaker in range(speakers + 1, MAX_COUNT + 1):  # of a larger corpus that was made here before
        folder = root / f"speaker_{speaker:02d}"
        if (folder / _MARKER).is_file():
            shutil.rmtree(folder)
    return root


def _is_complete(folder: Path, recipe: dict[str, int]) -> bool:
    marker = folder / _MARKER
    if not marker.is_file() or marker.read_text(encoding="utf-8", errors="replace") != json.dumps(recipe):
        return False
    count = len(EMOTIONS) * recipe["clips_per_emotion"]
    return all(len(list(folder.glob(f"synthetic-*{suffix}"))) == count for suffix in (".flac", ".mp4"))


def _write_speaker(folder: Path, speaker: int, clips_per_emotion: int, seed: int) -> None:
    # Voice and face are drawn from their own generators: a change to one does not change the other.
    voice = _draw_voice(speaker, np.random.default_rng((seed, speaker)))
    person = drawn_faces.draw_person(np.random.default_rng((seed, speaker, 0, 0, 1)))
    for index, emotion in enumerate(EMOTIONS):
        for number in range(1, clips_per_emotion + 1):
            path = folder / f"synthetic-{speaker:02d}-{emotion}-{number:02d}"
            rng = np.random.default_rng((seed, speaker, index, number))
            audio = speak(voice, _draw_manner(emotion, rng), sentence_of(number), rng)
            soundfile.write(path.with_suffix(".flac"), audio, SAMPLE_RATE, subtype="PCM_16")
            rng = np.random.default_rng((seed, speaker, index, number, 1))
            frames = drawn_faces.draw_video(person, drawn_faces.draw_expression(emotion, rng), _loudness(audio), rng)
            write_video(path.with_suffix(".mp4"), frames, drawn_faces.FPS)


def _loudness(audio: np.ndarray) -> np.ndarray:
    """(T,) → (N,) RMS during each frame of the video, relative to the loudest."""
    span = round(SAMPLE_RATE / drawn_faces.FPS)
    spans = np.pad(audio, (0, -len(audio) % span)).reshape(-1, span)
    rms = np.sqrt(np.mean(spans**2, axis=1))
    return np.asarray(rms / rms.max())


def _draw_voice(speaker: int, rng: np.random.Generator) -> _Voice:
    low = speaker % 2 == 1
    return _Voice(
        pitch_hz=(115 if low else 200) * 2 ** rng.uniform(-0.25, 0.25),
        tract=(1.0 if low else 1.16) * rng.uniform(0.94, 1.06),
        syllables_per_s=rng.uniform(3.7, 4.7),
        level_db=rng.uniform(-3, 3),
        cutoff_hz=1000 * 2 ** rng.uniform(-0.5, 0.5),
        breath=0.02 * 2 ** rng.uniform(-1, 1),
    )


def _draw_manner(emotion: str, rng: np.random.Generator) -> _Manner:
    """The emotion's manner, stronger or weaker, and with the clip's own deviation in everything."""
    neutral, full, spread = asdict(_MANNERS["neutral"]), asdict(_MANNERS[emotion]), asdict(_SPREAD)
    strength = rng.uniform(0.7, 1.2)
    drawn = {
        name: neutral[name] + strength * (full[name] - neutral[name]) + spread[name] * rng.standard_normal()
        for name in full
    }
    manner = _Manner(**drawn)
    return replace(
        manner,
        range_st=max(manner.range_st, 0.2),
        roughness=max(manner.roughness, 0.002),
        tremor_st=max(manner.tremor_st, 0.0),
    )


def speak(voice: _Voice, manner: _Manner, sentence: str, rng: np.random.Generator) -> np.ndarray:
    """(T,) float64 at 16 kHz: the sentence's syllables in this voice and manner."""
    syllables = sentence.split()
    starts_s, lengths_s, total_s = _draw_timing(len(syllables), voice, manner, rng)
    time_s = np.arange(round(total_s * SAMPLE_RATE)) / SAMPLE_RATE
    centres_s = starts_s + 0.6 * lengths_s

    # Each syllable: closure, burst, vowel. 15 ms and longer ramps, else the onsets click.
    closure_s = np.minimum(0.09, 0.35 * lengths_s)
    ends_s = starts_s + lengths_s
    knots_s = np.stack([starts_s + 0.3 * closure_s, starts_s + closure_s, ends_s - 0.25 * lengths_s, ends_s], axis=1)
    stress = 10 ** (rng.normal(0, 1.5, len(syllables)) / 20)
    heights = np.stack([0.0 * stress, stress, 0.8 * stress, 0.05 * stress], axis=1)
    voicing = np.interp(time_s, knots_s.ravel(), heights.ravel(), left=0, right=0)

    pitch_st = _contour(time_s, centres_s, manner, rng)
    source = _source(voice.pitch_hz * 2 ** (pitch_st / 12), voicing, voice, manner, rng)
    speech = _vowels(source, [syllable[1] for syllable in syllables], time_s, centres_s, voice, manner)
    speech /= np.sqrt(np.mean(speech[voicing > 0.3] ** 2))
    for syllable, start_s, burst_s in zip(syllables, starts_s, closure_s, strict=True):
        _add_burst(speech, _CONSONANTS_HZ[syllable[0]], start_s + 0.4 * burst_s, manner, rng)

    level_db = -30 + voice.level_db + manner.level_db
    speech *= 10 ** (level_db / 20)
    speech += 10 ** (-70 / 20) * rng.standard_normal(len(speech))  # a quiet room: digital silence would be a cue
    return np.asarray(speech * min(1.0, 0.95 / np.abs(speech).max()))


def _draw_timing(
    count: int, voice: _Voice, manner: _Manner, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """Starts (count,), lengths (count,) and the end, in seconds: silence, syllables, a pause between two phrases."""
    lengths_s = np.exp(rng.normal(0, 0.15, count)) / (voice.syllables_per_s * 2**manner.rate_log2)
    pauses_s = np.zeros(count)
    pauses_s[0] = rng.uniform(0.1, 0.25)
    pauses_s[rng.integers(3, count - 2)] = rng.uniform(0.1, 0.35) / 2**manner.rate_log2
    lengths_s[-1] *= 1.4  # final lengthening
    ends_s = np.cumsum(pauses_s + lengths_s)
    return ends_s - lengths_s, lengths_s, ends_s[-1] + rng.uniform(0.1, 0.25)


def _contour(time_s: np.ndarray, centres_s: np.ndarray, manner: _Manner, rng: np.random.Generator) -> np.ndarray:
    """(T,) semitones above the speaker's own pitch: level, slope over the sentence, accents, tremor."""
    position = np.linspace(-0.5, 0.5, len(centres_s))
    accents = manner.range_st * (0.8 * (-1.0) ** np.arange(len(centres_s)) + 0.6 * rng.standard_normal(len(centres_s)))
    syllables_st = manner.pitch_st + manner.slope_st * position + accents
    tremor = manner.tremor_st * np.sin(2 * np.pi * (rng.uniform(5, 7) * time_s + rng.uniform()))
    return np.asarray(np.interp(time_s, centres_s, syllables_st) + tremor)


def _source(
    pitch_hz: np.ndarray, voicing: np.ndarray, voice: _Voice, manner: _Manner, rng: np.random.Generator
) -> np.ndarray:
    """(T,) derivative of the glottal flow with breath noise, its spectrum tilted by the vocal effort."""
    steady = np.cumsum(pitch_hz) / SAMPLE_RATE
    period = steady.astype(int)
    jitter = manner.roughness * rng.standard_normal(period[-1] + 1)[period]
    shimmer = 1 + 3 * manner.roughness * rng.standard_normal(period[-1] + 1)[period]
    phase = (np.cumsum(pitch_hz * (1 + jitter)) / SAMPLE_RATE) % 1
    # Rosenberg (1971), pulse C: opening half a cosine over 40 % of the period, closing a quarter over 16 %.
    opening = 0.5 * (1 - np.cos(np.pi * phase / 0.4))
    closing = np.cos(np.pi / 2 * (phase - 0.4) / 0.16)
    flow = shimmer * np.where(phase < 0.4, opening, np.where(phase < 0.56, closing, 0.0))
    breath = voice.breath * 10 ** (manner.breath_db / 20) * (0.3 + flow) * rng.standard_normal(len(flow))
    cutoff_hz = min(voice.cutoff_hz * 2**manner.effort_oct, 0.45 * SAMPLE_RATE)
    decay = np.exp(-2 * np.pi * cutoff_hz / SAMPLE_RATE)
    return np.asarray(voicing * lfilter([1 - decay], [1, -decay], np.diff(flow, prepend=0.0) + breath))


def _vowels(
    source: np.ndarray, spoken: list[str], time_s: np.ndarray, centres_s: np.ndarray, voice: _Voice, manner: _Manner
) -> np.ndarray:
    """(T,) source through the vowels' resonators, cross-faded from syllable centre to syllable centre."""
    speech = np.zeros_like(source)
    for vowel in sorted(set(spoken)):
        weight = np.interp(time_s, centres_s, [float(vowel == other) for other in spoken])
        formants_hz = np.array([*_VOWELS_HZ[vowel], _FOURTH_FORMANT_HZ]) * voice.tract * 2**manner.smile_log2
        speech += weight * sosfilt(_resonators(formants_hz, np.array(_BANDWIDTHS_HZ)), source)
    return speech


def _resonators(centres_hz: np.ndarray, bandwidths_hz: np.ndarray) -> np.ndarray:
    """(n, 6) second-order sections of unit gain at 0 Hz (Klatt, 1980): y = A x + B y[-1] + C y[-2]."""
    c = -np.exp(-2 * np.pi * bandwidths_hz / SAMPLE_RATE)
    b = 2 * np.exp(-np.pi * bandwidths_hz / SAMPLE_RATE) * np.cos(2 * np.pi * centres_hz / SAMPLE_RATE)
    zero, one = np.zeros_like(b), np.ones_like(b)
    return np.stack([1 - b - c, zero, zero, one, -b, -c], axis=1)


def _add_burst(speech: np.ndarray, centre_hz: float, start_s: float, manner: _Manner, rng: np.random.Generator) -> None:
    """Add 50 ms of decaying coloured noise in place, relative to vowels of unit RMS."""
    start = round(start_s * SAMPLE_RATE)
    length = min(round(0.05 * SAMPLE_RATE), len(speech) - start)
    decay = np.exp(-np.arange(length) / (0.012 * SAMPLE_RATE))
    noise = sosfilt(_resonators(np.array([centre_hz]), np.array([0.4 * centre_hz])), rng.standard_normal(length))
    speech[start : start + length] += 0.4 * 2**manner.effort_oct * decay * noise / np.abs(noise).max()
