"""Commands about corpora: scan, stills, surrogate."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from farfeel.cli.common import Command, corpus_arguments, require_at_least, sources_of
from farfeel.support.console import note, progress
from farfeel.types import FarfeelError
from farfeel.variants import CORPORA


def _scan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", help=", ".join(CORPORA))
    parser.add_argument(
        "--root", type=Path, required=True, help="folder of the corpus, in its published layout or without folders"
    )
    parser.add_argument("--out", type=Path, help="write the manifest (Parquet, one row per clip)")


def _scan(args: argparse.Namespace) -> None:
    from farfeel.corpora import get_corpus
    from farfeel.corpora.scan import scan, write_manifest
    from farfeel.support.files import require_writable_file

    if args.out:
        require_writable_file(args.out)
    corpus = get_corpus(args.corpus)
    with progress("reading headers", "files") as advance:
        report = scan(corpus, args.root, progress=advance)
    print(f"{corpus.title} ({corpus.licence})\n{corpus.source}\n\n{report.summary()}")
    if args.out:
        write_manifest(report.clips, args.out, args.root)
        note(f"manifest: {args.out}")


def _stills_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, help="FER2013's CSV, or Parquet with the columns jpeg, emotion and split")
    parser.add_argument("--out", type=Path, required=True, help="folder of the stills: split/emotion/row.jpg")


def _stills(args: argparse.Namespace) -> None:
    from farfeel.corpora.stills import unpack
    from farfeel.support.files import require_writable_folder
    from farfeel.support.text import few

    require_writable_folder(args.out)
    with progress("unpacking", "stills") as advance:
        unpacked = unpack(args.table, args.out, advance)
    for split, emotions in unpacked.stills.items():
        counts = ", ".join(f"{count} {emotion}" for emotion, count in emotions.items())
        print(f"{split:<10}  {sum(emotions.values()):>6} stills: {counts}")
    for split, count in unpacked.copies.items():
        note(f"{count} of the {split} stills are also in train, byte for byte: they leak between parts of the split")
    if unpacked.bad:
        note(f"left out: {few(unpacked.bad)}")


def _surrogate_arguments(parser: argparse.ArgumentParser) -> None:
    corpus_arguments(parser)
    parser.add_argument("--stills", type=Path, required=True, help="folder of face stills (see farfeel stills)")
    parser.add_argument(
        "--split",
        required=True,
        help="the split to train and test on, such as folds-6:1: no still is in two of its parts",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the videos, their manifest and the table of pairs"
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes (default 1)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads (default: all cores)")


def _surrogate(args: argparse.Namespace) -> None:
    from collections import Counter

    from farfeel.corpora.scan import load_clips
    from farfeel.corpora.splits import PARTS
    from farfeel.corpora.surrogate import MANIFEST, make_surrogate
    from farfeel.support.files import require_writable_folder

    require_at_least(1, workers=args.workers)
    require_at_least(0, seed=args.seed)
    require_writable_folder(args.out)
    source, *others = sources_of(args)
    if others:
        raise FarfeelError(f"surrogate videos are made for one corpus, found {1 + len(others)} --corpus; name one")
    clips = load_clips(source.corpus, source.root, note)
    stills = load_clips("stills", args.stills, note)
    with progress("making videos", "videos") as advance:
        pairs = make_surrogate(clips, stills, args.split, args.out, args.seed, args.workers, advance)
    for part in PARTS:
        videos = Counter(pairing.still.id for pairing in pairs if pairing.part == part)
        print(f"{part:<5}  {videos.total():>5} videos of {len(videos)} stills")
    print("Surrogate videos: stills of other people. A result on them is no result on videos of people who speak.")
    note(f"use --corpus {args.out / MANIFEST} with data.split={args.split}: another split has stills in two parts")


COMMANDS = (
    Command("scan", "Report what a folder holds of a corpus, and write its manifest.", _scan_arguments, _scan),
    Command("stills", "Unpack a table of face stills (FER2013) into a folder.", _stills_arguments, _stills),
    Command(
        "surrogate", "Make videos from stills for a speech corpus without video.", _surrogate_arguments, _surrogate
    ),
)
