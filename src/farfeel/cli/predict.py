"""The command predict: the emotion in recordings, or over time."""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from farfeel.cli.common import (
    Command,
    device,
    device_argument,
    front_end_argument,
    mic_list,
    modalities_argument,
    print_error,
    runner,
    share,
)
from farfeel.support.console import note, progress
from farfeel.types import FACES, FarfeelError

if TYPE_CHECKING:
    from farfeel.recognise.options import Options
    from farfeel.recognise.recognizer import Recognizer
    from farfeel.types import Prediction, Timeline

MOST_WORKERS = 16
FEW = 4  # up to this many files, one process is faster than starting others
OF_TIMELINES = ("html", "textgrid", "vtt")  # formats that only a timeline has
STANDARD_OUTPUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
OPEN_FILE = re.compile(r"/dev/stderr|/dev/fd/\d+|/proc/self/fd/\d+")
LONGEST_NAME = 200  # bytes; a name of a file may have 255, with a number and a suffix


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE|FOLDER|GLOB",
        help="audio or video files, folders of them, or patterns such as 'day*/*.wav'; audio may have any number of "
        "channels, one for each microphone; not needed with --audio",
    )
    parser.set_defaults(usage_error=parser.error)
    _model_arguments(parser)
    _audio_arguments(parser)
    _video_arguments(parser)
    _output_arguments(parser)


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--checkpoint",
        type=Path,
        nargs=1,
        action="extend",
        help="checkpoint folder, for example runs/mine/best, or an address hf://owner/name; with --engine onnx a file "
        "of farfeel export; repeat the option to average several models (default: the checkpoint in the package)",
    )
    group.add_argument(
        "--engine",
        choices=["torch", "onnx", "ray"],
        default="torch",
        help="library that runs the model; torch: PyTorch (default); onnx: ONNX Runtime, without PyTorch; ray: PyTorch "
        "on the Ray cluster at RAY_ADDRESS, or a Ray on this machine if that is not set",
    )
    device_argument(group)
    modalities_argument(group)
    group.add_argument(
        "--precision",
        choices=["32", "bf16"],
        default="32",
        help="number format of the model's computations; 32: float32; bf16: bfloat16, faster on recent hardware "
        "(default 32)",
    )
    group.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help=f"processes that decode files (default: one for each core, at most {MOST_WORKERS}; none for {FEW} files "
        "or fewer)",
    )


def _audio_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("audio")
    group.add_argument(
        "--mics",
        type=mic_list,
        metavar="N,N",
        help="audio channels to use, numbered from 0; example: 0,1,2 (default: all)",
    )
    group.add_argument(
        "--audio",
        type=Path,
        nargs="+",
        action="extend",
        metavar="AUDIO",
        help="audio file to use instead of the audio in the video FILE, for example of a microphone array; several "
        "files are one recording with one file for each microphone, in this order; write FILE before --audio",
    )
    group.add_argument(
        "--audio-offset",
        type=float,
        default=0.0,
        metavar="S",
        help="start of --audio in seconds after the start of the video; example: 1.2 (default 0)",
    )
    front_end_argument(group)


def _video_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("video")
    group.add_argument(
        "--face",
        choices=FACES,
        default="largest",
        help="which face in the video to use; largest, left or right; whole: the whole picture, without searching for "
        "a face (default largest)",
    )
    group.add_argument(
        "--face-model",
        type=Path,
        metavar="FILE",
        help="ONNX file of the YuNet face detector (default: the Haar cascade of OpenCV)",
    )
    group.add_argument(
        "--debug-dir",
        type=Path,
        metavar="FOLDER",
        help="write the pictures of each video that the model saw into this folder",
    )


def _output_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--abstain-below",
        type=share,
        default=0.0,
        metavar="P",
        help="give no label if the highest probability is below P, from 0 to 1; example: 0.5 (default 0: always give a "
        "label)",
    )
    group.add_argument(
        "--timeline",
        action="store_true",
        help="predict emotions over time, one prediction for each window; the recording may have any length",
    )
    group.add_argument(
        "--step", type=float, default=1.0, metavar="S", help="with --timeline: seconds between windows (default 1)"
    )
    group.add_argument(
        "--format",
        choices=["table", "json", "csv", *OF_TIMELINES],
        help="output format; only with --timeline: html (a web page with a plot), textgrid (for Praat), vtt (WebVTT "
        "subtitles) (default: the suffix of --out, or table)",
    )
    group.add_argument(
        "--out",
        type=Path,
        help="file to write instead of standard output (-: standard output); with --timeline and several recordings "
        "a folder",
    )


def _predict(args: argparse.Namespace) -> int:
    from farfeel.media.audio import SPEECH_SUFFIXES
    from farfeel.media.isolation import isolated_decoding
    from farfeel.media.video import VIDEO_SUFFIXES
    from farfeel.recognise.options import Options
    from farfeel.recognise.recognizer import Recognizer
    from farfeel.support.files import require_writable_folder

    if args.out and args.out.suffix.lower() in (*SPEECH_SUFFIXES, *VIDEO_SUFFIXES):
        raise FarfeelError(f"--out {args.out} is an audio or video file, expected the name of a table; choose another")
    if args.format in OF_TIMELINES and not args.timeline:
        raise FarfeelError(f"--format {args.format} shows time; add --timeline or remove --format")
    files = _files_of(args)
    form = _form_of(args, len(files))
    if args.debug_dir:
        require_writable_folder(args.debug_dir)
    if args.audio_offset and not args.audio:
        raise FarfeelError(
            "--audio-offset is given without --audio, expected both; add --audio or remove --audio-offset"
        )
    if args.audio and len(files) > 1:
        raise FarfeelError(f"--audio belongs to one video, {len(files)} files are named; predict them one by one")
    where = "cpu" if args.engine == "onnx" else device(args.device)
    if args.engine == "ray" and (args.timeline or args.debug_dir):
        raise FarfeelError("--engine ray takes no --timeline and no --debug-dir; remove them, or remove --engine ray")
    engine = "onnx" if args.engine == "onnx" else "torch"
    options = Options(
        mics=args.mics,
        audio=args.audio,
        audio_offset_s=args.audio_offset,
        face=args.face,
        modalities=args.modalities,
        face_model=args.face_model,
        abstain_below=args.abstain_below,
    )
    checkpoint = ", ".join(map(str, args.checkpoint or ["default"]))
    # A few files are decoded beside this process: one of them may crash the decoder, the others get their answers.
    beside = len(files) <= FEW and any(path.suffix.lower() not in (".wav", ".flac") for path in files)
    with isolated_decoding(early=beside):
        recognizer = Recognizer.load(args.checkpoint, where, args.precision, engine, args.front_end)
        return _recognise(args, recognizer, files, options, checkpoint, form)


def _recognise(
    args: argparse.Namespace, recognizer: Recognizer, files: list[Path], options: Options, checkpoint: str, form: str
) -> int:
    from farfeel.show.predictions import render

    if args.timeline:
        return _timelines(args, recognizer, files, options, checkpoint, form)
    found, failures = [], []
    predict = _with_pictures if args.debug_dir else _predictions
    for path, result in zip(files, predict(args, recognizer, files, options), strict=True):
        if isinstance(result, FarfeelError):
            failures.append(str(result))
        else:
            found.append((path, result))
    if found or (form == "json" and is_stream(args.out)):
        _put(args.out, render(found, checkpoint, form))
    return _report(failures, len(files))


def _files_of(args: argparse.Namespace) -> list[Path]:
    """The recordings. Without FILE, the files of --audio are one recording of audio."""
    from farfeel.media.recordings import kind_of

    if args.files:
        return recordings(args.files)
    if not args.audio:
        args.usage_error("the following arguments are required: FILE|FOLDER|GLOB, or --audio")
    *before, last = args.audio
    if before and kind_of(last) == "video" and not any(kind_of(file) == "video" for file in before):
        args.audio = before  # `--audio ARRAY FILE`: the only video is the FILE
        return [last]
    if args.modalities == "video":
        raise FarfeelError("--modalities is video, but only --audio is given; name the video FILE before --audio")
    args.modalities = "audio"
    return [args.audio[0]]


def _form_of(args: argparse.Namespace, recordings: int) -> str:
    """The output format. Raises FarfeelError where --out is no place for it, or its suffix is not known."""
    from farfeel.show.timeline import FORMATS, format_of
    from farfeel.support.files import require_writable_file, require_writable_folder

    form, known = args.format, ".csv, .json, .txt"
    if is_stream(args.out):
        if form in OF_TIMELINES and recordings > 1:
            raise FarfeelError(f"--format {form} is one file each for {recordings} recordings; add --out FOLDER")
        return form or "table"
    if args.timeline and recordings > 1:
        require_writable_folder(args.out)
        if not form and args.out.suffix.lower()[1:] in FORMATS and not args.out.is_dir():
            raise FarfeelError(
                f"--out {args.out} is named like a file, expected a folder for the timelines of {recordings} "
                "recordings; name a folder, or add --format"
            )
        return "csv" if form in (None, "table") else form
    require_writable_file(args.out)
    if form:
        return form
    if args.timeline:
        return format_of(args.out)
    suffix = args.out.suffix.lower()
    if suffix[1:] in OF_TIMELINES:
        raise FarfeelError(f"--out {args.out} shows time; add --timeline, or choose a name that ends in {known}")
    if suffix not in ("", ".csv", ".json", ".txt"):
        raise FarfeelError(
            f"--out {args.out} ends in {suffix}, expected {known} (with --timeline also .html, .TextGrid, .vtt); "
            "choose another name, or add --format"
        )
    return suffix[1:] if suffix in (".csv", ".json") else "table"


def recordings(words: Sequence[str]) -> list[Path]:
    """Files, folders and patterns → files, each once. A note counts the files of folders that are no recordings."""
    from farfeel.media.recordings import folder_content
    from farfeel.support.text import few

    files: list[Path] = []
    for word in words:
        path = Path(word)
        inside: Sequence[Path] | None = None
        others: Sequence[Path] = ()
        if path.is_dir():
            content = folder_content(path)
            inside, others = content.recordings, content.others
            for folder, reason in content.unread:
                note(f"{folder} cannot be read ({reason}); what is in it was left out")
        elif not path.exists() and any(sign in word for sign in "*?["):  # a pattern that no shell has expanded
            inside = _matches(word)
        if inside is not None and not inside:
            found = f", found {few([other.name for other in others])}" if others else ""
            raise FarfeelError(f"{word} has no recording (.wav, .mp3, .mp4 …){found}; name another folder or file")
        if others:
            names = few([other.relative_to(path) for other in others])
            note(f"{len(others)} of {len(others) + len(inside or ())} files were not recordings: {names}")
        files += [path] if inside is None else inside
    return list(dict.fromkeys(files))


def _matches(pattern: str) -> list[Path]:
    """The files that a pattern names, without litter. A file that is reached by several links is taken once."""
    from glob import glob

    from farfeel.support.folders import is_litter

    named = set(Path(pattern).parts)
    found: dict[str, Path] = {}
    for path in sorted(map(Path, glob(pattern, recursive=True)), key=lambda path: (len(path.parts), path)):
        if path.is_file() and not any(is_litter(part) for part in path.parts if part not in named):
            found.setdefault(os.path.realpath(path), path)
    return sorted(found.values())


def _predictions(
    args: argparse.Namespace, recognizer: Recognizer, files: list[Path], options: Options
) -> Iterator[Prediction | FarfeelError]:
    """The prediction of each file, or its error. Processes beside this one decode many files."""
    from farfeel.recognise.hub import is_address
    from farfeel.recognise.many_machines import LoadOptions, predict_on

    workers = args.workers
    if workers is None:
        workers = 0 if len(files) <= FEW else min(MOST_WORKERS, os.cpu_count() or 1)
    if args.engine == "ray":
        chosen = (
            None
            if args.checkpoint is None
            else tuple(path if is_address(path) else path.resolve() for path in args.checkpoint)
        )
        loading = LoadOptions(chosen, device(args.device), args.precision, front_end=args.front_end)
        results = predict_on(runner("ray"), loading, files, options, max(1, workers))
    else:
        results = recognizer.predict_many(files, options, workers=workers)
    if len(files) <= FEW:
        yield from results
        return
    with progress("recognising", "recordings") as advance:
        for done, result in enumerate(results, 1):
            advance(done, len(files))
            yield result


def _with_pictures(
    args: argparse.Namespace, recognizer: Recognizer, files: list[Path], options: Options
) -> Iterator[Prediction | FarfeelError]:
    """The same, one file after the other; what the model saw of each video is written as pictures."""
    from farfeel.media.face_video import FaceVideo
    from farfeel.media.microphone_files import named
    from farfeel.recognise.decoding import model_input, open_recording
    from farfeel.show.predictions import write_views

    for index, path in enumerate(files):
        try:
            recording, notes = open_recording(path, recognizer.recipe, options)
            decoded = model_input(recording, notes, recognizer.recipes, options.mics, named(options.audio_files(path)))
        except FarfeelError as error:  # the other files are still worth recognising
            yield error
            continue
        (prediction,) = recognizer.recognise([decoded], options)
        if isinstance(recording.video, FaceVideo):
            before = [file.stem for file in files[:index]].count(path.stem)
            name = f"{path.stem}-{before + 1}" if before else path.stem
            for picture in write_views(args.debug_dir, name, recording.video):
                note(f"written: {picture}")
        yield prediction


def _put(out: Path | None, text: str) -> None:
    """To a file, whole or not at all, or to standard output, a pipe or a device."""
    from farfeel.support.files import replacing_file

    if out is None or str(out) in STANDARD_OUTPUT:
        print(text)
        return
    if is_stream(out):
        with out.open("a", encoding="utf-8") as stream:  # what a shell has put there before is kept
            stream.write(text + "\n")
        return
    with replacing_file(out) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    note(f"written: {out}")


def _report(failures: list[str], files: int) -> int:
    """Print what went wrong; the exit code."""
    for failure in failures:
        print_error(failure)
    if failures and files > FEW:
        note(f"{len(failures)} of {files} recordings failed")
    return 1 if failures else 0


def _timelines(
    args: argparse.Namespace, recognizer: Recognizer, files: list[Path], options: Options, checkpoint: str, form: str
) -> int:
    from farfeel.show.timeline import FORMATS, render_timelines

    into = args.out if len(files) > 1 and not is_stream(args.out) else None  # a file in it for each recording
    names = _names_of(files)
    found: list[tuple[Path, Timeline]] = []
    failures: list[str] = []
    for path in files:
        try:
            with progress(path.name, "seconds") as advance:
                line = recognizer.timeline(
                    path,
                    args.step,
                    options,
                    on_progress=lambda done, of, advance=advance: advance(round(done), round(of)),  # type: ignore[misc]
                )
        except FarfeelError as error:  # the other files are still worth recognising
            failures.append(str(error))
            continue
        if into:
            into.mkdir(parents=True, exist_ok=True)
            out = into / f"{names[path]}.{'TextGrid' if form == 'textgrid' else form}"
            _put(out, FORMATS[form](path, line, checkpoint))
        else:
            found.append((path, line))
    if into is None and (found or form == "json"):
        several = form in ("table", "json", "csv")
        text = render_timelines(found, checkpoint, form) if several else FORMATS[form](*found[0], checkpoint)
        _put(args.out, text)
    return _report(failures, len(files))


def _names_of(files: list[Path]) -> dict[Path, str]:
    """A name for the timeline of each recording: its own, with its folder where two are alike, numbered if need be."""
    names: dict[Path, str] = {}
    counts = Counter(path.stem.casefold() for path in files)
    taken: Counter[str] = Counter()
    for path in files:
        name = "-".join(path.with_suffix("").parts[-2:]) if counts[path.stem.casefold()] > 1 else path.stem
        name = os.fsdecode(os.fsencode(name)[:LONGEST_NAME])
        taken[name.casefold()] += 1
        number = taken[name.casefold()]
        names[path] = f"{name}-{number}" if number > 1 else name
    return names


def is_stream(out: Path | None) -> bool:
    """Whether the text goes to standard output, a pipe or a device, and not to a file."""
    if out is None or str(out) in STANDARD_OUTPUT or OPEN_FILE.fullmatch(str(out)):
        return True
    return out.exists() and not out.is_file() and not out.is_dir()


COMMANDS = (Command("predict", "Recognise the emotion in recordings: audio, video or both.", _arguments, _predict),)
