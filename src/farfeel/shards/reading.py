"""Read a prepared corpus: the clips of its shards, and the examples of each clip.

These clips are split, weighed and counted like any others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from farfeel.media.face_windows import frame_times, nearest_frames
from farfeel.recipe import Recipe
from farfeel.shards.store import Example, Shards
from farfeel.types import Clip, FarfeelError


def clips_of(shards: Shards) -> list[Clip]:
    """The clips of prepared shards, each once; `audio` and `video` name the shard, where the clip has that modality."""
    clips: dict[tuple[str, str], Clip] = {}
    for row in shards.rows:
        names = {name: row[name] for name in ("corpus", "speaker", "emotion", "sentence", "intensity")}
        audio, video = (None if row[f"{part}_at"] is None else Path(row["shard"]) for part in ("audio", "face"))
        clips.setdefault((row["corpus"], row["clip"]), Clip(id=row["clip"], audio=audio, video=video, **names))
    return sorted(clips.values(), key=lambda clip: (clip.corpus, clip.speaker, clip.id))


def require_prepared_for(shards: Shards, recipe: Recipe, to_train: bool) -> None:
    """Raise FarfeelError where the shards were not prepared for this recipe; for a test they may be without video."""
    if shards.sample_rate != recipe.audio.sample_rate:
        raise FarfeelError(
            f"{shards.address} was prepared at {shards.sample_rate} Hz, the recipe has {recipe.audio.sample_rate} "
            "Hz; prepare it with that recipe"
        )
    video = shards.facts["video"]
    if recipe.modalities != "audio" and (video or to_train or recipe.modalities == "video"):
        if video is None:
            raise FarfeelError(f"{shards.address} was prepared without video; prepare it with modalities=both")
        ours = recipe.video.model_dump(mode="json")
        cropping = ("size", "frames", "crop", "margin")
        if differing := [name for name in cropping if video[name] != ours[name]]:
            raise FarfeelError(
                f"{shards.address} was prepared with other video.{', video.'.join(differing)} than the recipe's; "
                "prepare it with that recipe"
            )


class StoredFaceVideo:
    """The face in a prepared corpus, a FaceWindows: its frames were decoded and cropped when the corpus was made."""

    def __init__(self, example: Example, recipe: Recipe) -> None:
        assert example.frames is not None
        assert example.at_s is not None
        self.begin_s, self.end_s, self.was_used = example.begin_s, example.end_s, False
        self._count, self._at_s, self._pixels = recipe.video.frames, example.at_s, example.frames
        # A single frame is that of a still, which stands for all times.
        self._spacing_s = recipe.audio.seconds / self._count + 1e-6 if len(example.at_s) > 1 else np.inf

    @property
    def seconds(self) -> float:
        """From the beginning of the recording to the last frame."""
        return self.end_s

    @property
    def warnings(self) -> tuple[str, ...]:
        """None: a prepared corpus does not keep them."""
        return ()

    def frames(self, start_s: float, end_s: float) -> np.ndarray | None:
        """(N, S, S, 3) uint8 for a window; None where there are frames of less than half of it."""
        times_s = frame_times(start_s, end_s, self.begin_s, self.end_s, self._count)
        if times_s is None:
            return None
        spacing_s = max(self._spacing_s, (end_s - start_s) / self._count + 1e-6)
        frames = nearest_frames(times_s, self._at_s, self._pixels, spacing_s)
        self.was_used |= frames is not None
        return frames


def examples_of(shards: Shards, clips: Sequence[Clip]) -> list[list[int]]:
    """The indices of each clip's examples, in the order of renderings."""
    indices: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in sorted(range(len(shards)), key=lambda index: shards.rows[index]["rendering"]):
        indices[shards.rows[index]["corpus"], shards.rows[index]["clip"]].append(index)
    # With several corpora, a clip's name begins with that of its corpus.
    return [indices[clip.corpus, clip.id.removeprefix(f"{clip.corpus}/")] for clip in clips]
