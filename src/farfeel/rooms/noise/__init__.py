"""Kinds of noise: one class in one file each, found by `farfeel.variants.NOISES`.

Another package adds a kind with a class and one line in its pyproject.toml:

    [project.entry-points."farfeel.noises"]
    hum = "my_package.hum:Hum"

Recipes (`rooms.noise`) and `farfeel evaluate --noise` then take its name. This module imports nothing that is slow:
the names of all kinds are listed in help texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from farfeel.types import FarfeelError
from farfeel.variants import NOISES

if TYPE_CHECKING:
    import numpy as np

    from farfeel.rooms.scene import Material, Scene


class Noise:
    """One kind of noise. The first line of the docstring is its help text.

    OF_EACH_MICROPHONE: the noise is that of the microphones themselves. A test then sets it below the speech of each
    microphone, and not below the speech of all microphones together.
    """

    OF_EACH_MICROPHONE: ClassVar[bool] = False

    def lacks(self, material: Material) -> str:
        """What the material lacks for this kind of noise, as in "it needs a second speaker"; "" where it has all.

        Raises FarfeelError where a setting is missing or wrong.
        """
        return ""

    def make(self, scene: Scene) -> np.ndarray:
        """(M, T) float32 at the microphones of a scene, at any level: the level is set later.

        Everything random is drawn from `scene.rng` and the scene's own `draw_` functions.
        """
        raise NotImplementedError


def kind_of(name: str) -> Noise:
    """The kind of noise of that name. Raises FarfeelError where there is none."""
    kind: Noise = NOISES.build(name, "rooms.noise", {})
    return kind


def usable(names: Sequence[str], material: Material, remedy: str) -> tuple[list[str], dict[str, str]]:
    """The kinds that the material allows, and for each other kind what it lacks.

    remedy: what the user can do, for the error. Raises FarfeelError where no kind is left.
    """
    lacking = {name: lacks for name in names if (lacks := kind_of(name).lacks(material))}
    kinds = [name for name in names if name not in lacking]
    if not kinds:
        raise FarfeelError(f"{'; '.join(f'{name}: {lacks}' for name, lacks in lacking.items())}; {remedy}")
    return kinds, lacking
