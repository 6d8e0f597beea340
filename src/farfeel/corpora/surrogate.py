"""Surrogate films: a speech corpus whose utterances are given the faces of other people with the same emotion.

For developing and testing audio-visual models where no audio-visual recordings are at hand. Each utterance is paired
with ONE still of a face, and a film is made of it by the movement, light and noise of a camera. Lips do not follow the
words, the face does not move by itself, and sound and face are independent given the emotion. **A result on such films
is no result on people filmed while they speak, and is not comparable with one**: so the corpus is named
`<corpus>-surrogate`, and cards and reports say so.

Who is paired with what keeps the parts of one split apart: training speakers have stills of `train`; validation and
test speakers have stills of one half each of `validation`, halved by their bytes. A picture that is there twice counts
once, in `train` rather than in `validation`. Within a part no still is shared by two speakers where there are enough
for all, and a speaker's utterances use his stills as evenly as they can. calm is given neutral faces. Whoever trains
and tests must keep to that split: on another one the same still would be on both sides.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from farfeel.corpora.corpus import SURROGATE
from farfeel.corpora.scan import write_manifest
from farfeel.corpora.splits import PARTS, split_clips
from farfeel.corpora.video_files import write_film
from farfeel.media.audio import audio_info
from farfeel.media.camera import simulate_camera
from farfeel.recipe import Camera
from farfeel.support.files import replacing_file, require_folder_place, require_only
from farfeel.support.parameters import read_parameters, require_same
from farfeel.types import Clip, FarfeelError

VERSION = 1  # Raise it when films change: folders of another version are refused.
FPS = 10.0  # R(2+1)D sees fewer; a face moves slowly here.
SIDE = 96  # pixels, twice FER2013's
QUALITY = 23
CAMERA = Camera(shift=0.05, zoom=0.12, turn_deg=6.0, drift=0.04, light=0.15, noise=0.02)
MANIFEST, PAIRS = "manifest.parquet", "pairs.parquet"
_MARKER = "surrogate.json"  # What the films in a folder are made from.


@dataclass(frozen=True)
class Pair:
    """An utterance and the still that its film is made from; `part` is the utterance's in the split."""

    clip: Clip
    still: Clip
    part: str


def make_surrogate(
    clips: Sequence[Clip],
    stills: Sequence[Clip],
    split: str,
    out: Path,
    seed: int = 1,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Films for all `clips` into the folder `out`, with its manifest and the table of pairs; returns the pairs.

    A killed run goes on where it was; the same arguments give the same bytes, however many `workers` (threads; all
    cores by default) make them. `progress` is called with films done and films in all. Raises FarfeelError where an
    emotion has no still in a part, where `out` was made from something else, or where a still cannot be decoded.
    """
    out = require_folder_place(Path(out))
    pairs = pair(clips, stills, split, seed)
    _start_or_resume(out, pairs, split, seed)
    films = [out / "films" / one.clip.speaker / f"{one.clip.id}.mp4" for one in pairs]
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:  # Warping and encoding leave Python to others.
        made = pool.map(lambda one, film: _make_film(one, film, seed), pairs, films)
        try:
            for done, _ in enumerate(made, start=1):
                if progress:
                    progress(done, len(pairs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    with replacing_file(out / PAIRS) as path:
        columns = {
            "clip": [one.clip.id for one in pairs],
            "still": [one.still.id for one in pairs],
            "part": [one.part for one in pairs],
        }
        pq.write_table(pa.table(columns), path)
    filmed = [
        replace(
            one.clip,
            corpus=one.clip.corpus.removesuffix(SURROGATE) + SURROGATE,
            video=film,
            video_offset_s=0.0 - one.clip.start_s,  # the film begins with the utterance
            face="whole",
        )
        for one, film in zip(pairs, films, strict=True)
    ]
    write_manifest(filmed, out / MANIFEST, out)
    return pairs


def pair(clips: Sequence[Clip], stills: Sequence[Clip], split: str, seed: int) -> list[Pair]:
    """Each clip with a still of its emotion, in the order of speakers and ids. See the module for who gets which."""
    parts = split_clips(clips, split)
    pools = _pools(stills)
    pairs = []
    for part in PARTS:
        of_speaker: dict[tuple[str, str], list[Clip]] = defaultdict(list)
        for clip in sorted(getattr(parts, part), key=lambda clip: (clip.speaker, clip.id)):
            of_speaker[_seen_as(clip.emotion), clip.speaker].append(clip)
        for emotion in sorted({emotion for emotion, _ in of_speaker}):
            pool = pools[part, emotion]
            if not pool:
                raise FarfeelError(
                    f"no still of {emotion} for the {part} part of {split}; expected one or more in "
                    f"{'train' if part == 'train' else 'validation'}/{emotion}; add some or leave {emotion} out"
                )
            rng = np.random.default_rng((seed, zlib.crc32(f"{part}|{emotion}".encode())))
            shuffled = [pool[i] for i in rng.permutation(len(pool))]
            speakers = sorted(speaker for known, speaker in of_speaker if known == emotion)
            for turn, speaker in enumerate(speakers):
                own = shuffled[turn :: len(speakers)] or [shuffled[turn % len(shuffled)]]
                for number, clip in enumerate(of_speaker[emotion, speaker]):
                    pairs.append(Pair(clip, own[number % len(own)], part))
    return sorted(pairs, key=lambda one: (one.clip.speaker, one.clip.id))


def _seen_as(emotion: str) -> str:
    """The emotion of the face for an emotion of the voice: sets of stills have no calm."""
    return "neutral" if emotion == "calm" else emotion


def _pools(stills: Sequence[Clip]) -> dict[tuple[str, str], list[Clip]]:
    """(part of the speech corpus, emotion) → stills, in order of their ids."""
    pools: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    seen: set[bytes] = set()  # FER2013 has many a picture twice, in its training and its validation set too.
    for still in sorted(stills, key=lambda still: still.id):  # "train/…" comes before "validation/…"
        folder, digest = still.id.partition("/")[0], hashlib.sha256(_path(still).read_bytes()).digest()
        if folder == "test" or digest in seen:
            continue
        seen.add(digest)
        part = "train" if folder == "train" else PARTS[1 + digest[0] % 2]
        pools[part, still.emotion].append(still)
    return pools


def _start_or_resume(out: Path, pairs: Sequence[Pair], split: str, seed: int) -> None:
    """Keep what the films are made from beside them; refuse a folder of other films, or of someone else's files."""
    digest = hashlib.sha256()
    for one in pairs:
        facts = (one.clip.id, one.clip.corpus, str(one.clip.audio), one.clip.start_s, one.clip.end_s, one.still.id)
        digest.update(json.dumps(facts).encode() + _path(one.still).read_bytes())
    made_from = {"version": VERSION, "split": split, "seed": seed, "pairs": digest.hexdigest()}
    marker = out / _MARKER
    if not marker.exists():
        require_only(out, (), "a new surrogate corpus")
        with replacing_file(marker) as path:
            path.write_text(json.dumps(made_from), encoding="utf-8")
        return
    require_only(out, (_MARKER, MANIFEST, PAIRS, "films", ".*.partial"), "a surrogate corpus")
    require_same(
        read_parameters(marker),
        made_from,
        f"{out} holds a surrogate corpus made with other parameters",
        "repeat that command, choose another --out, or remove the folder",
    )


def _make_film(one: Pair, film: Path, seed: int) -> None:
    if film.exists():
        return
    path = _path(one.still)
    still = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    if still is None:
        raise FarfeelError(f"{path} cannot be decoded, expected a JPEG or PNG; copy it again or remove it")
    clip = one.clip
    end_s = clip.end_s if clip.end_s is not None or clip.audio is None else audio_info(clip.audio).seconds
    count = max(1, round(((end_s or 0.0) - clip.start_s) * FPS))
    rng = np.random.default_rng((seed, zlib.crc32(clip.id.encode())))
    write_film(film, simulate_camera(still[None], SIDE, count, CAMERA, rng), FPS, QUALITY)


def _path(still: Clip) -> Path:
    if still.video is None:
        raise FarfeelError(f"still {still.id} has no file; scan the stills again")
    return still.video
