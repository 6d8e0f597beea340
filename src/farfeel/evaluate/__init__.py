"""Evaluation: the test set, the run, metrics, comparison, tables, the report. The package itself can be called:
`farfeel.evaluate(...)` is the function below, and `farfeel.evaluate.metrics` is still a module of it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from farfeel.evaluate.clips import Corpus
    from farfeel.evaluate.metrics import Metrics
    from farfeel.recognise.recognizer import Recognizer


def evaluate(
    checkpoint: str | os.PathLike[str] | Recognizer | None,
    corpus: Corpus,
    root: str | os.PathLike[str] | None = None,
    *,
    split: str = "test",
    rirs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    mics: Sequence[int] | None = None,
    snr_db: float | None = None,
    noise: str = "white",
    dead_mics: int = 0,
    camera_off: float = 0.0,
    out: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    quiet: bool = False,
) -> Metrics:
    """Test a checkpoint on a corpus, as `farfeel evaluate` does.

    checkpoint: a folder, a Recognizer (for an ensemble), or None for the checkpoint in the package.
    corpus: a corpus's name (ravdess, crema-d, folder …), a manifest file, prepared shards, or a list of clips.
    root: the folder of the corpus.
    split: the part to test on: test, val, train, or all. The checkpoint's recipe says which speakers are in it.
    rirs: banks of room impulse responses to test in; without one, dry speech.
    mics: microphones of the banks to use, counted from 0; default all that the checkpoint takes.
    snr_db: adds noise at this signal-to-noise ratio, in decibels.
    noise: the kind of noise, as in `farfeel evaluate --noise`.
    dead_mics: silences so many microphones of each recording.
    camera_off: the share of clips whose video is removed, 0 to 1.
    out: the folder for predictions, metrics and report; None: nothing is written.
    device: cpu, cuda or cuda:1.
    quiet: print no progress and no notes.

    Returns the metrics with their 95 % intervals over speakers. Raises FarfeelError where the data, the checkpoint or
    the folder is wrong.

    >>> import farfeel
    >>> metrics = farfeel.evaluate(None, "synthetic", "voices", split="all", quiet=True)
    >>> 0 <= metrics.overall.accuracy.low <= metrics.overall.accuracy.value <= 1
    True
    """
    from farfeel.corpora.selection import selected_clips
    from farfeel.evaluate.clips import loaded_clips
    from farfeel.evaluate.report import require_report_folder
    from farfeel.evaluate.run import protocol, run_evaluation
    from farfeel.evaluate.test_set import Conditions
    from farfeel.recognise.decoding import default_mics, require_mics
    from farfeel.recognise.recognizer import Recognizer
    from farfeel.rooms.bank import Bank
    from farfeel.support.console import quiet as silence
    from farfeel.support.files import require_writable_folder

    with silence() if quiet else nullcontext(), tempfile.TemporaryDirectory(prefix="farfeel-") as temporary:
        folder = Path(temporary) / "evaluation" if out is None else Path(out)
        require_report_folder(require_writable_folder(folder))
        recognizer = checkpoint if isinstance(checkpoint, Recognizer) else Recognizer.load(checkpoint, device)
        recipe = recognizer.recipe
        paths = [Path(rirs)] if isinstance(rirs, str | os.PathLike) else [Path(path) for path in rirs]
        loaded, shards, where = loaded_clips(corpus, root, bool(paths))
        (clips,), _ = selected_clips(loaded, recipe, (split,), where, to_train=False)
        banks = [Bank.open(path, sample_rate=recipe.audio.sample_rate) for path in paths]
        available = shards.mics if shards else min((bank.mics for bank in banks), default=1)
        source = where if shards else "the RIR bank" if banks else "dry speech"
        used_mics = default_mics(recognizer.recipes, available, source) if mics is None else mics
        conditions = Conditions(snr_db=snr_db, noise=noise, dead_mics=dead_mics, camera_off=camera_off)
        is_recognizer = isinstance(checkpoint, Recognizer)
        details = {
            "checkpoints": repr(recognizer) if is_recognizer else str(checkpoint or "default"),
            **protocol(recipe, clips, where, split, paths, shards, conditions),
        }
        used_mics = require_mics(used_mics, available, source)
        return run_evaluation(recognizer, clips, banks, folder, used_mics, details, conditions, shards=shards)


class _Callable(ModuleType):
    """The package's own class: `import farfeel.evaluate.run` sets `farfeel.evaluate` to the package, and the function
    of that name has to be reached as well."""

    __wrapped__ = staticmethod(evaluate)  # the signature, for help and editors

    def __call__(self, *args: Any, **named: Any) -> Metrics:
        return evaluate(*args, **named)


sys.modules[__name__].__class__ = _Callable
sys.modules[__name__].__doc__ = evaluate.__doc__
