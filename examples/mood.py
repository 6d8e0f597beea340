"""The share of each emotion in a meeting, of the time in which somebody speaks.

python examples/mood.py meeting.wav [runs/mine/best]
"""

import sys
from collections import Counter

import farfeel


def main(recording: str, *checkpoints: str) -> None:
    timeline = farfeel.load(*checkpoints).timeline(recording, step_s=1.0)
    shares: Counter[str] = Counter()
    for prediction in timeline.predictions:  # Probabilities, not labels: a window may be half one, half the other.
        if prediction.probabilities:  # empty where nobody speaks
            shares.update(dict(zip(prediction.emotions, prediction.probabilities, strict=True)))
    spoken_s = sum(end_s - start_s for start_s, end_s in timeline.speech)
    print(f"{recording}: {timeline.seconds:.0f} s, {spoken_s:.0f} s of them speech")
    for emotion, share in shares.most_common():
        print(f"{emotion:<10} {share / shares.total():4.0%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
