"""`cellcount evaluate --suite`: what it prints and writes, whose bars it shows, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from cellcount_core.models.package import shipped_folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four pairs of image and label image, without index, splits, modality or groups; one has no object."""
    folder = tmp_path / "data"
    rng = np.random.default_rng(0)
    for number, objects in enumerate((6, 4, 0, 6)):
        labels = np.zeros((160, 160), np.uint16)
        for each in range(objects):
            y, x = divmod(each, 3)
            cv2.circle(labels, (20 + 30 * x, 20 + 30 * y), 8, each + 1, -1)
        plane = np.where(labels > 0, 3000, 100) + rng.integers(0, 60, labels.shape)
        for kind, image in (("images", plane.astype(np.uint16)), ("labels", labels)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / f"{number}.png"), image)
    return folder


@pytest.fixture
def own_package(tmp_path: Path) -> Path:
    """A package in a folder of its own, as a laboratory has it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for file in (shipped_folder() / "threshold").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def run(package: str | Path, *options: str | Path) -> int:
    return main(["evaluate", str(package), *map(str, options)])


def stored(out: Path, suite: str) -> dict[str, list[dict[str, object]]]:
    return dict(json.loads((out / f"{suite}.json").read_text(encoding="utf-8"))["tables"])


@pytest.mark.slow
def test_every_suite_measures_a_folder_that_knows_nothing_but_images_and_labels(
    own_package: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(own_package, data, "--suite", "all", "--limit", "4", "--out", out) == ExitCode.OK
    told = capsys.readouterr()
    names = ("accuracy", "scale", "robustness", "uncertainty", "empty", "made-up")
    assert {path.name for path in out.iterdir()} == {
        f"{name}.{end}" for name in names for end in ("json", "md")
    }
    for name in names:
        assert str(out / f"{name}.md") in told.out
        assert f"{name}: evaluated" in told.err
    figures = {row["figure"]: row["threshold, smooth"] for row in stored(out, "accuracy")["figures"]}
    assert figures["F1@0.5"] == pytest.approx(1.0, abs=0.05)
    assert {row["factor"]: row["counted"] for row in stored(out, "scale")["factors"]}[2.0] == 16
    assert len(stored(out, "robustness")["degradations"]) == 10
    assert json.loads((out / "uncertainty.json").read_text())["notes"]
    kinds = {row["kind"]: row["images"] for row in stored(out, "empty")["kinds"]}
    assert (kinds["all made up"], kinds["data: images without an object"]) == (4, 1)
    assert [row["true"] for row in stored(out, "made-up")["combinations"]]


@pytest.mark.slow
def test_bars_are_asked_of_shipped_packages_and_of_others_on_request(
    own_package: Path, data: Path, tmp_path: Path
) -> None:
    for package, options, shown in (
        ("threshold", (), True),
        (own_package, (), False),
        (own_package, ("--bars",), True),
    ):
        assert run(package, data, "--suite", "robustness", "--out", tmp_path / "out", *options) == ExitCode.OK
        text = (tmp_path / "out" / "robustness.md").read_text(encoding="utf-8")
        rows = stored(tmp_path / "out", "robustness")["degradations"]
        assert ("≤ 0.03" in text, "met" in rows[1]) == (shown, shown)
        assert isinstance(rows[1]["f1_50"], float)


def test_packages_stand_beside_each_other(data: Path, own_package: Path, tmp_path: Path) -> None:
    options = ("--suite", "accuracy", "--beside", "nuclei", "--limit", "2", "--out", tmp_path / "out")
    assert run(own_package, data, *options) == ExitCode.OK
    row = stored(tmp_path / "out", "accuracy")["figures"][0]
    assert list(row) == ["figure", "threshold, smooth", "nuclei, onnxruntime-int8"]


def test_packages_of_one_name_are_told_apart_by_their_folders(
    data: Path, own_package: Path, tmp_path: Path
) -> None:
    other = own_package.rename(own_package.with_name("other"))
    options = (
        "--suite",
        "accuracy",
        "--beside",
        "threshold",
        "--beside",
        other,
        "--limit",
        "2",
        "--out",
        tmp_path,
    )
    assert run(other, data, *options) == ExitCode.OK
    row = stored(tmp_path, "accuracy")["figures"][0]
    assert list(row) == ["figure", "other, smooth (1)", "threshold, smooth", "other, smooth (3)"]


def test_a_package_without_a_scale_is_given_no_diameter(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--suite", "accuracy", "--diameter", "20", "--out", tmp_path / "out")
    assert run("threshold", data, *options) == ExitCode.CONFIG
    assert "--diameter 20" in capsys.readouterr().err


def test_json_is_all_that_is_printed_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("threshold", "--suite", "empty", "--limit", "5", "--json", "--out", tmp_path) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert [suite["suite"] for suite in told] == ["empty"]
    assert told[0] == json.loads((tmp_path / "empty.json").read_text(encoding="utf-8"))


def test_strange_images_need_no_labels(data: Path, tmp_path: Path) -> None:
    options = ("--limit", "2", "--out", tmp_path / "out", "--unlike", data / "labels")
    assert run("nuclei", data, "--suite", "uncertainty", *options) == ExitCode.OK
    rows = {row["images"]: row["fields"] for row in stored(tmp_path / "out", "uncertainty")["unlike"]}
    assert rows[str(data / "labels")] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--suite", "robustnes"), "nearest"),
        (("--suite", "accuracy"), "--suite accuracy: DATA expected"),
        (("--suite", "empty", "--skip-faulty"), "say how DATA is read; give DATA with them"),
        (("--suite", "empty", "--beside", "nuclei"), "--beside is of --suite accuracy alone"),
        (("--suite", "empty", "--unlike", "x"), "--unlike is of --suite uncertainty alone"),
        (
            ("--suite", "empty", "--engine", "auto,smooth"),
            "--engine with several names is of --suite accuracy alone",
        ),
        (("--bars",), "give --suite with them"),
        ((), "DATA is missing"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_words(
    options: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("threshold", *options, "--out", tmp_path / "out") != ExitCode.OK
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert said in told or (said == "nearest" and "robustness" in told)
    assert not (tmp_path / "out").exists()


def test_data_without_an_object_is_refused_by_the_suites_that_need_one(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (data / "labels").iterdir():
        cv2.imwrite(str(path), np.zeros((160, 160), np.uint16))
    assert run("threshold", data, "--suite", "scale", "--out", tmp_path / "out") == ExitCode.CONFIG
    assert "no object in the labels of 4 images" in capsys.readouterr().err
    assert (
        run("threshold", data, "--suite", "empty", "--limit", "4", "--out", tmp_path / "out") == ExitCode.OK
    )


def test_an_unlike_pattern_without_images_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--suite",
        "uncertainty",
        "--unlike",
        tmp_path / "nothing" / "*.tif",
        "--out",
        tmp_path / "out",
    )
    assert run("threshold", data, *options) == ExitCode.CONFIG
    assert "no image file" in capsys.readouterr().err
