"""The ten of your own clips that are recognised worst. Check their labels, or record more like them.

    python examples/worst_clips.py mine [runs/mine/best]

`mine` holds a folder for each emotion, or a clips.csv (see docs/api.md).
"""

import sys
from pathlib import Path

import farfeel
from farfeel.corpora.scan import load_clips
from farfeel.evaluate.metrics import metrics
from farfeel.evaluate.run import prediction_table
from farfeel.evaluate.test_set import EvaluationSet


def main(root: str, *checkpoints: str) -> None:
    recognizer = farfeel.load(*checkpoints)
    clips = load_clips("folder", Path(root), lambda line: print(line, file=sys.stderr))
    table = prediction_table(recognizer, EvaluationSet(clips, recognizer.recipe))
    accuracy = metrics(table).overall.accuracy
    print(
        f"accuracy {accuracy.value:.0%} (95 % interval {accuracy.low:.0%} to {accuracy.high:.0%}), {len(table)} clips"
    )
    table["own"] = [row[f"p_{row['target']}"] for _, row in table.iterrows()]
    for _, row in table.sort_values("own").head(10).iterrows():
        guess = max(recognizer.emotions, key=lambda emotion: row[f"p_{emotion}"])
        print(f"{row['clip']:<40} labelled {row['target']}, recognised as {guess} ({row[f'p_{guess}']:.0%})")


if __name__ == "__main__":
    main(*sys.argv[1:])
