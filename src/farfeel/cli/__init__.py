"""The command line: arguments in, one call, a table out. Heavy imports are inside each command.

Exit code 0: done; 1: the input or the data is at fault, said in one line; 2: wrong usage. Results go to standard
output; progress and notes to standard error.
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
from farfeel.cli.common import fail
from farfeel.support.console import note
from farfeel.types import FarfeelError

OVERVIEW = """\
farfeel recognises a person's emotion in a real, reverberant room, from several distant microphones.

  farfeel demo                                        everything once, on an embedded corpus, in minutes
  farfeel predict CLIP.wav                            the emotion of a recording, with the model in the package
  farfeel predict TALK.mp4 --timeline --out talk.html over time, as a page with a plot
  farfeel serve                                       a web page and a REST API, on this machine alone

From a corpus to a per-room table:
  farfeel download ravdess --root RAVDESS             fetch it: checked, resumable
  farfeel scan ravdess --root RAVDESS                 what is there
  farfeel rooms simulate --count 300 --mics 3 --out rooms/train
  farfeel rooms import r3vival --root R3VIVAL --out rooms/test
  farfeel train --recipe default --corpus ravdess --root RAVDESS --rirs rooms/train --out runs/mine
  farfeel evaluate --checkpoint runs/mine/best --corpus ravdess --root RAVDESS --rirs rooms/test --out runs/mine/test
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words)
        if sys.stdout:
            sys.stdout.flush()  # here, not at the interpreter's end, where a full disk or a closed pipe is a traceback
        return code
    except FarfeelError as error:
        return fail(str(error))
    except BrokenPipeError:  # `farfeel … | head`
        _discard_stdout()
        return 0
    except KeyboardInterrupt:
        note("interrupted; the same command resumes where it can")
        return 130
    except OSError as error:
        from farfeel.support.files import FULL

        if error.errno in FULL and not error.filename:
            _discard_stdout()
        what = error.filename or "the output"
        reason = os.strerror(error.errno) if error.errno else str(error)
        remedy = (
            "free some space or choose another place" if error.errno in FULL else "check the path and its permissions"
        )
        return fail(f"{what} cannot be read or written ({reason}); {remedy}")


def _dispatch(words: list[str]) -> int:
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
    command.arguments(parser)
    # Intermixed: overrides and files may stand before, between and after options.
    args = parser.parse_intermixed_args(words[len(command.name.split()) :])
    return command.run(args) or 0


def _help(words: list[str], groups: set[str]) -> int:
    """The overview, or the commands of a group; exit code 2 for a word that is no command."""
    asked = not words or words[0] in ("-h", "--help", "help")
    group = words[0] if words and words[0] in groups else None
    listed = [command for command in COMMANDS if group is None or command.name.split()[0] == group]
    known = asked or (group is not None and words[1:2] in ([], ["-h"], ["--help"]))
    stream = sys.stdout if known else sys.stderr
    if not known:
        print(f"farfeel: no command {' '.join(words[: 2 if group else 1])!r}\n", file=stream)
    elif group is None:
        print(OVERVIEW, file=stream)
    print("Commands (farfeel COMMAND --help tells more):", file=stream)
    for command in listed:
        print(f"  {command.name:<16} {command.help.splitlines()[0]}", file=stream)
    return 0 if known else 2


def _discard_stdout() -> None:
    """What waits to be printed goes nowhere, or the interpreter would fail on it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# In the order of use.
COMMANDS = (
    train.COMMANDS[0],
    *predict.COMMANDS,
    *listen.COMMANDS,
    *serve.COMMANDS,
    *download.COMMANDS,
    *data.COMMANDS,
    *rooms.COMMANDS,
    *prepare.COMMANDS,
    train.COMMANDS[1],
    *evaluate.COMMANDS,
    *train.COMMANDS[2:],
    *calibrate.COMMANDS,
    *export.COMMANDS,
    *push.COMMANDS,
)


def run() -> None:
    """Entry point of the `farfeel` command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without bars and accents still shows the numbers
    sys.exit(main())
