"""Patterns from images to tables on files of four channels: the Human Protein Atlas's as they are, and an evaluation by annotations."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellcount_core.cli.main import main
from cellcount_core.demo.patterns import CHANNELS
from cellcount_core.domain.errors import ExitCode
from cellcount_core.models.package import Package
from tests.data_dir import data_dir, needs_data
from tests.jobs import rows
from tests.patterns import pattern_package

pytestmark = pytest.mark.beside

NAMES = r"(?P<well>[^/]+)_(?P<channel>red|green|blue|yellow)(?i:\.png)$"
"""The file names of the Human Protein Atlas, for `--layout pattern`: an image has the place of a well."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return pattern_package(tmp_path_factory.mktemp("packages") / "bright", CHANNELS)


def count(package: Package, images: Path, out: Path) -> int:
    roles = [word for name in CHANNELS for word in ("--channel", f"{name}={name}")]
    return main(
        ["count", str(images), str(out), "--layout", "pattern", "--set", f"run.layout.pattern={NAMES}", "--model", str(package.folder),
         "--runner", "serial", *roles]
    )  # fmt: skip


@needs_data("hpa")
def test_a_real_image_of_four_channels_is_told_as_it_is(package: Package, tmp_path: Path) -> None:
    folder = data_dir()
    assert folder is not None
    assert count(package, folder / "hpa" / "train_complete_512", tmp_path / "out") == ExitCode.OK
    [row] = rows(tmp_path / "out", "fields").to_pylist()
    assert (row["Metadata_Well"], row["status"]) == ("837e738c-bba8-11e8-b2ba-ac1f6b6435d0", "ok")
    assert (row["patterns_found"], len(row["probability"])) == (len(row["patterns"]), 2)


@needs_data("hpa")
def test_real_images_without_their_other_channels_are_missing_and_say_which(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_dir()
    assert folder is not None
    assert count(package, folder / "hpa" / "train_sample_256", tmp_path / "out") == ExitCode.FAILURES
    fields = rows(tmp_path / "out", "fields").to_pylist()
    assert {(row["status"], row["reason"]) for row in fields} == {("missing", "channel_missing")}
    assert len(fields) == 38
    assert all(row["patterns"] is None for row in fields)
    assert fields[0]["reason_detail"] == "no file of channel 'red'; there are 'blue'"
    assert "38 missing: channel_missing" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "out")]) == ExitCode.OK


def annotated(folder: Path, table: str) -> Path:
    """Images a (nothing), b (bright in places) and c (bright nearly everywhere) with a table."""
    folder.mkdir()
    for number, name in enumerate("abc"):
        for channel in CHANNELS:
            pixels = np.random.default_rng(number).normal(60, 2, (100, 100))
            pixels[: (0, 30, 80)[number] : 2] += 150
            cv2.imwrite(str(folder / f"{name}_{channel}.png"), np.clip(pixels, 0, 255).astype(np.uint8))
    (folder / "truth.csv").write_text(table)
    return folder


def test_it_is_evaluated_by_the_table_of_annotations(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = annotated(tmp_path / "data", "Id,Target\na,none\nb,0\nc,bright; broad\n")
    assert main(["evaluate", str(package.folder), str(data), "--out", str(tmp_path / "out")]) == ExitCode.OK
    assert (
        "weak patterns: bright (F1 1.00 on 2 images); broad (F1 1.00 on 1 image)" in capsys.readouterr().out
    )
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    figures = {name: figure["value"] for name, figure in found["figures"].items()}
    assert (found["task"], figures["images"], figures["macro_f1"], figures["all_right"]) == (
        "patterns",
        3,
        1.0,
        1.0,
    )
    assert figures["macro_f1_flat_0.5"] == 1.0
    lines = (tmp_path / "out" / "images.csv").read_text().splitlines()
    assert lines[0] == "id,modality,width_px,height_px,true,found,missed,excess,right"
    assert lines[3].endswith("bright; broad,bright; broad,,,True")


def test_annotations_that_are_wrong_are_told_in_one_report(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = annotated(tmp_path / "data", "Id,Target\na,2\nb,\nd,0\n")
    command = ["evaluate", str(package.folder), str(data), "--out", str(tmp_path / "out")]
    assert main(command) == ExitCode.CONFIG
    told = capsys.readouterr().err
    for words in (
        "row 2 (a): Target '2' has '2'; numbers 0 to 1 expected",
        "row 3 (b): Target is empty",
        "d: no d_red.png",
        "no row with the Id 'c'",
    ):
        assert words in told
    (data / "truth.csv").write_text("Id,Target\na,2\nb,0\nd,0\n")
    assert main([*command, "--skip-faulty"]) == ExitCode.OK


def test_images_that_cannot_be_read_are_told_before_any_is_measured_and_can_be_left_out(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = annotated(tmp_path / "data", "Id,Target\na,0\nb,0\nc,1\n")
    cv2.imwrite(str(data / "a_green.png"), np.zeros((9, 9), np.uint8))
    (data / "b_blue.png").write_bytes(b"no image at all")
    command = ["evaluate", str(package.folder), str(data), "--out", str(tmp_path / "out")]
    assert main(command) == ExitCode.CONFIG
    told = capsys.readouterr().err
    assert "2 images cannot be read" in told and "--skip-faulty" in told
    assert "a_green.png: (9, 9) px" in told and "b_blue.png" in told
    assert main([*command, "--skip-faulty"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "left out: 2 images cannot be read" in said
    assert ": 1 image" in said
