"""The comparison with other counters: no peer needs to be installed here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.peers import boxes, cellprofiler, manifest, package, run, star, systems, watershed, worker
from benchmarks.peers.environment import ROOT, SystemFailed, last_line, python_with
from benchmarks.peers.manifest import Entry, Plane
from benchmarks.peers.worker import Measured
from cellcount_core.labelled.boxes import BoxedImage
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.tasks.instances.score import score_labels
from cellcount_core.tasks.matching import Report


def three_discs() -> tuple[Plane, NDArray[np.int32]]:
    """Two touching discs and one alone, of 24 px, on a dark background."""
    labels = np.zeros((96, 128), np.uint8)
    for number, centre in enumerate(((30, 40), (52, 40), (100, 70)), start=1):
        cv2.circle(labels, centre, 12, number, -1)
    noise = np.random.default_rng(0).normal(0, 2, labels.shape)
    plane = np.where(labels > 0, 150, 12) + noise
    return plane.astype(np.uint8), labels.astype(np.int32)


def labelled(labels: NDArray[np.int32]) -> LabelledImage:
    return LabelledImage("toy", labels.astype(np.uint8), labels, "toy", "fluorescence", 24.0)


def stored(folder: Path, name: str, part: str = "val") -> Entry:
    plane, labels = three_discs()
    for sub, pixels in (("images", plane), ("labels", labels.astype(np.uint16))):
        (folder / sub).mkdir(exist_ok=True)
        cv2.imwrite(str(folder / sub / f"{name}.png"), pixels)
    return Entry(name, str(folder / "images" / f"{name}.png"), str(folder / "labels" / f"{name}.png"), part)


def test_the_watershed_tells_touching_discs_apart() -> None:
    pytest.importorskip("skimage")
    plane, labels = three_discs()

    score = score_labels(labelled(labels).truth, watershed.count(plane))

    assert (score.counted, score.matches[0].hits) == (3, 3)


def test_the_watershed_counts_nothing_where_nothing_is() -> None:
    pytest.importorskip("skimage")
    assert watershed.count(np.full((40, 40), 7, np.uint8)).max() == 0


def test_a_shipped_package_is_a_peer_like_any_other() -> None:
    plane, labels = three_discs()

    counted = systems.load("package:threshold:smooth:model", Path())(plane)

    assert score_labels(labelled(labels).truth, counted).matches[0].hits == 3


def test_every_shipped_package_of_these_images_has_a_row_on_each_cpu_engine() -> None:
    keys = {system.key for system in run.systems(("packages",), Path(), 55)}

    assert {"package:nuclei:onnxruntime:auto", "package:nuclei:onnxruntime:model"} <= keys
    assert "package:threshold:smooth:model" in keys
    assert not any(":keras:" in key for key in keys)


@pytest.mark.parametrize("system", ["cellpose", "package:nuclei", "package:nuclei:onnxruntime:20"])
def test_an_unknown_system_is_named(system: str) -> None:
    with pytest.raises(ValueError, match=system.removeprefix("package:")):
        systems.load(system, Path())


def test_a_worker_imports_nothing_of_cellcount() -> None:
    code = (
        "import sys, benchmarks.peers.worker, benchmarks.peers.star, benchmarks.peers.cellprofiler, benchmarks.peers.watershed;"
        "print(sorted(name for name in sys.modules if name.startswith('cellcount')))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert said.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_worker_writes_labels_of_every_image_and_what_it_measured(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    listed, out = tmp_path / "images.json", tmp_path / "out"
    manifest.write(listed, [stored(tmp_path, name) for name in ("a", "b")])
    words = ["count", "watershed", str(listed), "--cache", str(tmp_path), "--out", str(out)]
    command = [sys.executable, "-m", "benchmarks.peers.worker", *words, "--core", "0"]

    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)

    measured = worker.read_measured(out / worker.MEASURED)
    assert measured.images_per_cpu_second is None, "none of these images is 256 x 256"
    assert measured.peak_mib > 20
    with np.load(out / worker.LABELS) as counted:
        assert sorted(counted) == ["a", "b"]
        assert counted["a"].shape == three_discs()[0].shape


def test_images_come_back_from_the_manifest_by_part(tmp_path: Path) -> None:
    entries = [stored(tmp_path, "a", "train"), stored(tmp_path, "b", "val")]
    manifest.write(tmp_path / "images.json", entries)

    (only,) = manifest.read(tmp_path / "images.json", "val")

    assert only.id == "b"
    assert np.array_equal(only.plane(), three_discs()[0])
    assert np.array_equal(only.labels(), three_discs()[1])
    with pytest.raises(ValueError, match="test"):
        manifest.read(tmp_path / "images.json", "test")


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="image a"):
        worker.checked(np.zeros((4, 4), np.int32), np.zeros((4, 5), np.uint8), "a")


def test_peak_memory_is_read_from_the_processs_own_status() -> None:
    assert worker.peak_of("Name:\tpython\nVmPeak:\t 900000 kB\nVmHWM:\t  204800 kB\n") == 200.0


def test_a_training_that_was_ended_knows_where_it_stands(tmp_path: Path) -> None:
    assert star.read_state(tmp_path)["complete"] == 0

    star.write_state(tmp_path, 120.5, 3, 1.25, complete=False)

    assert star.read_state(tmp_path) == {
        "cpu_seconds": 120.5,
        "epochs": 3,
        "best_loss": 1.25,
        "complete": 0,
    }
    with pytest.raises(FileNotFoundError, match="complete"):
        star.load(tmp_path)


def test_the_learning_rate_is_constant_and_then_falls_to_its_last() -> None:
    assert star.rate_at(0.0) == star.rate_at(0.6) == star.RATE
    assert star.rate_at(1.0) == star.rate_at(1.5) == pytest.approx(star.LAST_RATE)
    assert star.LAST_RATE < star.rate_at(0.8) < star.RATE


def test_stardist_is_shown_image_and_labels_turned_alike() -> None:
    plane, labels = three_discs()
    rng = np.random.default_rng(1)

    for _ in range(8):
        image, turned = star.augmented(plane.astype(np.float32) / 255, labels, rng)
        assert image.shape == turned.shape
        assert image[turned > 0].min() > np.median(image[turned == 0])


def test_small_images_are_padded_and_large_ones_are_not() -> None:
    assert star.padded(np.zeros((100, 300))).shape == (256, 300)


def test_cellprofiler_is_given_intensities_of_0_to_1() -> None:
    assert cellprofiler.unit(np.array([[0, 65535]], np.uint16)).tolist() == [[0.0, 1.0]]
    assert cellprofiler.unit(np.array([[0, 51]], np.uint8)).tolist() == [[0.0, pytest.approx(0.2)]]


def test_an_environment_is_made_once_for_the_same_requirements(tmp_path: Path) -> None:
    folder = tmp_path / "toy-venv"
    folder.mkdir()
    (folder / "requirements.txt").write_text("one==1\n")

    assert python_with("toy", ("one==1",), tmp_path) == folder / "bin" / "python"


@pytest.mark.slow
def test_what_cannot_be_installed_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemFailed, match="does not install"):
        python_with("toy", ("./no-such-folder",), tmp_path)
    assert not (tmp_path / "toy-venv" / "requirements.txt").exists(), "the next run tries again"


def test_the_last_line_of_a_log_is_its_reason() -> None:
    assert last_line("Traceback\n  ...\nValueError: no\n\n") == "ValueError: no"
    assert last_line("") == "no message"


def test_package_rows_stand_beside_stardist_with_their_bars() -> None:
    _, labels = three_discs()
    half = np.where(labels == 1, labels, 0).astype(np.int32)
    rows = [
        row("stardist", "stardist", "55 CPU min", labels, half, 4.0),
        row("nuclei", "packages", "see its card", labels, labels, 80.0),
        row("threshold", "packages", "no", labels, labels, 100.0),
    ]

    lines = run.beside_stardist(rows)

    assert lines[-1] == "| nuclei | +0.667 | +0.667 | 20.0x |"
    assert run.beside_stardist(rows[1:]) == []


def test_a_line_of_the_table_has_a_cell_for_every_column() -> None:
    _, labels = three_discs()
    line = run.shown(row("nuclei", "packages", "see its card", labels, labels, 80.0))

    assert line.count("|") == run.HEADER[0].count("|") == run.HEADER[1].count("|")
    assert "| 1.000 | 1.000 | 1.000 | 1.000 | 1.000 | 0.0% | +0.0% | 80.0 | 1.5 | 300 |" in line


def row(
    label: str,
    group: str,
    trained: str,
    true: NDArray[np.int32],
    counted: NDArray[np.int32],
    speed: float,
) -> run.Row:
    report = Report((score_labels(labelled(true).truth, counted),))
    return run.Row(run.System(label, group, group, trained), report, Measured(1.5, speed, speed, 1.0, 300.0))


def test_a_limit_takes_images_from_the_whole_set() -> None:
    _, labels = three_discs()
    images = [labelled(labels)] * 10

    assert len(run.spread(images, 4)) == 4
    assert run.spread(images, 0) is images


def test_the_variant_of_a_package_is_checked() -> None:
    with pytest.raises(ValueError, match="NAME:ENGINE:auto"):
        package.load("nuclei:onnxruntime")


def test_the_state_file_is_plain_json(tmp_path: Path) -> None:
    star.write_state(tmp_path, 1.0, 1, 0.5, complete=True)

    assert json.loads((tmp_path / star.STATE).read_text())["complete"] == 1


def smear(name: str, *cells: tuple[str, float]) -> BoxedImage:
    """A photo with cells of 20 px: the class and the left edge of each."""
    sides = np.array([[10, left, 30, left + 20] for _, left in cells], np.float64).reshape(-1, 4)
    plane = np.zeros((64, 200), np.uint8)
    return BoxedImage(name, {"red": plane}, sides, tuple(kind for kind, _ in cells), name)


def as_yolo(*found: tuple[str, float, float]) -> boxes.Seen:
    """What the peer's process writes: the class, the left edge and the score of each box."""
    return {
        "boxes": [[left, 10.0, left + 20, 30.0] for _, left, _ in found],
        "classes": [boxes.CLASSES.index(kind) for kind, _, _ in found],
        "scores": [score for _, _, score in found],
    }


def test_a_detectors_counts_are_unbiased_on_val_and_its_precision_is_of_test() -> None:
    photos = {
        "val": [smear("v", ("RBC", 0), ("WBC", 50), ("Platelets", 100)), smear("unlabelled", ("WBC", 50))],
        "test": [smear("t", ("RBC", 0), ("WBC", 50), ("Platelets", 100))],
    }
    found = {
        "val/v.jpg": as_yolo(("RBC", 0, 0.9), ("RBC", 30, 0.6), ("WBC", 50, 0.9), ("Platelets", 100, 0.2)),
        # Red cells without a box in any photo: they say nothing of how many are to be counted.
        "val/unlabelled.jpg": as_yolo(("WBC", 50, 0.8), ("RBC", 0, 0.95), ("RBC", 60, 0.95)),
        "test/t.jpg": as_yolo(("RBC", 0, 0.8), ("RBC", 30, 0.7), ("WBC", 50, 0.9), ("Platelets", 100, 0.3)),
    }

    (compared,) = boxes.of_peer(photos, found)

    assert compared.counted.classes.tolist() == [0, 1, 2]
    assert compared.ranked.count == 4
    assert boxes.row("peer", 3.6, "1 epoch", [compared]) == (
        "| peer | 3.6 | 1 epoch | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 | 100% | 100% | 0% |"
    )
