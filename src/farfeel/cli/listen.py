"""The command listen: emotions live from a sound card, with bars, and the delay of the answers."""

from __future__ import annotations

import argparse
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farfeel.cli.common import Command, device, device_argument, share
from farfeel.support.console import note
from farfeel.support.text import one_line
from farfeel.types import FarfeelError

if TYPE_CHECKING:
    import numpy as np

    from farfeel.types import Prediction

BLOCK_S = 0.1
WAITING_BLOCKS = 100  # 10 s of audio may wait on a slow machine; what comes then is lost, and a note says so
SILENT_S = 5.0  # a card that sends no block for so long, not even silence, is taken for unplugged
BAR = 30  # characters of a bar at probability 1


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        metavar="CARD",
        help="number or part of the name of the sound card; --list shows them (default: the system's)",
    )
    parser.add_argument("--list", action="store_true", help="list the sound cards and exit")
    parser.add_argument(
        "--mics", type=int, metavar="N", help="number of channels to use, counted from the first (default: all)"
    )
    parser.add_argument("--step", type=float, default=0.5, metavar="S", help="seconds between answers (default 0.5)")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after S seconds (default: at Ctrl-C)")
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="play this recording in real time instead of using a card"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        metavar="CHECKPOINT",
        help="checkpoint folder; several are averaged (default: the one in the package)",
    )
    parser.add_argument(
        "--engine", choices=["torch", "onnx"], default="torch", help="library that runs the model (default torch)"
    )
    parser.add_argument(
        "--abstain-below",
        type=share,
        default=0.0,
        metavar="P",
        help="give no label if the highest probability is below P, from 0 to 1 (default 0: always give a label)",
    )
    device_argument(parser)


def _listen(args: argparse.Namespace) -> None:
    from farfeel.recognise.recognizer import Recognizer

    if args.list:
        print(_sound_cards().query_devices())
        return
    recognizer = Recognizer.load(
        args.checkpoint, "cpu" if args.engine == "onnx" else device(args.device), engine=args.engine
    )
    source = _replay(args.replay, args.mics) if args.replay else _card(args.input, args.mics)
    with source as (rate, mics, blocks):
        stream = recognizer.stream(rate, mics, args.step, abstain_below=args.abstain_below)
        note(f"{mics} microphone{'s' * (mics != 1)} at {rate} Hz; stop with Ctrl-C")
        computing_s: list[float] = []
        with _bars() as show:
            try:
                for block in blocks:
                    started = time.perf_counter()
                    predictions = stream.push(block)
                    if any(prediction.probabilities for prediction in predictions):
                        computing_s.append(time.perf_counter() - started)
                    for prediction in predictions:
                        show(prediction)
                    if args.seconds and stream.seconds >= args.seconds:
                        break
            except KeyboardInterrupt:
                pass
            for prediction in stream.close():
                show(prediction)
    print(_delay_text(recognizer.recipe.audio.seconds, args.step, computing_s))


def _delay_text(window_s: float, step_s: float, computing_s: list[float]) -> str:
    """The delay between speech and its emotion, and its parts: window, step, block and computing time."""
    import numpy as np

    parts = f"window {window_s:g} s, step {step_s:g} s, block {BLOCK_S:g} s"
    if not computing_s:
        return f"{parts}; no speech was found, so nothing was computed"
    middle, most = np.percentile(computing_s, [50, 95])
    worst = step_s + BLOCK_S + most
    return (
        f"{parts}, computing {1000 * middle:.0f} ms (median), {1000 * most:.0f} ms (95th percentile), "
        f"{len(computing_s)} times; speech first counts in an answer after at most {worst:.2f} s, and fills the whole "
        f"window after at most {window_s + worst:.2f} s"
    )


@contextmanager
def _bars() -> Iterator[Callable[[Prediction], None]]:
    """Live bars on standard error. If standard output is not a terminal, a line for each answer on it, too."""
    import sys

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def picture(prediction: Prediction) -> Text:
        head = f"{prediction.end_s:7.1f} s  {prediction.label or ('unsure' if prediction.probabilities else 'silence')}"
        shares = prediction.probabilities or (0.0,) * len(prediction.emotions)
        lines = [f"  {e:<10} {p:4.0%} {'█' * round(BAR * p)}" for e, p in zip(prediction.emotions, shares, strict=True)]
        return Text("\n".join([head, *lines]))

    console = Console(stderr=True)
    with Live(Text("listening"), console=console, refresh_per_second=10, transient=True) as live:

        def show(prediction: Prediction) -> None:
            live.update(picture(prediction))
            for warning in prediction.warnings:
                console.print(warning)
            if not sys.stdout.isatty():
                print(f"{prediction.end_s:.1f}\t{prediction.label or ''}\t{prediction.confidence:.3f}", flush=True)

        yield show


def _sound_cards() -> Any:
    """The module sounddevice. Raises FarfeelError if it or PortAudio is missing."""
    try:
        import sounddevice
    except ImportError:
        raise FarfeelError("listen needs sounddevice, which is not installed; pip install 'farfeel[live]'") from None
    except OSError as error:  # the library that it needs
        raise FarfeelError(
            f"the sound cards cannot be used ({error}), expected PortAudio; install it (Debian: libportaudio2)"
        ) from None
    return sounddevice


@contextmanager
def _card(wanted: str | None, mics: int | None) -> Iterator[tuple[int, int, Iterator[np.ndarray]]]:
    """Sample rate in Hz, number of microphones M, and blocks (M, T) as the card records them."""
    cards = _sound_cards()
    card = int(wanted) if wanted and wanted.isdecimal() else wanted
    try:
        info = cards.query_devices(card, "input")
    except (ValueError, cards.PortAudioError) as error:
        raise FarfeelError(
            f"no sound card {wanted or 'for recording'} ({one_line(error)}); farfeel listen --list shows them"
        ) from None
    available, rate = int(info["max_input_channels"]), round(info["default_samplerate"])
    if mics is not None and not 1 <= mics <= available:
        raise FarfeelError(
            f"{info['name']} has {available} channels, but --mics is {mics}; choose a number from 1 to {available}"
        )
    waiting: queue.Queue[np.ndarray] = queue.Queue(WAITING_BLOCKS)

    def keep(block: np.ndarray, frames: int, times: object, status: object) -> None:
        try:
            waiting.put_nowait(block.T.copy())
        except queue.Full:
            status = "this machine is too slow"
        if status:
            note(f"audio was lost: {status}")

    def blocks() -> Iterator[np.ndarray]:
        while True:
            try:
                yield waiting.get(timeout=SILENT_S)
            except queue.Empty:
                raise FarfeelError(
                    f"{info['name']} has sent nothing for {SILENT_S:g} s, expected audio; check that it is plugged in"
                ) from None

    used = mics or available
    with cards.InputStream(rate, round(BLOCK_S * rate), card, used, "float32", callback=keep):
        yield rate, used, blocks()


@contextmanager
def _replay(path: Path, mics: int | None) -> Iterator[tuple[int, int, Iterator[np.ndarray]]]:
    """Sample rate in Hz, number of microphones M, and blocks (M, T) of a file in real time."""
    import numpy as np

    from farfeel.media.audio import audio_blocks, audio_info

    info = audio_info(path)
    if mics is not None and not 1 <= mics <= info.channels:
        raise FarfeelError(
            f"{path} has {info.channels} channels, but --mics is {mics}; choose a number from 1 to {info.channels}"
        )

    def blocks() -> Iterator[np.ndarray]:
        size, done, began = max(1, round(BLOCK_S * info.sample_rate)), 0, time.monotonic()
        for piece in audio_blocks(path):
            for block in np.split(piece[:mics], range(size, piece.shape[1], size), axis=1):
                done += block.shape[1]
                time.sleep(max(0.0, began + done / info.sample_rate - time.monotonic()))
                yield block

    yield info.sample_rate, mics or info.channels, blocks()


COMMANDS = (Command("listen", "Recognise emotions live from a sound card.", _arguments, _listen),)
