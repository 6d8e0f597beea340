"""listen: the sound card as it goes, with live bars, and what the delay is made of."""

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
WAITING_BLOCKS = 100  # What a slow machine may be behind, 10 s, before sound is lost, and said to be.
SILENT_S = 5.0  # A card that sends no block for so long, not even silence, is gone.
BAR = 30


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", help="sound card, by number or a part of its name (default: the system's)")
    parser.add_argument("--list", action="store_true", help="list the sound cards and stop")
    parser.add_argument("--mics", type=int, help="channels of the card to use, from the first (default: all)")
    parser.add_argument("--step", type=float, default=0.5, metavar="S", help="seconds between answers (default 0.5)")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after that long (default: at Ctrl-C)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="a recording instead of a card, at its own pace")
    parser.add_argument("--checkpoint", type=Path, nargs="+", help="checkpoint folder (default: the package's)")
    parser.add_argument("--engine", choices=["torch", "onnx"], default="torch", help="what runs it (default torch)")
    parser.add_argument("--abstain-below", type=share, default=0.0, metavar="P", help="no label below this probability")
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
        note(f"{mics} microphone{'s' * (mics != 1)} at {rate} Hz; Ctrl-C ends it")
        computing: list[float] = []
        with _bars() as show:
            try:
                for block in blocks:
                    started = time.perf_counter()
                    found = stream.push(block)
                    if any(prediction.probabilities for prediction in found):
                        computing.append(time.perf_counter() - started)
                    for prediction in found:
                        show(prediction)
                    if args.seconds and stream.seconds >= args.seconds:
                        break
            except KeyboardInterrupt:
                pass
            for prediction in stream.close():
                show(prediction)
    print(_budget(recognizer.recipe.audio.seconds, args.step, computing))


def _budget(window_s: float, step_s: float, computing_s: list[float]) -> str:
    """What the delay between a voice and its emotion is made of."""
    import numpy as np

    parts = f"window {window_s:g} s, step {step_s:g} s, block {BLOCK_S:g} s"
    if not computing_s:
        return f"{parts}; nobody spoke: nothing was computed"
    middle, most = np.percentile(computing_s, [50, 95])
    worst = step_s + BLOCK_S + most
    return (
        f"{parts}, computing {1000 * middle:.0f} ms (median), {1000 * most:.0f} ms (95 %), {len(computing_s)} of them; "
        f"what is said is in an answer after {worst:.2f} s at most, and fills the window after {window_s + worst:.2f} s"
    )


@contextmanager
def _bars() -> Iterator[Callable[[Prediction], None]]:
    """Live bars on standard error; a line for each answer on standard output where that is no terminal."""
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
    try:
        import sounddevice
    except ImportError:
        raise FarfeelError("sounddevice is not installed, and listens; pip install 'farfeel[live]'") from None
    except OSError as error:  # the library that it needs
        raise FarfeelError(
            f"the sound cards cannot be reached ({error}), expected PortAudio; install it (Debian: libportaudio2)"
        ) from None
    return sounddevice


@contextmanager
def _card(wanted: str | None, mics: int | None) -> Iterator[tuple[int, int, Iterator[np.ndarray]]]:
    """Sample rate, microphones, and blocks (M, n) as they come."""
    cards = _sound_cards()
    which = int(wanted) if wanted and wanted.isdigit() else wanted
    try:
        about = cards.query_devices(which, "input")
    except (ValueError, cards.PortAudioError) as error:
        raise FarfeelError(
            f"no sound card {wanted or 'to listen to'} ({one_line(error)}); see farfeel listen --list"
        ) from None
    there, rate = int(about["max_input_channels"]), round(about["default_samplerate"])
    if mics is not None and not 1 <= mics <= there:
        raise FarfeelError(f"{about['name']} has {there} channels, --mics asks for {mics}; choose as many or fewer")
    waiting: queue.Queue[np.ndarray] = queue.Queue(WAITING_BLOCKS)

    def heard(block: np.ndarray, frames: int, times: object, status: object) -> None:
        try:
            waiting.put_nowait(block.T.copy())
        except queue.Full:
            status = "this machine is too slow"
        if status:
            note(f"sound was lost: {status}")

    def blocks() -> Iterator[np.ndarray]:
        while True:
            try:
                yield waiting.get(timeout=SILENT_S)
            except queue.Empty:
                raise FarfeelError(
                    f"{about['name']} has sent nothing for {SILENT_S:g} s, expected sound; check that it is plugged in"
                ) from None

    chosen = mics or there
    with cards.InputStream(rate, round(BLOCK_S * rate), which, chosen, "float32", callback=heard):
        yield rate, chosen, blocks()


@contextmanager
def _replay(path: Path, mics: int | None) -> Iterator[tuple[int, int, Iterator[np.ndarray]]]:
    """A file as though it were spoken now."""
    import numpy as np

    from farfeel.media.audio import audio_blocks, audio_info

    about = audio_info(path)
    if mics is not None and not 1 <= mics <= about.channels:
        raise FarfeelError(f"{path} has {about.channels} channels, --mics asks for {mics}; choose as many or fewer")

    def blocks() -> Iterator[np.ndarray]:
        size, done, began = max(1, round(BLOCK_S * about.sample_rate)), 0, time.monotonic()
        for piece in audio_blocks(path):
            for block in np.split(piece[:mics], range(size, piece.shape[1], size), axis=1):
                done += block.shape[1]
                time.sleep(max(0.0, began + done / about.sample_rate - time.monotonic()))
                yield block

    yield about.sample_rate, mics or about.channels, blocks()


COMMANDS = (Command("listen", "Recognise what the microphones hear, as it goes.", _arguments, _listen),)
