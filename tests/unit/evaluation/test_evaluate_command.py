"""`cellcount evaluate` from a labelled folder to its page, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

import cellcount_core
from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from cellcount_core.evaluation.figures import FIGURES, Interval, meaning, shown_with_interval
from cellcount_core.evaluation.page import CARDS, evaluation_page
from cellcount_core.evaluation.page import page as page_of
from tests.patterns import SIDE, pattern_package

HOSTILE = """<script>alert("1")</script>&'$x$"""
COLUMNS = ["id", "file", "label", "modality", "split"]


def squares(number: int, side: int = 12) -> np.ndarray:
    labels = np.zeros((96, 96), np.uint16)
    for each in range(number):
        y, x = divmod(each, 4)
        labels[6 + 22 * y :, 6 + 22 * x :][:side, :side] = each + 1
    return labels


def write_data(folder: Path, ids: dict[str, tuple[int, str, str]]) -> Path:
    """A folder of bright squares on noise: number of squares, modality and split of each id. The first image has one square
    that its labels do not know."""
    folder.mkdir()
    rows = []
    for at, (name, (number, modality, split)) in enumerate(ids.items()):
        labels = squares(number)
        seen = squares(number + (at == 0)) > 0
        plane = np.where(seen, 3000, 100) + np.random.default_rng(at).integers(0, 30, seen.shape)
        cv2.imwrite(str(folder / f"{at}.png"), plane.astype(np.uint16))
        cv2.imwrite(str(folder / f"{at}_label.png"), labels)
        rows.append(
            {
                "id": name,
                "file": f"{at}.png",
                "label": f"{at}_label.png",
                "modality": modality,
                "split": split,
            }
        )
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(
        tmp_path_factory.mktemp("labelled") / "data",
        {
            HOSTILE: (5, "fluorescence", "val"),
            "b": (12, "fluorescence", "val"),
            "c": (3, "phase", "val"),
            "d": (9, "fluorescence", "val"),
            "e": (4, "fluorescence", "train"),
        },
    )


def run(data: Path, out: Path, *options: str, package: str = "threshold") -> int:
    return main(["evaluate", package, str(data), "--out", str(out), *options])


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation without options wrote, and what it printed."""

    out: Path
    printed: str
    told: str


@pytest.fixture(scope="module")
def evaluated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    out = tmp_path_factory.mktemp("evaluated") / "deep" / "out"
    printed, told = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(told):
        assert run(data, out) == ExitCode.OK
    return Evaluated(out, printed.getvalue(), told.getvalue())


def stored(out: Path) -> dict[str, object]:
    return dict(json.loads((out / "evaluation.json").read_text(encoding="utf-8")))


def test_the_console_shows_the_figures_of_the_json_and_the_page_last(evaluated: Evaluated) -> None:
    out, lines = evaluated.out, evaluated.printed.splitlines()
    assert lines[-2:] == [f"page, JSON and CSV are in {out}/", str(out / "evaluation.html")]
    assert "evaluated 4 of 4 images" in evaluated.told
    figures = stored(out)["figures"]
    printed = {line[:18].strip(): line[18:] for line in lines if re.match(r"\S.{17}[\d−+–]", line)}
    titles = {meaning(name).title: name for name in FIGURES}
    assert {"AP @ 0.5", "F1 @ 0.5", "PQ", "count MAE", "count bias", "count R", "split"} <= set(printed)
    for title, text in printed.items():
        assert text == shown_with_interval(titles[title], Interval(**figures[titles[title]]))


def test_the_json_tells_package_data_figures_groups_and_every_image(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(data, out, "--diameter", "model") == ExitCode.OK
    found = stored(out)
    package = found["package"]
    assert (package["name"], len(package["digest"]), found["engine"]) == ("threshold", 64, "smooth")
    assert (found["diameter"], found["data"]["split"], found["data"]["images"]) == ("model", "val", 4)
    assert found["totals"] == {
        "true": 29, "counted": 30, "misses": 0, "extras": 1, "splits": 0, "merges": 0,
    }  # fmt: skip
    assert found["figures"]["extra"]["value"] == pytest.approx(1 / 29, abs=1e-6)
    assert found["figures"]["count_bias"]["value"] == pytest.approx(1 / 29, abs=1e-6)
    assert found["figures"]["ap_50"]["value"] == pytest.approx((5 / 6 + 3) / 4, abs=1e-6)
    assert found["bootstrap"] == {"over": "images", "resamples": 2000, "seed": 0, "level": 0.95}
    assert {name: group["images"] for name, group in found["groups"]["modality"].items()} == {
        "fluorescence": 3, "phase": 1,
    }  # fmt: skip
    assert found["groups"]["density"]["1 to 5"]["objects"] == 8
    assert found["worst"] == [HOSTILE]
    first = found["images"][0]
    assert (first["id"], first["true"], first["counted"], first["extras"]) == (HOSTILE, 5, 6, 1)
    assert first["ap_50"] == pytest.approx(5 / 6, abs=1e-6)


def test_the_table_has_a_row_an_image_with_the_values_of_the_json(evaluated: Evaluated) -> None:
    with (evaluated.out / "images.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    expected = [
        {name: "" if value is None else str(value) for name, value in image.items()}
        for image in stored(evaluated.out)["images"]
    ]
    assert rows == expected


class Page(HTMLParser):
    """Tags, texts and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self.alts += [value or "" for name, value in attrs if name == "alt"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_one_file_without_scripts_and_shows_hostile_names_as_text(evaluated: Evaluated) -> None:
    page = Page((evaluated.out / "evaluation.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert HOSTILE in page.text
    assert f"{HOSTILE}: true and counted outlines" in page.alts
    assert len(page.sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)


def test_a_hostile_modality_and_path_are_text_too(tmp_path: Path) -> None:
    folder = write_data(tmp_path / "<img onerror=x>", {"a": (4, "<u>bad</u>", ""), "b": (6, "_$", "")})
    out = tmp_path / "out"
    assert run(folder, out) == ExitCode.OK
    page = Page((out / "evaluation.html").read_text(encoding="utf-8"))
    assert "<u>bad</u>" in page.text
    assert "u" not in page.tags
    assert "<img onerror=x>" in page.text
    assert page.tags.count("img") == 3


def test_the_page_says_what_the_package_is_not_for(
    data: Path, evaluated: Evaluated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "1 of 4 images are of a modality the package is not for (phase; it is for fluorescence)"
    assert said in evaluated.printed
    assert said in (evaluated.out / "evaluation.html").read_text(encoding="utf-8")
    assert run(data, tmp_path / "other", "--modality", "fluorescence") == ExitCode.OK
    assert "is not for" not in capsys.readouterr().out


def test_equal_evaluations_write_equal_files(data: Path, evaluated: Evaluated, tmp_path: Path) -> None:
    assert run(data, tmp_path / "again") == ExitCode.OK
    for name in ("evaluation.json", "images.csv", "evaluation.html"):
        assert (evaluated.out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "images"),
    [
        (["--split", "train"], 1),
        (["--split", "all"], 5),
        (["--modality", "phase"], 1),
        (["--modality", "phase", "--modality", "fluorescence"], 4),
        (["--split", "all", "--limit", "2"], 2),
    ],
)
def test_split_modality_and_limit_choose_images(
    data: Path, tmp_path: Path, options: list[str], images: int
) -> None:
    out = tmp_path / "out"
    assert run(data, out, *options) == ExitCode.OK
    assert len(stored(out)["images"]) == images


def test_images_of_several_splits_are_measured_with_a_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = {"a": (5, "", "Val"), "b": (3, "", "train"), "c": (2, "", "train")}
    assert run(write_data(tmp_path / "data", ids), tmp_path / "out") == ExitCode.OK
    assert "note: images of all splits are measured ('Val': 1, 'train': 2); those that trained" in (
        capsys.readouterr().out
    )


def test_what_is_left_out_of_patterns_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package, data = tmp_path / "package", tmp_path / "data"
    pattern_package(package)
    data.mkdir()
    for name in "abc":
        cv2.imwrite(str(data / f"{name}.png"), np.full((SIDE, SIDE), 9, np.uint8))
    (data / "truth.csv").write_text("Id,Target\na,bright\nb,broad\nc,brite\nd,bright\n")
    assert run(data, tmp_path / "out", "--skip-faulty", package=str(package)) == ExitCode.OK
    printed = capsys.readouterr().out
    assert "value\n" in printed
    assert f"note: 2 of 4 rows of {data / 'truth.csv'} are left" in printed
    assert "note: left out: 1 x unknown_pattern: a pattern that is none of the known ones" in printed
    assert "note: left out: 1 x no_image: an Id without an image" in printed
    assert len(stored(tmp_path / "out")["data"]["left_out"]) == 3


def test_a_suite_that_cannot_judge_patterns_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern_package(tmp_path / "package")
    told = run(tmp_path, tmp_path / "out", "--suite", "accuracy", package=str(tmp_path / "package"))
    assert told == ExitCode.CONFIG
    assert "task 'patterns', which is compared with a table of patterns" in capsys.readouterr().err


def test_an_archive_is_measured_whole(tmp_path: Path) -> None:
    labels = np.stack([squares(4), squares(7), squares(0)])
    noise = np.random.default_rng(3).integers(0, 30, labels.shape)
    np.savez(tmp_path / "a.npz", X=(np.where(labels > 0, 3000, 100) + noise).astype(np.uint16), y=labels)
    out = tmp_path / "out"
    assert run(tmp_path / "a.npz", out) == ExitCode.OK
    found = stored(out)
    assert (found["figures"]["f1_50"]["value"], found["totals"]["true"], found["worst"]) == (1.0, 11, [])
    assert found["groups"]["size"]["no object"]["images"] == 1
    assert "None: every object" in (out / "evaluation.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--diameter", "big"], ExitCode.CONFIG, "--diameter 'big': expected 'auto', 'model', or px"),
        (["--diameter", "-3"], ExitCode.CONFIG, "--diameter '-3'"),
        (["--diameter", "nan"], ExitCode.CONFIG, "--diameter 'nan'"),
        (["--diameter", "20"], ExitCode.CONFIG, "counts at any scale"),
        (["--engine", "smoth"], ExitCode.CONFIG, "did you mean 'smooth'?"),
        (["--split", "test"], ExitCode.CONFIG, "'train', 'val'"),
        (["--modality", "brightfield"], ExitCode.CONFIG, "'fluorescence', 'phase'"),
        (["--limit", "0"], ExitCode.CONFIG, "--limit"),
    ],
)
def test_what_is_wrong_with_an_option_is_said_with_what_there_is(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: ExitCode,
    said: str,
) -> None:
    assert run(data, tmp_path / "out", *options) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_and_package_that_are_not_there_are_named_with_the_nearest(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data.with_name("dta"), tmp_path / "out") == ExitCode.CONFIG
    told = capsys.readouterr().err
    assert f"{data.with_name('dta')}: there is no such folder or file" in told
    assert "did you mean 'data'?" in told
    assert run(data, tmp_path / "out", package="treshold") == ExitCode.MODEL
    assert "did you mean 'threshold'?" in capsys.readouterr().err


def test_a_file_in_the_way_of_the_result_is_told_before_anything_is_counted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file", encoding="utf-8")
    assert run(data, tmp_path / "out") == ExitCode.OUTPUT
    told = capsys.readouterr().err
    assert "is a file; expected a folder" in told
    assert "evaluated" not in told


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == ExitCode.OK
    assert "cellcount evaluate nuclei" in capsys.readouterr().out


def test_what_the_page_shows_is_a_value_before_it_is_a_page(data: Path) -> None:
    found = cellcount_core.evaluate("threshold", data, diameter="model")

    shown = evaluation_page(found)

    assert shown.name.startswith("threshold ")
    assert [card.name for card in shown.cards] == [meaning(name).title for name in CARDS]
    assert [figure.title for figure in shown.figures] == [meaning(name).title for name in FIGURES]
    assert {table.title for table in shown.groups} >= {"modality"}
    assert [len(table.groups[0].figures) for table in shown.groups] == [len(shown.group_heads)] * len(
        shown.groups
    )
    assert len(shown.worst) == len(found.worst)
    assert all(picture.source.startswith("data:image/png;base64,") for picture in shown.plots)
    html = page_of(found)
    assert not any(word in html for word in ("http", "href=", "@import", "url("))
