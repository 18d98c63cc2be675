"""A package that finds boxes is evaluated with boxes, by the same command and with the same page as one that finds labels."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

import cellcount_core
from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from cellcount_core.models.package import Package
from tests.boxes import LARGE, SMALL, Disc, box_package, disc_image

DISCS: list[Disc] = [(40, 40, SMALL), (40, 110, LARGE), (110, 50, LARGE), (120, 120, SMALL)]
MISSED: Disc = (80, 80, SMALL)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
    return box_package(tmp_path_factory.mktemp("packages") / "discs")


def write_coco(folder: Path, names: tuple[str, ...] = ("small", "large")) -> Path:
    """Two images: one as it is labelled, one that shows a disc less than its boxes say."""
    folder.mkdir()
    annotations = []
    for number, boxes in enumerate((DISCS, [*DISCS, MISSED]), 1):
        cv2.imwrite(str(folder / f"{number}.png"), disc_image(DISCS, seed=number))
        for y, x, diameter in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number, "category_id": 1 if diameter == SMALL else 2, "iscrowd": 0,
                    "bbox": [x - diameter / 2, y - diameter / 2, diameter, diameter], "area": diameter**2,
                }
            )  # fmt: skip
    data = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 160, "width": 160} for n in (1, 2)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }
    (folder / "boxes.json").write_text(json.dumps(data))
    return folder


def test_what_is_missed_shows_in_figures_groups_and_page(package: Package, tmp_path: Path) -> None:
    out = tmp_path / "out"
    data = write_coco(tmp_path / "data")
    assert main(["evaluate", str(package.folder), str(data), "--out", str(out), "--diameter", "model"]) == ExitCode.OK  # fmt: skip
    found = json.loads((out / "evaluation.json").read_text())
    assert (found["task"], found["totals"]["true"], found["totals"]["counted"]) == ("boxes", 9, 8)
    assert (found["totals"]["misses"], found["totals"]["extras"]) == (1, 0)
    assert found["figures"]["map_50"]["value"] < 1.0
    assert found["figures"]["map_50_large"]["value"] == pytest.approx(1.0)
    assert found["figures"]["count_exact_small"]["value"] == 0.5
    assert [row["true_small"] for row in found["images"]] == [2, 3]
    page = (out / "evaluation.html").read_text()
    assert "map 50" in page
    assert "1 missed, 0 extra" in page


def test_the_suite_of_accuracy_judges_it_and_those_that_draw_labels_say_why_not(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_coco(tmp_path / "data")
    command = [
        "evaluate",
        str(package.folder),
        str(data),
        "--out",
        str(tmp_path / "out"),
        "--diameter",
        "model",
    ]
    assert main([*command, "--suite", "accuracy"]) == ExitCode.OK
    assert main([*command, "--suite", "scale"]) == ExitCode.CONFIG
    assert "is for the task 'boxes', which is compared with boxes; it measures packages that are compared with label images" in (
        capsys.readouterr().err
    )  # fmt: skip
    assert main([*command, "--suite", "all"]) == ExitCode.OK
    assert "robustness is left out" in capsys.readouterr().err


def test_python_takes_whatever_the_tasks_truth_is(package: Package, tmp_path: Path) -> None:
    measured = cellcount_core.evaluate(package.folder, write_coco(tmp_path / "data"), diameter="model")
    assert (len(measured.rows), measured.objects) == (2, 9)


def test_boxes_of_other_classes_are_refused_with_the_nearest(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_coco(tmp_path / "data", names=("smal", "large"))
    assert (
        main(["evaluate", str(package.folder), str(data), "--out", str(tmp_path / "out")]) == ExitCode.CONFIG
    )
    assert "smal" in capsys.readouterr().err
