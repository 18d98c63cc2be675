"""Boxes on the whole path: colour images and grey ones, by command and by function, and what is drawn of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

import cellcount_core as cc
from cellcount_core.cli.main import main
from cellcount_core.domain.doubts import DoubtfulCount
from cellcount_core.domain.errors import ExitCode
from cellcount_core.images.imagefile import COLOURS
from cellcount_core.labelled.box_writers import BoxedFile, write_boxes
from cellcount_core.labelled.boxes import list_boxes
from cellcount_core.models.package import Package, read_for_writing, write_package
from cellcount_core.report.overlay import PALETTE
from tests.boxes import SMALL, box_package, disc_image
from tests.jobs import rows

pytestmark = pytest.mark.beside

SPOTS = ((30, 30), (30, 90), (80, 40), (80, 100), (130, 60))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return box_package(tmp_path_factory.mktemp("packages") / "colours", roles=COLOURS, name="colours")


def photo(reds: int) -> NDArray[np.uint8]:
    """So many red discs, and blue ones on the other places."""
    red, blue = (disc_image([(y, x, SMALL) for y, x in some]) for some in (SPOTS[:reds], SPOTS[reds:]))
    return np.clip(np.dstack([red, disc_image([]), blue]) / 16, 0, 255).astype(np.uint8)


def save(path: Path, image: NDArray[np.uint8]) -> None:
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def test_a_folder_of_colour_images_is_counted_by_its_colours_and_a_grey_one_is_refused_in_words(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for reds in (1, 3):
        save(folder / f"{reds}.png", photo(reds))
    save(folder / "grey.png", photo(2)[..., 0])
    command = ["count", str(folder), str(out), "--model", str(package.folder), "--runner", "serial"]
    assert main([*command, "--max-failed", "1"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert "the image is grey; the model looks at red, green and blue of a colour image" in told
    counts = {
        row["Metadata_Well"]: (row["count_reds"], row["count_blues"])
        for row in rows(out, "fields").to_pylist()
    }
    assert counts == {"1": (1, 4), "3": (3, 2), "grey": (None, None)}
    assert json.loads((out / "summary.json").read_text())["count_reds"] == 4


def test_every_class_has_a_plate_map_of_its_own(package: Package, tmp_path: Path) -> None:
    plate, out = tmp_path / "P", tmp_path / "out"
    plate.mkdir()
    for number, well in enumerate(("B02", "C03"), 1):
        tifffile.imwrite(plate / f"P_{well}_s1_w1.TIF", photo(number), photometric="rgb")
    model = ("--model", str(package.folder), "--runner", "serial")
    assert main(["count", str(plate), str(out), "--layout", "imagexpress", *model]) == ExitCode.OK
    assert main(["pictures", str(out), "--fields", "1"]) == ExitCode.OK
    maps = {path.name for path in (out / "pictures").glob("plate_map*")}
    assert maps == {"plate_map.png", "plate_map_count_reds.png", "plate_map_count_blues.png"}


def test_an_array_of_colours_is_counted_by_function_and_shows_its_boxes(package: Package) -> None:
    image = photo(3)
    with pytest.warns(DoubtfulCount, match="rests on 5 objects"):
        result = cc.count(image, model=package.folder)
    assert (result.count, result.row["count_reds"], result.row["count_blues"]) == (5, 3, 2)
    assert result.boxes is not None and result.boxes.shape == (5, 4)
    assert result.labels is None
    assert result.image.shape == image.shape
    shown = result.overlay()
    colours = {tuple(colour) for colour in np.unique(shown.reshape(-1, 3), axis=0).tolist()}
    assert {PALETTE[0], PALETTE[1]} <= colours
    assert result._repr_png_().startswith(b"\x89PNG")


def test_counts_of_a_package_that_measured_badly_are_told_not_to_be_trusted(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(package.folder, bad)
    manifest = {**read_for_writing(bad), "accuracy": {"f1_50": 0.21, "count_bias": 8.44}}
    write_package(bad, manifest)
    (tmp_path / "photos").mkdir()
    save(tmp_path / "photos" / "1.png", photo(1))
    out = tmp_path / "out"
    command = ["count", str(tmp_path / "photos"), str(out), "--model", str(bad), "--runner", "serial"]
    assert main(command) == ExitCode.OK
    said = "counts of `colours` are not to be trusted: on images that did not train it, F1 0.21"
    assert said in capsys.readouterr().out
    assert said in json.loads((out / "summary.json").read_text())["model_doubt"]
    assert main(["verify", str(out)]) == ExitCode.OK
    assert said in capsys.readouterr().out
    with pytest.warns(DoubtfulCount, match="counts 844 % too high"):
        cc.count(photo(1), model=bad)


def test_boxes_of_a_run_are_read_as_a_data_set_again(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for reds in (1, 3):
        save(folder / f"{reds}.png", photo(reds))
    main(["count", str(folder), str(out), "--model", str(package.folder), "--runner", "serial"])
    for kind in ("voc", "yolo"):
        assert main(["export", str(out), str(tmp_path / kind), "--to", kind]) == ExitCode.OK
        inside = tmp_path / kind / "images"
        inside.mkdir()
        for image in folder.iterdir():
            (inside / image.name).write_bytes(image.read_bytes())
        data = list_boxes(tmp_path / kind)
        assert {entry.id: entry.classes.count("reds") for entry in data.entries} == {"1": 1, "3": 3}
        assert data.entries[0].boxes[0] == pytest.approx([22, 22, 38, 38], abs=1.2)
    assert main(["check-boxes", str(tmp_path / "voc")]) == ExitCode.OK
    assert main(["check-boxes", str(tmp_path / "voc"), "--classes", "reds"]) == ExitCode.CONFIG
    said = capsys.readouterr().out
    assert "no image is written: to read the boxes again, put the images in its folder images/" in said
    assert "refused: the data is not read" in said
    assert main(["export", str(out), str(tmp_path / "x"), "--to", "voc2"]) == ExitCode.CONFIG


def test_a_package_is_evaluated_on_boxes_and_faulty_ones_can_be_left_out(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "evaluation"
    (data / "JPEGImages").mkdir(parents=True)
    images = []
    for reds in (1, 2, 4):
        save(data / "JPEGImages" / f"{reds}.png", photo(reds))
        corners = np.array([[y - 8, x - 8, y + 8, x + 8] for y, x in SPOTS], np.float64) + 0.5
        names = ["reds"] * reds + ["blues"] * (5 - reds)
        images.append(BoxedFile(f"{reds}.png", 160, 160, corners, names, [None] * 5))
    for name, body in write_boxes("voc", images, ("reds", "blues")):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(body)
    command = ["evaluate", str(package.folder), str(data), "--out", str(out)]
    assert main(command) == ExitCode.OK
    told = json.loads((out / "evaluation.json").read_text())
    figures = {name: each["value"] for name, each in told["figures"].items()}
    assert (told["totals"]["true"], told["totals"]["counted"]) == (15, 15)
    assert (figures["count_mae"], figures["count_near"], figures["count_exact_reds"]) == (0, 1, 1)
    assert figures["map_50"] == pytest.approx(1)
    assert figures["map_50_blues"] == pytest.approx(1)
    assert 0.3 < figures["map_50_95"] <= 1
    assert (out / "evaluation.html").stat().st_size > 1000
    first = (data / "Annotations" / "1.xml").read_text()
    (data / "Annotations" / "1.xml").write_text(first.replace("<ymax>", "<ymax>-"))
    capsys.readouterr()
    assert main(command) == ExitCode.CONFIG
    assert "5 x zero_area" in capsys.readouterr().err
    assert main([*command, "--skip-faulty"]) == ExitCode.OK
    suite = [*command, "--suite", "accuracy"]
    assert main(suite) == ExitCode.CONFIG
    assert main([*suite, "--skip-faulty"]) == ExitCode.OK
    assert "left out: 5 x zero_area" in capsys.readouterr().err
    assert cc.evaluate(package.folder, data, faulty="skip").objects == 10
    left = json.loads((out / "evaluation.json").read_text())["totals"]
    assert (left["true"], left["counted"]) == (10, 15)
