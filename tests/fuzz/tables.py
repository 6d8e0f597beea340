"""Tables: manifests, predictions, FER2013's tables, a folder's table of clips, CREMA-D's tables, IEMOCAP's texts."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from farfeel.corpora.readers import crema_d, iemocap
from farfeel.corpora.readers.folder import FOLDER
from farfeel.corpora.scan import read_manifest, write_manifest
from farfeel.corpora.stills import unpack
from farfeel.evaluate.table import read_predictions
from farfeel.types import EMOTIONS, Clip

from .damaging import Reader, damaged, damaged_table

TEXT = [
    b'"', b"\0", b"\r", b"\n", b",", b";", b"\t", b"\xff", b"\xef\xbb\xbf", b"\xc2\xb2", b"nan", b"1e999", b"-1",
    b"../", b"9" * 5000, b"x" * 140_000, b",,,,,,,,", b"happy",
]  # fmt: skip


def readers(folder: Path) -> list[Reader]:
    """All readers of this group; `folder` is for what they need."""
    clips = [
        Clip(f"clip {k}", "synthetic", f"speaker {k % 3}", EMOTIONS[k % 8], folder / f"{k}.wav", None, 0.0, 1.5)
        for k in range(12)
    ]
    write_manifest(clips, folder / "manifest.parquet", folder)
    manifest = (folder / "manifest.parquet").read_bytes()
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.ones(8), 24)
    predictions = pd.DataFrame(
        {
            "clip": [f"clip {k // 2}" for k in range(24)],
            "speaker": [f"speaker {k % 3}" for k in range(24)],
            "room": [("dry", "lab")[k % 2] for k in range(24)],
            "target": [EMOTIONS[k % 8] for k in range(24)],
            **{f"{prefix}_{emotion}": shares[:, k] for prefix in "pq" for k, emotion in enumerate(EMOTIONS)},
        }
    )
    predictions.to_parquet(folder / "predictions.parquet")
    table = (folder / "predictions.parquet").read_bytes()
    greys = " ".join(map(str, rng.integers(0, 256, 2304)))
    fer = f"emotion,pixels,Usage\n3,{greys},Training\n0,{greys},PublicTest\n9,1 2,Training\n".encode()
    png = _png()
    pictures = pd.DataFrame({"jpeg": [png, png, b"x"], "emotion": ["happy", "sad", "sad"], "split": ["train"] * 3})
    pictures.to_parquet(folder / "fer.parquet")
    held = (folder / "fer.parquet").read_bytes()
    listed = b"path,emotion,speaker,start_s,end_s\na.wav,happy,anna,0,1\nb.wav,sad,bert,0.5,2\n"
    people = b"ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n1002,21,Female,Asian,Not Hispanic\n"
    votes = _votes()
    evaluation = (
        b"[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n"
        b"[10.0100 - 11.3925]\tSes01F_impro01_F001\tang\t[2.5000, 2.5000, 2.5000]\n"
    )
    parquet = {"manifest": (manifest, _manifest), "predictions": (table, _predictions), "FER2013": (held, _stills)}
    found = []
    for name, (content, read) in parquet.items():
        of = pq.read_table(io.BytesIO(content))
        found += [
            Reader(f"{name}, Parquet", lambda rng, content=content: damaged(rng, [content]), read),
            Reader(f"{name}, other values", lambda rng, of=of: damaged_table(rng, of), read),
        ]
    return [
        *found,
        Reader("FER2013, CSV", lambda rng: damaged(rng, [fer], TEXT), _stills),
        Reader("clips.csv of a folder", lambda rng: damaged(rng, [listed], TEXT), _folder),
        Reader("CREMA-D, people", lambda rng: damaged(rng, [people], TEXT), lambda c, f: _crema_d(c, votes, f)),
        Reader("CREMA-D, votes", lambda rng: damaged(rng, [votes], TEXT), lambda c, f: _crema_d(people, c, f)),
        Reader("IEMOCAP, labels", lambda rng: damaged(rng, [evaluation], TEXT), _iemocap),
    ]


def _png() -> bytes:
    import cv2

    return cv2.imencode(".png", np.arange(2304, dtype=np.uint8).reshape(48, 48))[1].tobytes()


def _manifest(content: bytes, folder: Path) -> None:
    (folder / "manifest.parquet").write_bytes(content)
    read_manifest(folder / "manifest.parquet", folder)
    read_manifest(folder / "manifest.parquet")


def _predictions(content: bytes, folder: Path) -> None:
    (folder / "predictions.parquet").write_bytes(content)
    read_predictions(folder)


def _stills(content: bytes, folder: Path) -> None:
    (folder / "table").write_bytes(content)
    unpack(folder / "table", folder / "out")
    unpack(folder / "table", folder / "out")


def _folder(content: bytes, folder: Path) -> None:
    (folder / "a.wav").touch()
    (folder / "b.wav").touch()
    (folder / "clips.csv").write_bytes(content)
    FOLDER.listing(folder)


def _votes() -> bytes:
    stream = io.StringIO()
    columns = ["fileName", *"ADFHNS", "numResponses", "emoVote", "agreement"]
    writer = csv.writer(stream)
    writer.writerow(["", *columns])
    for k, clip in enumerate(("1001_DFA_ANG_XX", "1002_DFA_ANG_XX")):
        writer.writerow([k, clip, *[1] * 6, 6, "A", 0.5])
    return stream.getvalue().encode()


def _crema_d(people: bytes, votes: bytes, folder: Path) -> None:
    (folder / "processedResults").mkdir()
    (folder / "VideoDemographics.csv").write_bytes(people)
    (folder / "processedResults" / "tabulatedVotes.csv").write_bytes(votes)
    clips = [
        Clip(f"{actor}_DFA_ANG_XX", "crema-d", actor, "angry", folder / "AudioWAV" / f"{actor}_DFA_ANG_XX.wav")
        for actor in ("1001", "1002")
    ]
    crema_d._people(clips)
    crema_d._perceived(clips, "audio")


def _iemocap(content: bytes, folder: Path) -> None:
    place = folder / "Session1" / "dialog" / "EmoEvaluation"
    place.mkdir(parents=True)
    (place / "Ses01F_impro01.txt").write_bytes(content)
    wavs = folder / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    wavs.mkdir(parents=True)
    for number in range(2):
        (wavs / f"Ses01F_impro01_F00{number}.wav").touch()
    iemocap.IEMOCAP.listing(folder)
