"""Live emotions: raw 16-bit audio on standard input, a line for each second.

arecord -q -f S16_LE -r 16000 -c 1 -t raw | python examples/live.py
ffmpeg -loglevel error -i meeting.wav -f s16le -ar 48000 -ac 4 - | python examples/live.py --rate 48000 --mics 4
"""

import argparse
import sys

import numpy as np

import farfeel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=16000, help="Hz")
    parser.add_argument("--mics", type=int, default=1, help="interleaved channels")
    args = parser.parse_args()
    stream = farfeel.load().stream(args.rate, args.mics, step_s=1.0, abstain_below=0.4)
    block_bytes = 2 * args.mics * (args.rate // 10)  # 0.1 s
    while block := sys.stdin.buffer.read(block_bytes):
        whole = len(block) // (2 * args.mics) * 2 * args.mics  # the last block may end in the middle of a sample
        show(stream.push(np.frombuffer(block[:whole], "<i2").reshape(-1, args.mics).T))
    show(stream.close())


def show(predictions: list[farfeel.Prediction]) -> None:
    for prediction in predictions:
        silent = not prediction.probabilities
        label = "…" if silent else prediction.label or f"not sure (perhaps {prediction.best})"
        print(f"{prediction.end_s:7.1f} s  {label}", flush=True)
        for warning in prediction.warnings:
            print(f"           {warning}", file=sys.stderr)


if __name__ == "__main__":
    main()
