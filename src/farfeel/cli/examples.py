"""Example command lines for each command's --help. The tests check that each of them is accepted."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("farfeel demo --out demo",),
    "predict": (
        "farfeel predict clip.wav",
        "farfeel predict recordings/ --mics 0,2 --format json --out result.json",
        "farfeel predict talk.mp4 --timeline --out talk.html",
        "farfeel predict --audio mic1.wav mic2.wav mic3.wav",
    ),
    "listen": ("farfeel listen --list", "farfeel listen --input 2 --step 1"),
    "serve": ("farfeel serve --port 8000 --max-mb 50",),
    "download": ("farfeel download --list", "farfeel download ravdess --root RAVDESS"),
    "scan": ("farfeel scan ravdess --root RAVDESS --out ravdess.parquet",),
    "stills": ("farfeel stills fer2013.csv --out faces",),
    "surrogate": (
        "farfeel surrogate --corpus ravdess --root RAVDESS --stills faces --split folds-7:1 --out surrogate",
    ),
    "rooms simulate": (
        "farfeel rooms simulate --count 300 --mics 3 --out rooms/train",
        "farfeel rooms simulate --count 100 --mics 3 --out rooms/live simulation.t60_s=[0.5,0.85]",
    ),
    "rooms import": (
        "farfeel rooms import r3vival --root R3VIVAL --out rooms/test",
        "farfeel rooms import folder --root MY_RESPONSES --out rooms/mine",
    ),
    "prepare": (
        "farfeel prepare --corpus ravdess --root RAVDESS --rirs rooms/train --renderings 8 --out shards",
        "farfeel prepare --verify shards",
    ),
    "train": (
        "farfeel train --corpus ravdess --root RAVDESS --rirs rooms/train --split folds-7:1 --out runs/mine",
        "farfeel train --recipe tiny --corpus synthetic --root demo/corpus --rirs demo/rooms-train train.epochs=5",
    ),
    "recipe": ("farfeel recipe", "farfeel recipe default train.epochs=5"),
    "average": ("farfeel average runs/mine/top/epoch_010 runs/mine/top/epoch_012 --out runs/mine/average",),
    "convert": ("farfeel convert weights.pth --recipe paper-sum-pe --out runs/converted",),
    "evaluate": (
        "farfeel evaluate --checkpoint runs/mine/best --corpus ravdess --root RAVDESS --rirs rooms/test --out test",
        "farfeel evaluate --corpus ravdess --root RAVDESS --snr 10 --dead-mics 1 --rirs rooms/test --out noisy",
    ),
    "compare": (
        "farfeel compare runs/mine/test runs/other/test --metric uar",
        "farfeel compare runs/a1/test,runs/a2/test runs/b1/test,runs/b2/test",
    ),
    "report": ("farfeel report mine=runs/mine/test other=runs/other/test --out runs/report",),
    "calibrate": (
        "farfeel calibrate --checkpoint runs/mine/best --corpus ravdess --root RAVDESS --rirs rooms/other",
        "farfeel calibrate --checkpoint runs/all/best --evaluations runs/fold1/test,runs/fold2/test",
    ),
    "export": ("farfeel export --checkpoint runs/mine/best --out model.onnx --half clip.wav",),
    "merge": ("farfeel merge runs/seed1/best runs/seed2/best --out runs/merged",),
    "push": ("farfeel push runs/mine/best hf://owner/name --private", "farfeel push runs/mine/best preview"),
}
"""Command → its examples, the most common first."""


def epilog_of(command: str, more: str | None) -> str:
    """The end of a command's help: its examples, then what the command itself adds (`more`)."""
    lines = [f"example{'s' * (len(EXAMPLES[command]) > 1)}:", *(f"  {line}" for line in EXAMPLES[command])]
    return "\n".join([*lines, *(["", more] if more else [])])
