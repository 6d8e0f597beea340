"""The folder of a run: what it may hold before a training starts."""

from __future__ import annotations

from pathlib import Path

from farfeel.support.files import require_replaceable, require_writable_folder
from farfeel.types import FarfeelError


def require_run_folder(out: Path, resume: bool) -> None:
    """Raise FarfeelError unless `out` is new, empty, or the folder of a run.

    A fresh start removes top/ and best/, which must not be somebody's own.
    """
    require_writable_folder(out / "best")
    if (out / "last.ckpt").exists():
        if not resume:
            raise FarfeelError(
                f"{out} already holds a run; add --resume to continue it, choose another --out, or delete it"
            )
        return
    require_replaceable(
        out, ("recipe.yaml", "metrics.csv", "events.out.*", "top", "best", ".*.partial", ".*.old"), "a run"
    )
    require_replaceable(out / "top", ("epoch_*", ".*.partial", ".*.old"), "a run")
    require_replaceable(out / "best", ("model.safetensors", "recipe.yaml", "card.md"), "a run")
