"""Everything that comes in variants, by name. A recipe or an option names one; `farfeel recipe` and `--help` list them.

Another package adds one with a class or function and a line in its pyproject.toml:

    [project.entry-points."farfeel.microphones"]
    loudest = "my_package.loudest:Loudest"

This module imports none of them: see `farfeel.support.registry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from farfeel.support.registry import Registry

if TYPE_CHECKING:
    from farfeel.corpora.corpus import Corpus

MICROPHONES: Registry[Any] = Registry(
    "farfeel.microphones", "farfeel.models.microphones", "microphone strategy", "MicFusion"
)
FUSIONS: Registry[Any] = Registry("farfeel.fusion", "farfeel.models.fusion", "late fusion", "LateFusion")
AUDIO_NETWORKS: Registry[Any] = Registry(
    "farfeel.audio_networks", "farfeel.models.audio_networks", "audio network", "AudioNetwork"
)
VIDEO_NETWORKS: Registry[Any] = Registry(
    "farfeel.video_networks", "farfeel.models.video_networks", "video network", "VideoNetwork"
)
CORPORA: Registry[Corpus] = Registry("farfeel.corpora", "farfeel.corpora.readers", "corpus")
ROOM_IMPORTERS: Registry[Any] = Registry(
    "farfeel.room_importers", "farfeel.rooms.importers", "layout of measured rooms"
)
NOISES: Registry[Any] = Registry("farfeel.noises", "farfeel.rooms.noise", "kind of noise", "Noise")
