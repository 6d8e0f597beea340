"""Reports: complete, self-contained, escaped, and written whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from farfeel.evaluate import report
from farfeel.evaluate.metrics import metrics
from farfeel.evaluate.report import FILES, confusion, markdown, reliability, write_evaluation, write_side_by_side
from farfeel.evaluate.table import emotions_of, read_predictions
from farfeel.types import FarfeelError

Draw = Callable[..., pd.DataFrame]
EVIL = "<script>alert('x')</script>|\"&`*"
DETAILS = {"corpus": "RAVDESS", "microphones": [0, 1, 2], "command": "farfeel evaluate --split test"}
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Tags and attributes of a page; fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "svg":
            assert {"aria-label", "aria-hidden"} & {name for name, _ in attrs}
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
def table(fake_table: Draw) -> pd.DataFrame:
    return fake_table(np.random.default_rng(1))


@pytest.fixture
def other(fake_table: Draw) -> pd.DataFrame:
    return fake_table(np.random.default_rng(2), logit=1.2)


@pytest.mark.parametrize("kind", ["evaluation", "side by side"])
def test_a_page_requests_nothing_from_any_other_host(
    table: pd.DataFrame, other: pd.DataFrame, tmp_path: Path, kind: str
) -> None:
    if kind == "evaluation":
        write_evaluation(table, tmp_path / "out", "One", DETAILS)
    else:
        write_side_by_side({"one": table, "two": other}, tmp_path / "out", "Two", DETAILS)
    text = (tmp_path / "out/report.html").read_text()
    page = Page(text)
    assert not re.search(r"https?://|url\(|@import", text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "video", "form"} & set(page.tags)
    assert not {"src", "href", "xlink:href", "srcset", "data"} & {name for name, _ in page.attributes}
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text


def test_every_name_is_shown_as_text_with_any_content(table: pd.DataFrame, other: pd.DataFrame, tmp_path: Path) -> None:
    def evil(one: pd.DataFrame) -> pd.DataFrame:
        names = {column: EVIL + one[column] for column in ("clip", "speaker", "room")}
        return one.assign(**names, target=one["target"].replace("sad", EVIL)).rename(columns={"p_sad": "p_" + EVIL})

    details = {EVIL: EVIL, "list": [EVIL], "command": EVIL}
    write_evaluation(evil(table), tmp_path / "a", EVIL, details)
    write_side_by_side({EVIL: evil(table), EVIL + "2": evil(other)}, tmp_path / "b", EVIL, details)
    for name in "ab":
        page = Page((tmp_path / name / "report.html").read_text())
        assert "script" not in page.tags
        assert not {name for name, _ in page.attributes if name.startswith("on")}
        assert EVIL in "".join(page.words)  # as it was, once the browser has decoded it
        text = (tmp_path / name / "report.md").read_text()
        assert "&lt;script&gt;" in text
        assert all("<script" not in line or line == "    " + EVIL for line in text.splitlines())  # the command, as code


def test_tables_in_markdown_have_as_many_cells_in_every_row(
    table: pd.DataFrame, other: pd.DataFrame, tmp_path: Path
) -> None:
    renamed = [one.assign(room=one["room"] + " | " + EVIL) for one in (table, other)]
    write_evaluation(renamed[0], tmp_path / "a", "T", DETAILS)
    write_side_by_side(dict(zip(("a|b", "c"), renamed, strict=True)), tmp_path / "b", "T", DETAILS)
    for name in "ab":
        text = (tmp_path / name / "report.md").read_text()
        blocks = [block for block in re.split(r"\n\s*\n", text) if block.startswith("|")]
        assert len(blocks) >= 3
        for block in blocks:
            rows = block.splitlines()
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, block
            assert set(rows[1]) <= set("|-:")


def test_markdown_text_is_one_line_without_markup() -> None:
    assert markdown("a\nb <i>|`*") == "a b &lt;i&gt;\\|\\`\\*"


def test_an_evaluation_can_be_read_again_and_agrees_with_its_metrics(table: pd.DataFrame, tmp_path: Path) -> None:
    found = write_evaluation(table, tmp_path / "out", "Title", DETAILS)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(FILES)
    content = json.loads((tmp_path / "out/metrics.json").read_text())
    again = metrics(read_predictions(tmp_path / "out")).as_dict()
    assert {key: content[key] for key in again} == again
    assert content["details"]["command"] == DETAILS["command"]
    accuracy = found.overall.accuracy
    shown = f"{100 * accuracy.value:.1f} % of the clips"
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text()
        assert shown in text
        assert DETAILS["command"] in text
        assert f"{100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}" in text


def test_a_report_of_the_same_table_is_the_same(table: pd.DataFrame, tmp_path: Path) -> None:
    for name in "ab":
        write_evaluation(table, tmp_path / name, "Title", DETAILS)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_side_by_side_holds_the_paired_differences_to_the_first(
    table: pd.DataFrame, other: pd.DataFrame, tmp_path: Path
) -> None:
    write_side_by_side({"one": table, "two": other, "one again": table}, tmp_path / "out", "Systems", DETAILS)
    content = json.loads((tmp_path / "out/metrics.json").read_text())
    assert content["first"] == "one"
    assert list(content["systems"]) == ["one", "two", "one again"]
    difference = content["differences"]["accuracy"]
    assert difference["one again"]["overall"]["difference"] == 0
    gap = [content["systems"][name]["overall"]["accuracy"]["value"] for name in ("one", "two")]
    assert difference["two"]["overall"]["difference"] == pytest.approx(gap[1] - gap[0])
    assert "two has the highest accuracy" in (tmp_path / "out/report.md").read_text()


def test_side_by_side_of_different_rows_is_refused_without_the_option_for_common_rows(
    table: pd.DataFrame, other: pd.DataFrame, tmp_path: Path
) -> None:
    part = {"one": table, "two": other[other["room"] == "dry"]}
    with pytest.raises(FarfeelError, match="match by clip and room"):
        write_side_by_side(part, tmp_path / "out", "T", DETAILS)
    assert not list(tmp_path.iterdir())
    found = write_side_by_side(part, tmp_path / "out", "T", DETAILS, intersection=True)
    assert list(found["one"].rooms) == ["dry"]


@pytest.mark.parametrize("speakers", [1, 3])
def test_few_speakers_give_a_warning(fake_table: Draw, tmp_path: Path, speakers: int) -> None:
    small = fake_table(np.random.default_rng(1), speakers=speakers, rooms=("dry",))
    write_evaluation(small, tmp_path / "out", "Title", {})
    assert ("One speaker only" if speakers == 1 else "Only 3 speakers") in (tmp_path / "out/report.html").read_text()


def test_emotions_that_do_not_occur_leave_gaps_and_no_numbers(table: pd.DataFrame, tmp_path: Path) -> None:
    write_evaluation(table[table["target"] != "calm"], tmp_path / "out", "Title", {})
    for name in ("report.html", "report.md"):
        assert "nan" not in re.findall(r"\w+", (tmp_path / "out" / name).read_text().lower())


def test_a_killed_writer_leaves_nothing_and_an_earlier_report_as_it_was(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_evaluation(table, tmp_path / "old", "Old", {})
    before = {name: (tmp_path / "old" / name).read_bytes() for name in FILES}

    def killed(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(report.json, "dumps", killed)  # the last of the four files
    for name in ("old", "new"):
        with pytest.raises(KeyboardInterrupt):
            write_evaluation(table, tmp_path / name, "New", {})
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert {name: (tmp_path / "old" / name).read_bytes() for name in FILES} == before


def test_a_folder_with_other_things_in_it_is_left_alone(table: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FarfeelError, match=r"thesis\.tex"):
        write_evaluation(table, tmp_path, "Title", {})
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    write_evaluation(table, tmp_path / "empty", "Title", {})
    write_evaluation(table, tmp_path / "empty", "Title", {})  # over an earlier report


def test_confusions_and_bins_count_every_row_once(table: pd.DataFrame) -> None:
    whole = confusion(table, "all")
    rooms = [confusion(part, str(room)).counts for room, part in table.groupby("room")]
    assert whole.counts.sum() == len(table)
    assert (sum(rooms) == whole.counts).all()
    assert whole.share.sum(axis=1) == pytest.approx(np.ones(8))
    bins = reliability(table)
    assert sum(one.count for one in bins) == len(table)
    ece = sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / len(table)
    assert ece == pytest.approx(metrics(table).as_dict()["overall"]["ece"]["value"])
    for one in bins:
        assert one.low - 1e-9 <= one.confidence <= one.high + 1e-9


def test_a_report_has_the_calibration_before_and_after_and_the_abstention(
    table: pd.DataFrame, other: pd.DataFrame, tmp_path: Path
) -> None:
    surer = {"q_" + emotion: table["p_" + emotion] ** 3 for emotion in emotions_of(table)}
    both = table.assign(**{column: values / sum(surer.values()) for column, values in surer.items()})
    found = write_evaluation(both, tmp_path / "a", "Title", DETAILS).overall
    write_side_by_side({"one": both, "two": other}, tmp_path / "b", "Two", DETAILS)
    write_evaluation(table, tmp_path / "c", "Title", DETAILS)
    before = f"{found.uncalibrated['ece'].value:.3f}"
    for page in ("a", "b", "c"):
        for name in ("report.html", "report.md"):
            text = (tmp_path / page / name).read_text()
            assert "Perfectly calibrated probabilities would also have an ECE" in text
            assert ("efore calibration" in text) == (page != "c")
            assert (before in text) == (page != "c")
            assert ("Accuracy with a label" in text) == (page != "b")
        Page((tmp_path / page / "report.html").read_text())
    content = json.loads((tmp_path / "a/metrics.json").read_text())
    assert [each["below"] for each in content["abstention"]] == [0.3, 0.4, 0.5, 0.6, 0.7]
