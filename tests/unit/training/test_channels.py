"""A network of two roles, from labelled images of two channels to tables: only both channels together show what is to be counted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.models.package import Package, load_package
from cellcount_core.tasks.instances.learn import InstancesConfig
from cellcount_core.training.config import InputConfig
from cellcount_core.training.start import load_lesson
from tests.jobs import rows
from tests.unit.training.tiny import quiet

SIDE, DIAMETER = 96, 16
PLACES = [(y, x) for y in (16, 48, 80) for x in (16, 48, 80)]


def scene(seed: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]]:
    """Two channels and the labels: of nine discs, those that both channels show are objects."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    nuclei, marker = (rng.normal(300, 12, (SIDE, SIDE)) for _ in range(2))
    labels = np.zeros((SIDE, SIDE), np.uint16)
    for top, left in PLACES:
        top, left = top + rng.integers(-4, 5), left + rng.integers(-4, 5)
        disc = (y - top) ** 2 + (x - left) ** 2 < (DIAMETER / 2) ** 2
        kind = rng.integers(3)
        if kind != 1:
            nuclei[disc] += 3000
        if kind != 2:
            marker[disc] += 2000
        if kind == 0:
            labels[disc] = labels.max() + 1
    return nuclei.astype(np.uint16), marker.astype(np.uint16), labels


def write_table(folder: Path, images: int, first: int = 0) -> Path:
    """A table of labelled images with a file for each channel."""
    folder.mkdir(parents=True)
    with (folder / "cells.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["nuclei", "marker", "label"])
        for number in range(images):
            names = [f"{kind}{number}.tif" for kind in ("n", "m", "l")]
            for name, pixels in zip(names, scene(first + number), strict=True):
                tifffile.imwrite(folder / name, pixels)
            writer.writerow(names)
    return folder


def settings(folder: Path, **changes: object) -> InstancesConfig:
    tree: dict[str, object] = {
        "name": "pair", "object": "Cells", "data": {"kind": "table", "path": str(folder / "data"), "fit_share": 0.2},
        "input": {"channels": ["nuclei", "marker"], "diameter_px": DIAMETER},
        "network": {"inputs": 2, "outputs": 3, "stem": 1, "filters": [8, 16, 24], "skip": "add", "up": "project", "batch_norm": True},
        "maps": ["foreground", "distance", "size"], "optimiser": {"learning_rate": 0.01, "warmup_steps": 5, "ema": 0.9},
        "augment": {"natural_share": 0.7, "empty_share": 0.05, "diameters_px": [12, 22], "crowded_share": 0.1},
        "steps": 160, "batch": 4, "crop_px": 64, "checkpoint_every": 80, "validate_every": 80, "threads": 1,
        "work_dir": str(folder / "work"), "package_dir": str(folder / "package"),
    }  # fmt: skip
    return InstancesConfig.model_validate({**tree, **changes})


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
    from cellcount_core.training.trainer import train

    folder = tmp_path_factory.mktemp("pair")
    write_table(folder / "data", 24)
    return load_package(train(settings(folder), report=quiet))


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """Six wells with two channels each, and how many objects each well holds."""
    folder = tmp_path_factory.mktemp("plates") / "P"
    folder.mkdir()
    true = []
    for number in range(6):
        nuclei, marker, labels = scene(500 + number)
        true.append(int(labels.max()))
        tifffile.imwrite(folder / f"P_B{number + 2:02d}_s1_w1.TIF", nuclei)
        tifffile.imwrite(folder / f"P_B{number + 2:02d}_s1_w2.TIF", marker)
    return folder, true


def counted(package: Package, plate: Path, out: Path) -> int:
    """Count a plate with its channels w1 and w2."""
    roles = '{"nuclei": "w1", "marker": "w2"}'
    return main(
        ["count", str(plate), str(out), "--layout", "imagexpress", "--model", str(package.folder),
         "--set", f"run.channels={roles}", "--runner", "serial"]
    )  # fmt: skip


@pytest.mark.slow
def test_both_channels_reach_the_network_and_what_one_alone_shows_is_not_counted(
    package: Package, plate: tuple[Path, list[int]], tmp_path: Path
) -> None:
    folder, true = plate
    assert counted(package, folder, tmp_path / "out") == ExitCode.OK
    fields = rows(tmp_path / "out", "fields")
    found = fields.column("count").to_pylist()
    assert sum(abs(one - other) for one, other in zip(found, true, strict=True)) <= 1
    assert package.input.channels == ("nuclei", "marker")
    for diameter, objects in zip(fields.column("diameter_px").to_pylist(), true, strict=True):
        assert not objects or diameter == pytest.approx(DIAMETER, rel=0.3)
    assert not any(fields.column("warnings").to_pylist())


@pytest.mark.slow
def test_a_doubt_about_the_second_channel_is_told(package: Package, tmp_path: Path) -> None:
    folder = tmp_path / "P"
    folder.mkdir()
    nuclei, marker, _ = scene(500)
    tifffile.imwrite(folder / "P_B02_s1_w1.TIF", nuclei)
    marker[:30] = 0
    tifffile.imwrite(folder / "P_B02_s1_w2.TIF", marker)
    assert counted(package, folder, tmp_path / "out") == ExitCode.OK
    (warnings,) = rows(tmp_path / "out", "fields").column("warnings").to_pylist()
    assert "padded" in warnings


@pytest.mark.slow
def test_it_is_evaluated_on_tables_with_a_column_for_each_channel(package: Package, tmp_path: Path) -> None:
    data = write_table(tmp_path / "more", 8, first=900)
    assert main(["evaluate", str(package.folder), str(data), "--out", str(tmp_path / "out")]) == ExitCode.OK
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found["figures"]["f1_50"]["value"] > 0.9
    assert found["size_estimate"]["within_1_25"] > 0.8


@pytest.mark.slow
def test_suites_say_whether_they_can_judge_a_package_of_two_channels(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_table(tmp_path / "more", 4, first=900)
    command = ["evaluate", str(package.folder), str(data), "--out", str(tmp_path / "out"), "--suite"]
    assert main([*command, "accuracy"]) == ExitCode.OK
    assert main([*command, "robustness"]) == ExitCode.CONFIG
    assert (
        "looks at 2 channels (nuclei, marker); it measures packages of one channel" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_the_curves_and_the_accuracy_are_those_of_both_channels(package: Package) -> None:
    stated = package.accuracy["at_estimated_diameter"]
    assert isinstance(stated, dict)
    assert stated["f1_50"] > 0.9
    curve = (package.folder.parent / "work" / "curves.csv").read_text().splitlines()
    assert curve[0].endswith("whole_f1,whole_ap,whole_bias")
    with np.load(package.file(package.golden)) as golden:
        assert golden["input"].shape[-1] == 2
        assert golden["labels"].max() > 0


def test_a_crop_has_every_channel_and_objects_lie_at_one_place_in_all(tmp_path: Path) -> None:
    write_table(tmp_path / "data", 6)
    lesson = load_lesson(settings(tmp_path))
    rng = np.random.default_rng(0)
    for number in range(12):
        inputs, targets = lesson.crop(rng, number % len(lesson.train))
        assert (inputs.shape, targets.shape) == ((64, 64, 2), (64, 64, 4))
        inside = (targets[..., 0] > 0) & (targets[..., -1] > 0)
        if inside.sum() > 50:
            outside = np.quantile(inputs[targets[..., 0] == 0], 0.3, axis=0)
            assert (np.median(inputs[inside], axis=0) > outside).all()


def test_one_channel_may_be_called_channel_and_names_must_differ() -> None:
    assert InputConfig.model_validate({"channel": "dapi"}) == InputConfig(channels=("dapi",))
    for given, said in (
        ({"channel": "a", "channels": ["a"]}, "both given"),
        ({"channels": ["a", "A"]}, "name of its own"),
        ({"channels": []}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            InputConfig.model_validate(given)


def test_a_network_of_another_number_of_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inputs 2 and outputs 3 expected"):
        settings(tmp_path, network={"inputs": 1, "outputs": 3, "filters": [4]})


def test_images_of_other_channels_than_the_input_names_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "data", 4)
    with pytest.raises(ConfigFault, match="no column 'membrane'"):
        load_lesson(settings(tmp_path, input={"channels": ["nuclei", "membrane"]}))
