"""The command predict: the emotion in recordings, or over time."""

from __future__ import annotations

import argparse
import os
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


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE|FOLDER|GLOB",
        help="audio or video files, folders of them, or patterns such as 'day*/*.wav'; audio may have any number of "
        "channels, one for each microphone",
    )
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
        metavar="AUDIO",
        help="audio file to use instead of the audio in the video FILE, for example of a microphone array",
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
        "subtitles) (default: table, or with --timeline the suffix of --out)",
    )
    group.add_argument(
        "--out",
        type=Path,
        help="file to write instead of standard output; with --timeline and several recordings a folder",
    )


def _predict(args: argparse.Namespace) -> int:
    from farfeel.media.audio import SPEECH_SUFFIXES
    from farfeel.media.video import VIDEO_SUFFIXES
    from farfeel.recognise.options import Options
    from farfeel.recognise.recognizer import Recognizer
    from farfeel.show.predictions import render
    from farfeel.show.timeline import format_of
    from farfeel.support.files import require_writable_file, require_writable_folder

    if args.out and args.out.suffix.lower() in (*SPEECH_SUFFIXES, *VIDEO_SUFFIXES):
        raise FarfeelError(f"--out {args.out} is an audio or video file, expected the name of a table; choose another")
    if args.format in OF_TIMELINES and not args.timeline:
        raise FarfeelError(f"--format {args.format} shows time; add --timeline or remove --format")
    files = recordings(args.files)
    if args.timeline and len(files) > 1:
        if args.format in OF_TIMELINES and not args.out:
            raise FarfeelError(f"--format {args.format} is one file each for {len(files)} recordings; add --out FOLDER")
        if args.out:
            require_writable_folder(args.out)
    elif args.out:
        require_writable_file(args.out)
        if args.timeline and not args.format:
            format_of(args.out)
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
    recognizer = Recognizer.load(args.checkpoint, where, args.precision, engine, args.front_end)
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
    if args.timeline:
        return _timelines(args, recognizer, files, options, checkpoint)
    found, failures = [], []
    predict = _with_pictures if args.debug_dir else _predictions
    for path, result in zip(files, predict(args, recognizer, files, options), strict=True):
        if isinstance(result, FarfeelError):
            failures.append(str(result))
        else:
            found.append((path, result))
    if found or (args.format == "json" and not args.out):
        _put(args.out, render(found, checkpoint, args.format or "table"))
    return _report(failures, len(files))


def recordings(words: Sequence[str]) -> list[Path]:
    """Files, folders and patterns → files, each once."""
    from glob import glob

    from farfeel.media.audio import SPEECH_SUFFIXES, files_in
    from farfeel.media.video import VIDEO_SUFFIXES

    suffixes = (*SPEECH_SUFFIXES, *VIDEO_SUFFIXES)
    files: list[Path] = []
    for word in words:
        path = Path(word)
        inside = None
        if path.is_dir():
            inside = files_in(path, suffixes)
        elif not path.exists() and any(sign in word for sign in "*?["):  # a pattern that no shell has expanded
            inside = [found for found in sorted(map(Path, glob(word, recursive=True))) if found.is_file()]
        if inside == []:
            raise FarfeelError(f"{word} has no recording ({', '.join(suffixes)}); name another folder or file")
        files += [path] if inside is None else inside
    return list(dict.fromkeys(files))


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
    from farfeel.recognise.decoding import model_input, open_recording
    from farfeel.show.predictions import write_views

    for index, path in enumerate(files):
        try:
            recording, notes = open_recording(path, recognizer.recipe, options)
            decoded = model_input(recording, notes, recognizer.recipes, options.mics, str(options.audio or path))
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
    """To a file, whole or not at all, or to standard output."""
    from farfeel.support.files import replacing_file

    if out is None:
        print(text)
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
    args: argparse.Namespace, recognizer: Recognizer, files: list[Path], options: Options, checkpoint: str
) -> int:
    from farfeel.show.timeline import FORMATS, format_of, render_timelines

    into = args.out if args.out and len(files) > 1 else None  # a folder, a file in it for each recording
    form = args.format or ("table" if args.out is None else "csv" if into else format_of(args.out))
    if into and form == "table":
        form = "csv"
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
            stem = "-".join(path.with_suffix("").parts[-2:]) if _is_twice(path, files) else path.stem
            out = into / f"{stem}.{'TextGrid' if form == 'textgrid' else form}"
            _put(out, FORMATS[form](path, line, checkpoint))
        else:
            found.append((path, line))
    if into is None and (found or form == "json"):
        several = form in ("table", "json", "csv")
        text = render_timelines(found, checkpoint, form) if several else FORMATS[form](*found[0], checkpoint)
        _put(args.out, text)
    return _report(failures, len(files))


def _is_twice(path: Path, files: list[Path]) -> bool:
    return sum(other.stem == path.stem for other in files) > 1


COMMANDS = (Command("predict", "Recognise the emotion in recordings: audio, video or both.", _arguments, _predict),)
