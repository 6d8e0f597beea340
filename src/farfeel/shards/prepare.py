"""Prepare a corpus once: every clip as the microphones of some rooms recorded it, in tar shards.

The room and the position in it follow from the seed and the clip's name alone. Each clip has its own permutation of the
bank's responses, and rendering r has the r-th of them. So no two renderings of a clip are alike. With as many
renderings as the bank has responses, each clip is rendered with every response. Noise is not added, because adding it
anew in each epoch costs nothing. One process makes a shard, from the number of the shard alone. So the same seed gives
the same bytes with any number of processes, also if some of them were killed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farfeel.media.face_video import face_video_of
from farfeel.media.microphone_files import read_files
from farfeel.recipe import Recipe
from farfeel.rooms.bank import TABLE, Bank
from farfeel.rooms.scene import in_room, response_of
from farfeel.shards.store import (
    INDEX,
    MOST_CHANNELS,
    PARAMETERS,
    PATTERN,
    VERSION,
    Example,
    Shards,
    write_index,
    write_shard,
)
from farfeel.support.files import replacing_file, require_replaceable
from farfeel.support.parameters import read_parameters, require_same
from farfeel.support.pool import Runner, run_all
from farfeel.types import Clip, FarfeelError

PER_SHARD = 128  # examples: some 50 MB of seven microphones
POSITIONS, ORDER = 1, 2  # last words of seeds


@dataclass(frozen=True)
class Job:
    """All that a process needs to make any shard."""

    clips: tuple[Clip, ...]
    recipe: Recipe
    bank: Path | None
    mics: tuple[int, ...]
    renderings: int
    seed: int
    per_shard: int
    out: Path

    @property
    def shards(self) -> int:
        return -(-len(self.clips) * self.renderings // self.per_shard)

    def file(self, number: int) -> Path:
        return self.out / PATTERN.replace("*", f"{number:05d}")


def prepare(
    clips: Sequence[Clip],
    recipe: Recipe,
    bank: Bank | None,
    out: Path,
    mics: Sequence[int] = (0,),
    renderings: int = 1,
    seed: int = 1,
    per_shard: int = PER_SHARD,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
    run: Runner = run_all,
) -> Shards:
    """Clips → the folder `out` of shards; no bank: dry, one channel. What is there already of the same is kept.

    Raises FarfeelError where `out` holds something else, or was made of other things.
    """
    out = require_replaceable(out, (INDEX, PARAMETERS, PATTERN, ".*.partial"), "a prepared corpus")
    job = Job(tuple(clips), recipe, bank.path if bank else None, tuple(mics), renderings, seed, per_shard, out)
    parameters = _require_possible(job, bank)
    if (out / PARAMETERS).exists():
        require_same(
            read_parameters(out / PARAMETERS),
            parameters,
            f"{out} was prepared with other parameters",
            "prepare the same, choose another --out, or remove the folder",
        )
    with replacing_file(out / PARAMETERS) as partial:
        partial.write_text(json.dumps(parameters, indent=2, sort_keys=True) + "\n")
    todo = [number for number in range(job.shards) if not job.file(number).exists()]
    if todo or not (out / INDEX).exists():
        (out / INDEX).unlink(missing_ok=True)
        made = run(functools.partial(make_shard, job), todo, workers)
        for done, _ in enumerate(made, start=job.shards - len(todo) + 1):
            if on_progress:
                on_progress(done, job.shards)
        facts = {name: parameters[name] for name in ("sample_rate", "mics", "seconds", "video")}
        write_index(out, [job.file(number) for number in range(job.shards)], facts)
    return Shards.open(out)


def make_shard(job: Job, number: int) -> int:
    """Write one shard; its number."""
    bank = Bank.open(job.bank) if job.bank else None
    write_shard(job.file(number), _examples(job, bank, number), job.recipe.audio.sample_rate)
    return number


def _examples(job: Job, bank: Bank | None, number: int) -> Iterator[tuple[dict[str, Any], Example]]:
    """In random order: a reader of one shard after another gets all speakers mixed."""
    total = len(job.clips) * job.renderings
    order = np.random.default_rng((job.seed, ORDER)).permutation(total)
    for index in order[number * job.per_shard : (number + 1) * job.per_shard]:
        clip_index, rendering = divmod(int(index), job.renderings)
        clip = job.clips[clip_index]
        facts: dict[str, Any] = {"key": key_of(clip, rendering), "clip": clip.id, "rendering": rendering}
        facts |= {name: getattr(clip, name) for name in ("corpus", "speaker", "emotion", "sentence", "intensity")}
        audio = None
        if clip.audio is not None and job.recipe.modalities != "video":
            channels, _ = read_files(clip.audio_files, job.recipe.audio.sample_rate, clip.start_s, clip.end_s)
            audio = channels.mean(axis=0, keepdims=True)
        facts |= {"room": "", "position": ""}
        if bank is not None and audio is not None:
            rng = np.random.default_rng((job.seed, POSITIONS, zlib.crc32(f"{clip.corpus}|{clip.id}".encode())))
            response = int(rng.permutation(len(bank))[rendering])
            facts |= {"room": bank[response].room, "position": bank[response].position}
            audio = in_room(audio[0], response_of(bank, response, job.mics))
        if clip.video is None or job.recipe.modalities == "audio":
            yield facts, Example(audio)
        else:
            footage = face_video_of(clip, job.recipe)
            at_s, frames = footage.all_frames()
            if len(frames):
                yield facts, Example(audio, frames, at_s, footage.begin_s, footage.end_s)
            else:  # no face in it
                yield facts, Example(audio)


def key_of(clip: Clip, rendering: int) -> str:
    """A name for tar and for WebDataset, whose names end at the first dot."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{clip.corpus}-{clip.id}")
    if name != f"{clip.corpus}-{clip.id}" or len(name) > 80:
        name = f"{name[:70]}-{zlib.crc32(f'{clip.corpus}|{clip.id}'.encode()):08x}"
    return f"{name}-r{rendering:04d}"


def _require_possible(job: Job, bank: Bank | None) -> dict[str, Any]:
    """What parameters.json holds. Raises FarfeelError where these things cannot be made."""
    if len(job.mics) > MOST_CHANNELS:
        raise FarfeelError(f"{len(job.mics)} microphones, a FLAC file takes {MOST_CHANNELS}; choose them with --mics")
    most = len(bank) if bank else 1
    if not 1 <= job.renderings <= most:
        raise FarfeelError(
            f"{job.renderings} renderings of each clip, expected 1 to {most} (as many as there are responses); "
            "ask for fewer or bring more rooms"
        )
    met: dict[str, Clip] = {}
    for clip in job.clips:
        if other := met.get(key_of(clip, 0)):
            raise FarfeelError(
                f"{clip.corpus} has two clips {clip.id} ({other.audio or other.video}, {clip.audio or clip.video}); "
                "expected each once; rename one, or prepare two corpora"
            )
        met[key_of(clip, 0)] = clip
    recipe, digest = job.recipe, hashlib.sha256()
    for clip in job.clips:
        digest.update(f"{clip.corpus}|{clip.id}|{clip.speaker}|{clip.emotion}|{clip.start_s}|{clip.end_s}\n".encode())
    return {
        "version": VERSION,
        "clips": len(job.clips),
        "clips_sha256": digest.hexdigest(),
        "rooms": bank_digest(bank),
        "mics": len(job.mics) if bank else 1,
        "microphones": list(job.mics) if bank else [0],
        "renderings": job.renderings,
        "seed": job.seed,
        "per_shard": job.per_shard,
        "sample_rate": recipe.audio.sample_rate,
        "seconds": recipe.audio.seconds,
        "video": None if recipe.modalities == "audio" else recipe.video.model_dump(mode="json"),
    }


def bank_digest(bank: Bank | None) -> str:
    """A checksum of the bank: its table, and its numbers of responses and microphones; "" where there is no bank."""
    if bank is None:
        return ""
    return hashlib.sha256((bank.path / TABLE).read_bytes() + f"|{len(bank)}|{bank.mics}".encode()).hexdigest()
