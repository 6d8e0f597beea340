"""The clips of a corpus, decoded: their audio and their video as a recipe wants them, cached in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from farfeel.media.audio import read_audio, speech_span
from farfeel.media.face_video import FaceVideo, face_video_of
from farfeel.recipe import Recipe
from farfeel.types import Clip, FarfeelError

CACHE_BYTES = 4 << 30  # Dry clips kept in memory; RAVDESS whole takes 0.3 GB.


class DecodedClips:
    """Decoded clips of a corpus, cached in memory: what the recipe's modalities need of them."""

    def __init__(self, clips: Sequence[Clip], recipe: Recipe, trim: bool) -> None:
        self.clips, self.recipe, self.trim = list(clips), recipe, trim
        self._dry: dict[int, tuple[np.ndarray, float]] = {}
        self._footage: dict[int, FaceVideo] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.clips)

    def dry(self, index: int) -> tuple[np.ndarray, float] | None:
        """The clip's sound (T,), mono, and the second at which it begins: 0 but for silence trimmed off."""
        clip = self.clips[index]
        if clip.audio is None or self.recipe.modalities == "video":
            return None
        found = self._dry.get(index)
        if found is None:
            # Five published RAVDESS files are stereo, with the same voice in both channels.
            dry = read_audio(clip.audio, self.recipe.audio.sample_rate, clip.start_s, clip.end_s).mean(axis=0)
            first, last = speech_span(dry[None], self.recipe.audio.sample_rate) if self.trim else (0, len(dry))
            found = dry[first:last], first / self.recipe.audio.sample_rate
            if self._fits(found[0].nbytes):
                self._dry[index] = found
        return found

    def footage(self, index: int) -> FaceVideo | None:
        """The clip's film, in the time of its sound."""
        clip = self.clips[index]
        if clip.video is None or self.recipe.modalities == "audio":
            return None
        found = self._footage.get(index)
        if found is None:
            found = face_video_of(clip, self.recipe)
            # One that is decoded anew for each window would only gather its crops, epoch after epoch.
            if found.is_decoded_once and self._fits(found.decoded_bytes):
                self._footage[index] = found
        return found

    def _fits(self, size: int) -> bool:
        if self._cached_bytes + size > CACHE_BYTES:
            return False
        self._cached_bytes += size
        return True


def usable_clips(clips: Sequence[Clip], recipe: Recipe, what: str, to_train: bool = True) -> list[Clip]:
    """Clips whose emotion the recipe knows and that have what it takes: sound, film, or one of the two; an error where
    there is none, and where films are to be trained on and no clip has one. `what` names them in the error."""
    known = [clip for clip in clips if clip.emotion in recipe.data.emotions]
    if not known:
        found = sorted({clip.emotion for clip in clips})
        raise FarfeelError(
            f"{what} has no clip of {', '.join(recipe.data.emotions)}; found {', '.join(found) or 'no clip'}; "
            "choose other data or data.emotions"
        )
    heard = [clip for clip in known if clip.audio is not None]
    seen = [clip for clip in known if clip.video is not None]
    usable = {"audio": heard, "video": seen, "both": known}[recipe.modalities]
    if not usable or (to_train and recipe.modalities == "both" and not seen):
        lacking, rest = ("sound", "video") if recipe.modalities == "audio" else ("film", "audio")
        raise FarfeelError(
            f"{what}: none of {len(known)} clips has a {lacking}, the recipe's modalities are {recipe.modalities}; "
            f"add the {lacking}s, or set modalities={rest} (in a test of both: --modalities {rest})"
        )
    return usable
