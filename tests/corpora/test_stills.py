"""A table of faces becomes a folder, and the folder clips; what is wrong with a row is said."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farfeel.cli import main
from farfeel.corpora.readers.stills import STILLS
from farfeel.corpora.scan import load_clips, scan
from farfeel.corpora.splits import split_clips
from farfeel.corpora.stills import unpack
from farfeel.types import Clip, FarfeelError

Real = Callable[[str], Path]


def face(number: int, suffix: str = ".jpg") -> bytes:
    """A picture of 48 by 48 greys; different numbers are different pictures."""
    greys = np.random.default_rng(number).integers(0, 256, (48, 48), dtype=np.uint8)
    return bytes(cv2.imencode(suffix, greys)[1].tobytes())


def parquet(path: Path, rows: list[tuple[object, str, str]]) -> Path:
    """Rows of picture, emotion and split → a table."""
    pictures, emotions, splits = zip(*rows, strict=True)
    pq.write_table(
        pa.table({"jpeg": pa.array(pictures, pa.binary()), "emotion": list(emotions), "split": list(splits)}), path
    )
    return path


ROWS: list[tuple[object, str, str]] = [
    (face(0), "happy", "train"),
    (face(1), "fear", "train"),
    (face(2), "disgust", "validation"),
    (face(1), "fear", "validation"),
    (face(3), "Surprise", "PublicTest"),
]


def test_a_parquet_table_is_unpacked_byte_for_byte(tmp_path: Path) -> None:
    unpacked = unpack(parquet(tmp_path / "faces.parquet", ROWS), tmp_path / "faces")
    assert unpacked.stills == {
        "train": {"happy": 1, "fearful": 1},
        "validation": {"disgust": 1, "fearful": 1, "surprised": 1},
    }
    assert unpacked.bad == ()
    assert unpacked.copies == {"validation": 1}
    assert (tmp_path / "faces/train/fearful/000001.jpg").read_bytes() == face(1)
    assert (tmp_path / "faces/validation/surprised/000004.jpg").read_bytes() == face(3)


def test_fer2013s_csv_is_unpacked_pixel_by_pixel(tmp_path: Path) -> None:
    greys = np.random.default_rng(1).integers(0, 256, 48 * 48)
    pixels = " ".join(map(str, greys))
    rows = [f"{code},{pixels},{usage}" for code, usage in enumerate(["Training"] * 5 + ["PublicTest", "PrivateTest"])]
    rows += [
        f"7,{pixels},Training",
        f"3,{pixels[:-9]},Training",
        f"3,{pixels} x,Training",
        f"3,{pixels},Elsewhere",
        "3",
    ]
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n" + "\n".join(rows) + "\n")
    unpacked = unpack(tmp_path / "fer2013.csv", tmp_path / "faces")
    assert unpacked.stills == {
        "train": {"angry": 1, "disgust": 1, "fearful": 1, "happy": 1, "sad": 1},
        "validation": {"surprised": 1},
        "test": {"neutral": 1},
    }
    assert unpacked.bad == (
        "row 7 (unknown emotion '7')",
        "row 8 (undecodable picture)",
        "row 9 (undecodable picture)",
        "row 10 (unknown split 'Elsewhere')",
        "row 11 (unknown split '')",
    )
    written = cv2.imread(str(tmp_path / "faces/train/happy/000003.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(written, greys.reshape(48, 48))


def test_bad_rows_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS, (b"no picture", "sad", "train"), (None, "sad", "train"), (face(5), "bored", "train")]
    table = parquet(tmp_path / "faces.parquet", rows)
    assert main(["stills", str(table), "--out", str(tmp_path / "faces")]) == 0
    said = capsys.readouterr()
    line = "left out: row 5 (undecodable picture), row 6 (undecodable picture), row 7 (unknown emotion 'bored')"
    assert line in said.err.splitlines()
    assert "1 of the validation stills are also in train, byte for byte" in said.err
    assert "2 stills: 1 happy, 1 fearful" in said.out


def test_a_damaged_picture_is_named_without_words_of_a_library(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    png = bytearray(cv2.imencode(".png", np.arange(2304, dtype=np.uint8).reshape(48, 48))[1].tobytes())
    png[-30] ^= 255  # in the compressed data: libpng prints what it finds
    table = parquet(tmp_path / "faces.parquet", [*ROWS, (bytes(png), "sad", "train")])
    capfd.readouterr()
    unpack(table, tmp_path / "faces")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "marker", ["[]", "{}", "null", '{"stills": {"../..": {"x": 1}}, "bad": [], "copies": {}}', "["]
)
def test_a_marker_that_is_none_is_no_reason_to_keep_or_to_delete(tmp_path: Path, marker: str) -> None:
    table, out = parquet(tmp_path / "faces.parquet", ROWS), tmp_path / "faces"
    first = unpack(table, out)
    (out / "stills.json").write_text(marker)
    assert unpack(table, out) == first


def test_an_unpacked_folder_is_kept_until_it_is_no_longer_whole(tmp_path: Path) -> None:
    table, out = parquet(tmp_path / "faces.parquet", ROWS), tmp_path / "faces"
    first = unpack(table, out)
    kept = (out / "train/happy/000000.jpg").stat().st_mtime_ns
    steps: list[tuple[int, int]] = []
    assert unpack(table, out, lambda done, total: steps.append((done, total))) == first
    assert (out / "train/happy/000000.jpg").stat().st_mtime_ns == kept
    assert steps == []
    (out / "train/happy/000000.jpg").unlink()
    assert unpack(table, out, lambda done, total: steps.append((done, total))) == first
    assert (out / "train/happy/000000.jpg").exists()
    assert steps == [(5, 5)]


def test_a_killed_unpacking_leaves_nothing(tmp_path: Path) -> None:
    def killed(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(parquet(tmp_path / "faces.parquet", ROWS), tmp_path / "faces", killed)
    assert [file.name for file in tmp_path.iterdir()] == ["faces.parquet"]


def test_someone_elses_folder_is_not_replaced(tmp_path: Path) -> None:
    own = tmp_path / "faces/train/happy/mine.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(face(9))
    with pytest.raises(FarfeelError, match="choose another --out"):
        unpack(parquet(tmp_path / "faces.parquet", ROWS), tmp_path / "faces")
    assert own.exists()


def test_what_is_no_table_of_stills_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "half.parquet").write_bytes(parquet(tmp_path / "whole.parquet", ROWS).read_bytes()[:-50])
    pq.write_table(pa.table({"image": [b""], "label": [1]}), tmp_path / "other.parquet")
    parquet(tmp_path / "bad.parquet", [(b"no picture", "sad", "train")])
    for name, found in {
        "text.csv": "lacks the columns emotion, pixels, Usage",
        "empty.csv": "found nothing",
        "noise.csv": "cannot be read as Parquet or CSV|lacks the columns",
        "half.parquet": "cannot be read as Parquet or CSV",
        "other.parquet": "lacks the columns jpeg, emotion, split",
        "bad.parquet": "holds no usable still",
        "nowhere.csv": "does not exist",
    }.items():
        with pytest.raises(FarfeelError, match=found) as caught:
            unpack(tmp_path / name, tmp_path / "faces")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "faces").exists()


@pytest.mark.parametrize(
    ("path", "split", "emotion"),
    [
        ("Training/Anger/im0.png", "train", "angry"),
        ("fer/validation/fear/1.jpg", "validation", "fearful"),
        ("valid/disgusted/1.JPEG", "validation", "disgust"),
        ("PrivateTest/surprise/1.jpg", "test", "surprised"),
        ("test/calm/1.jpg", "test", "calm"),
    ],
)
def test_folders_may_have_the_names_of_the_copies_of_fer2013(path: str, split: str, emotion: str) -> None:
    clip = STILLS.decode(Path(path))
    assert isinstance(clip, Clip)
    assert (clip.emotion, clip.audio, clip.video, clip.face) == (emotion, None, Path(path), "whole")
    assert clip.id == f"{split}/{emotion}/{Path(path).stem}"


def test_a_still_elsewhere_is_none_and_one_of_another_emotion_is_left_out() -> None:
    assert STILLS.decode(Path("happy/1.jpg")) is None
    assert STILLS.decode(Path("train/happy/1.txt")) is None
    assert STILLS.decode(Path("train/contempt/1.jpg")) == "stills in a folder contempt"


def test_a_scan_counts_stills_by_split_and_reports_damaged_ones(tmp_path: Path) -> None:
    for number in range(120):
        place = tmp_path / ("train" if number < 100 else "val") / "happy" / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(face(number))
    (tmp_path / "train/happy/empty.jpg").touch()
    (tmp_path / "train/happy/half.png").write_bytes(face(1, ".png")[:-40])
    report = scan(STILLS, tmp_path)
    assert len(report.clips) == 120
    assert {clip.end_s for clip in report.clips} == {None}
    assert len({clip.speaker for clip in report.clips}) == 120
    lines = [line.split() for line in report.summary().splitlines()]
    assert ["train", "100", "100"] in lines
    assert ["validation", "20", "20"] in lines
    assert [path.name for path, _ in report.unreadable] == ["empty.jpg", "half.png"]


def test_the_real_table_is_read_whole(real: Real, tmp_path: Path) -> None:
    table = pq.ParquetFile(real("faces") / "fer2013.parquet")
    some = next(table.iter_batches(800))
    pq.write_table(pa.Table.from_batches([some]), tmp_path / "some.parquet")
    unpacked = unpack(tmp_path / "some.parquet", tmp_path / "faces")
    assert sum(sum(emotions.values()) for emotions in unpacked.stills.values()) == 800
    clips = load_clips("stills", tmp_path / "faces")
    assert len(clips) == 800
    parts = split_clips(clips, "published")
    published = Counter(some.column("split").to_pylist())
    assert (len(parts.train), len(parts.val), len(parts.test)) == (published["train"], published["validation"], 0)
