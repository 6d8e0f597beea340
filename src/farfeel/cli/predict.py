"""The command that people came for: predict."""

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
    fail,
    front_end_argument,
    mic_list,
    modalities_argument,
    runner,
    share,
)
from farfeel.support.console import note, progress
from farfeel.types import FACES, FarfeelError

if TYPE_CHECKING:
    from farfeel.recognise.decoding import Options
    from farfeel.recognise.recognizer import Recognizer
    from farfeel.types import Prediction, Timeline

MOST_WORKERS = 16
FEW = 4  # files that one process decodes sooner than others are started
OF_TIMELINES = ("html", "textgrid", "vtt")  # formats that show time


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE|FOLDER|GLOB",
        help="recordings: sound of any channel count, film or both",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs=1,
        action="extend",
        help="checkpoint folder, e.g. runs/default/best (with --engine onnx an exported file); repeat it for an "
        "ensemble; default: the one in the package",
    )
    parser.add_argument(
        "--engine",
        choices=["torch", "onnx", "ray"],
        default="torch",
        help="what runs it (default torch); ray: PyTorch on the Ray cluster of RAY_ADDRESS, or on a local one",
    )
    parser.add_argument("--mics", type=mic_list, help="channels to use, from 0: 0,1,2 (default: all)")
    modalities_argument(parser)
    front_end_argument(parser)
    parser.add_argument("--audio", type=Path, help="the sound of the film FILE, as of a microphone array")
    parser.add_argument(
        "--audio-offset",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds after the film's start that --audio begins",
    )
    parser.add_argument("--face", choices=FACES, default="largest", help="whose (whole: no search for one)")
    parser.add_argument("--face-model", type=Path, help="YuNet's ONNX file, to find faces instead of the Haar cascade")
    parser.add_argument(
        "--abstain-below",
        type=share,
        default=0.0,
        metavar="P",
        help="no label where the highest probability is lower (default 0: always a label)",
    )
    parser.add_argument(
        "--timeline", action="store_true", help="a prediction for each window of a recording of any length"
    )
    parser.add_argument("--step", type=float, default=1.0, metavar="S", help="seconds between windows (default 1)")
    parser.add_argument("--debug-dir", type=Path, help="write what the model saw of each film there, as pictures")
    parser.add_argument("--workers", type=int, help="processes that decode (default: for many files, one a core)")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32", help="of the network (default 32)")
    parser.add_argument(
        "--format",
        choices=["table", "json", "csv", *OF_TIMELINES],
        help=f"default table; {', '.join(OF_TIMELINES)} (a page with a plot, Praat, WebVTT subtitles) with --timeline; "
        "without it --out's suffix decides",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="write there instead of standard output; for the timelines of several recordings a folder",
    )
    device_argument(parser)


def _predict(args: argparse.Namespace) -> int:
    from farfeel.media.audio import SPEECH_SUFFIXES
    from farfeel.media.isolation import isolated_decoding
    from farfeel.media.video import VIDEO_SUFFIXES
    from farfeel.recognise.decoding import Options
    from farfeel.recognise.recognizer import Recognizer
    from farfeel.show.timeline import format_of
    from farfeel.support.files import require_file_place, require_folder_place

    if args.out and args.out.suffix.lower() in (*SPEECH_SUFFIXES, *VIDEO_SUFFIXES):
        raise FarfeelError(f"--out {args.out} is an audio or video file, expected a place for a table; name another")
    if args.format in OF_TIMELINES and not args.timeline:
        raise FarfeelError(f"--format {args.format} shows time; add --timeline or leave it out")
    files = recordings(args.files)
    if args.timeline and len(files) > 1:
        if args.format in OF_TIMELINES and not args.out:
            raise FarfeelError(f"--format {args.format} is one file each for {len(files)} recordings; add --out FOLDER")
        if args.out:
            require_folder_place(args.out)
    elif args.out:
        require_file_place(args.out)
        if args.timeline and not args.format:
            format_of(args.out)
    if args.debug_dir:
        require_folder_place(args.debug_dir)
    if args.audio_offset and not args.audio:
        raise FarfeelError("--audio-offset moves the sound of --audio, and there is none; name it, or leave it out")
    if args.audio and len(files) > 1:
        raise FarfeelError(f"--audio is the sound of one film, {len(files)} files are named; name them one by one")
    where = "cpu" if args.engine == "onnx" else device(args.device)
    if args.engine == "ray" and (args.timeline or args.debug_dir):
        raise FarfeelError("--engine ray takes no --timeline and no --debug-dir; leave them out, or leave it out")
    engine = "onnx" if args.engine == "onnx" else "torch"
    options = Options(args.mics, args.audio, args.audio_offset, args.face, args.modalities, args.face_model)
    checkpoint = ", ".join(map(str, args.checkpoint or ["default"]))
    # A few files are decoded beside this process: one of them may crash the decoder, the others get their answers.
    beside = len(files) <= FEW and any(path.suffix.lower() not in (".wav", ".flac") for path in files)
    with isolated_decoding(early=beside):
        recognizer = Recognizer.load(args.checkpoint, where, args.precision, engine, args.front_end)
        return _recognise(args, recognizer, files, options, checkpoint)


def _recognise(
    args: argparse.Namespace, recognizer: Recognizer, files: list[Path], options: Options, checkpoint: str
) -> int:
    from farfeel.show.predictions import render

    if args.timeline:
        return _timelines(args, recognizer, files, options, checkpoint)
    found, failures = [], []
    each = _looked_at if args.debug_dir else _recognised
    for path, result in each(args, recognizer, files, options):
        if isinstance(result, FarfeelError):
            failures.append(str(result))
        else:
            found.append((path, result))
    if found or (args.format == "json" and not args.out):
        _put(args.out, render(found, checkpoint, args.format or "table"))
    return _told(failures, len(files))


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


def _recognised(
    args: argparse.Namespace, recognizer: Recognizer, files: list[Path], options: Options
) -> Iterator[tuple[Path, Prediction | FarfeelError]]:
    """Many files decoded by processes beside this one."""
    from farfeel.recognise.hub import is_address
    from farfeel.recognise.many_files import LoadOptions, predict_each, predict_on

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
        each = predict_on(runner("ray"), loading, files, options, max(1, workers), args.abstain_below)
    else:
        each = predict_each(recognizer, files, options, workers, args.abstain_below)
    if len(files) <= FEW:
        yield from each
        return
    with progress("recognising", "recordings") as advance:
        for done, found in enumerate(each, 1):
            advance(done, len(files))
            yield found


def _looked_at(
    args: argparse.Namespace, recognizer: Recognizer, files: list[Path], options: Options
) -> Iterator[tuple[Path, Prediction | FarfeelError]]:
    """One by one, and what the model saw of each film is written as pictures."""
    from farfeel.recognise.decoding import open_recording, prepare_recording
    from farfeel.show.predictions import write_views

    for place, path in enumerate(files):
        try:
            recording, notes = open_recording(path, recognizer.recipe, options)
            prepared = prepare_recording(recording, notes, recognizer.recipes, options.mics, str(options.audio or path))
        except FarfeelError as error:  # the other files are still worth recognising
            yield path, error
            continue
        (prediction,) = recognizer.answer([prepared], args.abstain_below)
        if recording.footage:
            before = [file.stem for file in files[:place]].count(path.stem)
            name = f"{path.stem}-{before + 1}" if before else path.stem
            for picture in write_views(args.debug_dir, name, recording.footage):
                note(f"written: {picture}")
        yield path, prediction


def _put(out: Path | None, text: str) -> None:
    """To a file, whole or not at all, or to standard output."""
    from farfeel.support.files import replacing_file

    if out is None:
        print(text)
        return
    with replacing_file(out) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    note(f"written: {out}")


def _told(failures: list[str], files: int) -> int:
    """What went wrong, in the end; the exit code."""
    for failure in failures:
        fail(failure)
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
                line = recognizer.timeline_of(
                    path,
                    args.step,
                    options,
                    abstain_below=args.abstain_below,
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
    return _told(failures, len(files))


def _is_twice(path: Path, files: list[Path]) -> bool:
    return sum(other.stem == path.stem for other in files) > 1


COMMANDS = (Command("predict", "Recognise the emotion in recordings: sound, film or both.", _arguments, _predict),)
