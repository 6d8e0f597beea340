"""The command line. Each command parses its arguments, calls the library and prints the result.

Exit codes: 0 for success, 1 for a fault in the input or the data (one line on standard error), 2 for wrong usage,
130 for Ctrl-C. Results go to standard output; progress, notes and errors go to standard error. Heavy libraries are
imported inside the commands, so that --help is fast.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from farfeel import __version__
from farfeel.cli import (
    calibrate,
    data,
    download,
    evaluate,
    export,
    listen,
    predict,
    prepare,
    push,
    rooms,
    serve,
    train,
)
from farfeel.cli.common import Command, Once, print_error
from farfeel.cli.examples import epilog_of
from farfeel.support.console import note
from farfeel.types import FarfeelError

OVERVIEW = """\
farfeel recognises the emotion of a person in a reverberant room from several distant microphones and a camera.

First steps:
  farfeel predict CLIP.wav                            the emotion in a recording, by the model in the package
  farfeel predict TALK.mp4 --timeline --out talk.html the emotions over time, as a web page with a plot
  farfeel serve                                       a web page and a REST interface on this machine
  farfeel demo                                        all steps on a small artificial corpus, in minutes

From a corpus to a table of results for each room:
  farfeel download ravdess --root RAVDESS             download a corpus and check it
  farfeel scan ravdess --root RAVDESS                 list its clips, speakers and missing files
  farfeel rooms simulate --count 300 --mics 3 --out rooms/train
  farfeel rooms import r3vival --root R3VIVAL --out rooms/test
  farfeel train --recipe default --corpus ravdess --root RAVDESS --rirs rooms/train --out runs/mine
  farfeel evaluate --checkpoint runs/mine/best --corpus ravdess --root RAVDESS --rirs rooms/test --out runs/mine/test
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with these arguments (default: those of the process). Returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        if sys.stdout:
            sys.stdout.flush()  # here, not at the interpreter's end, where a full disk or a closed pipe is a traceback
        return code
    except FarfeelError as error:
        return print_error(str(error))
    except BrokenPipeError:  # `farfeel … | head`
        _discard_stdout()
        return 0
    except KeyboardInterrupt:
        note("interrupted; run the same command again: it resumes if it can")
        return 130
    except OSError as error:
        from farfeel.support.files import FULL

        if error.errno in FULL and not error.filename:
            _discard_stdout()
        what = error.filename or "the output"
        reason = os.strerror(error.errno) if error.errno else str(error)
        remedy = (
            "free some space or choose another folder" if error.errno in FULL else "check the path and its permissions"
        )
        return print_error(f"{what} cannot be read or written ({reason}); {remedy}")


def _dispatch(words: list[str]) -> int:
    """Find the command in the words, parse the rest, run it."""
    if words and words[0] in ("--version", "-V"):
        print(f"farfeel {__version__}")
        return 0
    groups = {command.name.split()[0] for command in COMMANDS if " " in command.name}
    name = " ".join(words[:2]) if words and words[0] in groups else " ".join(words[:1])
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        return _help(words, groups)
    parser = argparse.ArgumentParser(
        prog=f"farfeel {command.name}", description=command.help, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for kind in ("store", None):  # None: what argparse uses if no action is named
        parser.register("action", kind, Once)
    command.arguments(parser)
    parser.epilog = epilog_of(command.name, parser.epilog)
    # Intermixed: overrides and files may come before, between and after options.
    args = parser.parse_intermixed_args(words[len(command.name.split()) :])
    return command.run(args) or 0


def _help(words: list[str], groups: set[str]) -> int:
    """Print the overview, or the commands that begin with one word (rooms). Returns 2 for an unknown command, else "
    "0."""
    overview = not words or words[0] in ("-h", "--help", "help")
    first = words[0] if words and words[0] in groups else None
    known = overview or (first is not None and words[1:2] in ([], ["-h"], ["--help"]))
    stream = sys.stdout if known else sys.stderr
    if not known:
        print(f"farfeel: unknown command {' '.join(words[: 2 if first else 1])!r}\n", file=stream)
    elif first is None:
        print(OVERVIEW, file=stream)
    print("Commands (farfeel COMMAND --help shows the options and examples):", file=stream)
    for title, commands in GROUPS.items():
        listed = [command for command in commands if first is None or command.name.split()[0] == first]
        if listed and first is None:
            print(f"\n{title}:", file=stream)
        for command in listed:
            print(f"  {command.name:<16} {command.help.splitlines()[0]}", file=stream)
    return 0 if known else 2


def _discard_stdout() -> None:
    """Discard what is still to be printed. Otherwise the interpreter fails on it again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


GROUPS: dict[str, tuple[Command, ...]] = {
    "Recognise emotions": (*predict.COMMANDS, *listen.COMMANDS, *serve.COMMANDS),
    "Get recordings and rooms": (*download.COMMANDS, *data.COMMANDS, *rooms.COMMANDS, *prepare.COMMANDS),
    "Train": train.COMMANDS,
    "Test": evaluate.COMMANDS,
    "Change and publish models": (*calibrate.COMMANDS, *export.COMMANDS, *push.COMMANDS),
}
"""Heading in the overview → its commands."""
COMMANDS = tuple(command for commands in GROUPS.values() for command in commands)


def run() -> None:
    """Entry point of the `farfeel` command. Exits the process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without these characters still shows the numbers
    sys.exit(main())
