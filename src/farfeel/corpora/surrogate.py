"""Surrogate videos: the utterances of a speech corpus with faces of other people who have the same emotion.

They are for developing and testing audio-visual models without audio-visual recordings. Each utterance is paired with
ONE still of a face. A video is made from it with the movement, light and noise of a camera. The lips do not follow the
words, the face does not move, and voice and face are independent given the emotion. **A result on such videos is no
result on videos of people who speak, and cannot be compared with one.** So the corpus is called
`<corpus>-surrogate`, and cards and reports say so.

The pairs keep the parts of one split separate. Training speakers have stills of `train`. Validation speakers and test
speakers each have one half of the stills of `validation`, halved by their bytes. A picture that is there twice counts
once, in `train` rather than in `validation`. Within a part, no two speakers share a still where there are enough
stills. A speaker's utterances use the speaker's stills as evenly as possible. Calm utterances have neutral faces. Train
and test on the same split: on another split, one still would be both in training and in test.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from farfeel.corpora.corpus import SURROGATE
from farfeel.corpora.scan import write_manifest
from farfeel.corpora.splits import PARTS, split_clips
from farfeel.corpora.video_files import write_video
from farfeel.media.audio import audio_info
from farfeel.media.camera import simulate_camera
from farfeel.recipe import Camera
from farfeel.support.console import quiet_libraries
from farfeel.support.files import replacing_file, require_replaceable
from farfeel.support.parameters import read_parameters, require_same
from farfeel.types import Clip, FarfeelError

VERSION = 1  # Raise it when videos change: folders of another version are refused.
FPS = 10.0  # R(2+1)D uses fewer; a face moves slowly here.
SIDE = 96  # pixels, twice FER2013's
QUALITY = 23
CAMERA = Camera(shift=0.05, zoom=0.12, turn_deg=6.0, drift=0.04, light=0.15, noise=0.02)
MANIFEST, PAIRS = "manifest.parquet", "pairs.parquet"
_MARKER = "surrogate.json"  # what the videos in a folder are made from


@dataclass(frozen=True)
class Pair:
    """An utterance, the still that its video is made from, and the utterance's part of the split."""

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
    """Make a video for each clip in the folder `out`, with a manifest and the table of pairs. Returns the pairs.

    The folder appears when it is complete; until then, its videos are in `.NAME.partial` beside it. An interrupted run
    can be resumed: call it again. The same arguments give the same bytes with any number of workers
    (threads; all cores by default). progress: called with the number of videos done and of all videos. Raises
    FarfeelError where an emotion has no still in a part, where `out` was made from other things, or where a still
    cannot be decoded.
    """
    ours = (_MARKER, MANIFEST, PAIRS, "films", ".*.partial") if (out / _MARKER).exists() else ()
    out = require_replaceable(out, ours, "a surrogate corpus")
    pairs = pair(clips, stills, split, seed)
    # A folder of the same parameters is completed where it is. A new one is made under another name, then renamed.
    folder = out if (out / _MARKER).exists() else out.with_name(f".{out.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    _start_or_resume(folder, pairs, split, seed)
    videos = [Path("films") / pairing.clip.speaker / f"{pairing.clip.id}.mp4" for pairing in pairs]
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:  # Warping and encoding release Python's lock.
        made = pool.map(lambda pairing, video: _make_video(pairing, folder / video, seed), pairs, videos)
        try:
            for done, _ in enumerate(made, start=1):
                if progress:
                    progress(done, len(pairs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    with replacing_file(folder / PAIRS) as path:
        columns = {
            "clip": [pairing.clip.id for pairing in pairs],
            "still": [pairing.still.id for pairing in pairs],
            "part": [pairing.part for pairing in pairs],
        }
        pq.write_table(pa.table(columns), path)
    with_videos = [
        replace(
            pairing.clip,
            corpus=pairing.clip.corpus.removesuffix(SURROGATE) + SURROGATE,
            video=out / video,
            video_offset_s=0.0 - pairing.clip.start_s,  # the video begins with the utterance
            face="whole",
        )
        for pairing, video in zip(pairs, videos, strict=True)
    ]
    write_manifest(with_videos, folder / MANIFEST, out)
    if folder != out:
        folder.replace(out)
    return pairs


def pair(clips: Sequence[Clip], stills: Sequence[Clip], split: str, seed: int) -> list[Pair]:
    """Each clip with a still of its emotion, by speaker and id. The rules are in the module's docstring."""
    parts = split_clips(clips, split)
    pools = _pools(stills)
    pairs = []
    for part in PARTS:
        of_speaker: dict[tuple[str, str], list[Clip]] = defaultdict(list)
        for clip in sorted(getattr(parts, part), key=lambda clip: (clip.speaker, clip.id)):
            of_speaker[_face_of(clip.emotion), clip.speaker].append(clip)
        for emotion in sorted({emotion for emotion, _ in of_speaker}):
            pool = pools[part, emotion]
            if not pool:
                raise FarfeelError(
                    f"no still of {emotion} for the {part} part of {split}; expected one or more in "
                    f"{'train' if part == 'train' else 'validation'}/{emotion}; add some or remove {emotion}"
                )
            rng = np.random.default_rng((seed, zlib.crc32(f"{part}|{emotion}".encode())))
            shuffled = [pool[i] for i in rng.permutation(len(pool))]
            speakers = sorted(speaker for known, speaker in of_speaker if known == emotion)
            for turn, speaker in enumerate(speakers):
                own = shuffled[turn :: len(speakers)] or [shuffled[turn % len(shuffled)]]
                for number, clip in enumerate(of_speaker[emotion, speaker]):
                    pairs.append(Pair(clip, own[number % len(own)], part))
    return sorted(pairs, key=lambda pairing: (pairing.clip.speaker, pairing.clip.id))


def _face_of(emotion: str) -> str:
    """The emotion of the face for an emotion of the voice: sets of stills have no calm."""
    return "neutral" if emotion == "calm" else emotion


def _pools(stills: Sequence[Clip]) -> dict[tuple[str, str], list[Clip]]:
    """(part of the speech corpus, emotion) → stills, in order of their ids."""
    pools: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    digests: set[bytes] = set()  # FER2013 has many pictures twice, some in training and in validation.
    for still in sorted(stills, key=lambda still: still.id):  # "train/…" comes before "validation/…"
        folder, digest = still.id.partition("/")[0], hashlib.sha256(_path(still).read_bytes()).digest()
        if folder == "test" or digest in digests:
            continue
        digests.add(digest)
        part = "train" if folder == "train" else PARTS[1 + digest[0] % 2]
        pools[part, still.emotion].append(still)
    return pools


def _start_or_resume(out: Path, pairs: Sequence[Pair], split: str, seed: int) -> None:
    """Write what the videos are made from beside them. Raise FarfeelError for a folder with other files."""
    digest = hashlib.sha256()
    for pairing in pairs:
        clip = pairing.clip
        facts = (clip.id, clip.corpus, str(clip.audio), clip.start_s, clip.end_s, pairing.still.id)
        digest.update(json.dumps(facts).encode() + _path(pairing.still).read_bytes())
    made_from = {"version": VERSION, "split": split, "seed": seed, "pairs": digest.hexdigest()}
    marker = out / _MARKER
    if not marker.exists():
        with replacing_file(marker) as path:
            path.write_text(json.dumps(made_from), encoding="utf-8")
        return
    require_same(
        read_parameters(marker),
        made_from,
        f"{out} holds a surrogate corpus made with other parameters",
        "repeat that command, choose another --out, or remove the folder",
    )


def _make_video(pairing: Pair, video: Path, seed: int) -> None:
    if video.exists():
        return
    path = _path(pairing.still)
    still = None
    with suppress(cv2.error), quiet_libraries():
        still = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    if still is None:
        raise FarfeelError(f"{path} cannot be decoded, expected a JPEG or PNG; copy it again or remove it")
    clip = pairing.clip
    end_s = clip.end_s if clip.end_s is not None or clip.audio is None else audio_info(clip.audio).seconds
    count = max(1, round(((end_s or 0.0) - clip.start_s) * FPS))
    rng = np.random.default_rng((seed, zlib.crc32(clip.id.encode())))
    write_video(video, simulate_camera(still[None], SIDE, count, CAMERA, rng), FPS, QUALITY)


def _path(still: Clip) -> Path:
    if still.video is None:
        raise FarfeelError(f"still {still.id} has no file; scan the stills again")
    return still.video
