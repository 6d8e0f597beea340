"""Plot the accuracy of evaluations that differ in one number, with confidence intervals over speakers.

    python -m benchmarks.curve PLOT.svg LABEL [LINE:]X=EVALUATION[,EVALUATION…] …

EVALUATION is a folder of `farfeel evaluate`. Several, separated by commas, are joined as folds. Points with the same
LINE form one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.sweeps import draw, row
from farfeel.evaluate.table import concatenate, read_predictions


def main(place: Path, label: str, points: Sequence[str]) -> None:
    lines: dict[str, list[dict[str, object]]] = {}
    for point in points:
        name, _, folders = point.partition("=")
        line, _, x = name.rpartition(":")
        table = concatenate([read_predictions(Path(folder)) for folder in folders.split(",")])
        lines.setdefault(line or "accuracy", []).append(row(name, table) | {"x": float(x)})
    frames = {line: pd.DataFrame(found) for line, found in lines.items()}
    for frame in frames.values():
        print(frame.to_string(index=False, float_format="%.1f"))
    draw(place, frames, label)


if __name__ == "__main__":
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
