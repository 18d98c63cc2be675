"""A package of two roles: both channels are seen where sizes are told, fields counted, quality judged and packages evaluated.

The network is made up: a pixel is foreground where either channel is bright, so objects that one channel alone shows are found only if
that channel reaches it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellcount_core.cli.main import main
from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ExitCode
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import Package, write_package
from cellcount_core.pipeline.field import examine, planes_kit
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.tasks.object_size.looks import encode_diameter
from tests.jobs import rows

SIDE, DIAMETER = 160, 20
NUCLEI = ((30, 30), (30, 110), (120, 60))
CELLS = ((80, 80), (130, 130))


def plane(places: tuple[tuple[int, int], ...], seed: int) -> NDArray[np.uint16]:
    """Discs of 20 px on noise."""
    image = np.random.default_rng(seed).normal(300, 12, (SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE]
    for top, left in places:
        image[(y - top) ** 2 + (x - left) ** 2 < (DIAMETER / 2) ** 2] += 3000
    return np.clip(image, 0, 65535).astype(np.uint16)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Two inputs; maps foreground, distance and size."""
    from onnx import TensorProto, helper, numpy_helper

    folder = tmp_path_factory.mktemp("packages") / "pair"
    folder.mkdir()
    level = float(encode_diameter(np.array([DIAMETER], np.float32))[0])
    constants = {"gain": 30.0, "offset": -9.0, "half": 0.5, "none": 0.0, "level": level}
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["brightest"], axes=[3], keepdims=1),
        helper.make_node("Mul", ["brightest", "gain"], ["steep"]),
        helper.make_node("Add", ["steep", "offset"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["foreground"]),
        helper.make_node("Mul", ["foreground", "half"], ["distance"]),
        helper.make_node("Mul", ["foreground", "none"], ["zero"]),
        helper.make_node("Add", ["zero", "level"], ["size"]),
        helper.make_node("Concat", ["foreground", "distance", "size"], ["maps"], axis=3),
    ]
    image, maps = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "h", "w", channels])
        for name, channels in (("image", 2), ("maps", 3))
    )
    stored = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "pair", [image], [maps], stored),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    (folder / "network.onnx").write_bytes(model.SerializeToString())
    seen = np.random.default_rng(0).random((2, 32, 32, 2), dtype=np.float32)
    seen[1, 8:20, 8:20, 1] = 1
    logits = 30 * seen.max(axis=3, keepdims=True) - 9
    chance = 1 / (1 + np.exp(-logits))
    expected = np.concatenate([chance, chance / 2, np.full_like(chance, level)], axis=3).astype(np.float32)
    np.savez(folder / "golden.npz", input=seen, maps=expected)
    return write_package(
        folder,
        {
            "format": 2, "name": "pair", "version": "1.0.0", "family": "made_up", "task": "instances", "object": "Cells",
            "modality": ["fluorescence"], "network": {},
            "input": {
                "channels": ["nuclei", "membrane"], "diameter_px": 20.0,
                "normalisation": {"kind": "noise_floor", "percentile": 99.8, "floor_sigmas": 12.0},
            },
            "instances": {
                "maps": ["foreground", "distance", "size"], "stride": 1, "receptive_radius": 0,
                "separator": {"kind": "components", "threshold": 0.5, "min_area": 20.0},
            },
            "engines": {"onnxruntime": {"file": "network.onnx"}}, "golden": {"file": "golden.npz", "atol": 1e-4},
        },
    )  # fmt: skip


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """Two wells: objects of both channels, and objects that the second channel alone shows."""
    folder = tmp_path / "plate"
    folder.mkdir()
    for well, nuclei in (("B02", NUCLEI), ("B03", ())):
        tifffile.imwrite(folder / f"P_{well}_s1_w1.TIF", plane(nuclei, 1))
        tifffile.imwrite(folder / f"P_{well}_s1_w2.TIF", plane(CELLS, 2))
    return folder


def command(package: Package, plate: Path, *arguments: str) -> list[str]:
    roles = '{"nuclei": "w1", "membrane": "w2"}'
    return [
        arguments[0], str(plate), *arguments[1:], "--layout", "imagexpress", "--model", str(package.folder),
        "--set", f"run.channels={roles}",
    ]  # fmt: skip


def test_both_channels_are_counted_and_judged(package: Package, plate: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([*command(package, plate, "count", str(out)), "--runner", "serial"]) == ExitCode.OK
    assert main(["verify", str(out)]) == ExitCode.OK
    fields = rows(out, "fields")
    assert [warnings for warnings in fields.column("warnings").to_pylist() if warnings] == []
    assert fields.column("count").to_pylist() == [len(NUCLEI) + len(CELLS), len(CELLS)]
    assert fields.column("source").to_pylist()[0] == ["P_B02_s1_w1.TIF", "P_B02_s1_w2.TIF"]
    assert fields.column("empty").to_pylist() == [False, True]
    assert fields.column("empty_w2").to_pylist() == [False, False]
    for name in ("focus_w2", "saturation_w2", "background_w2", "noise_w2", "signal_w2"):
        assert None not in fields.column(name).to_pylist(), name
    said = fields.schema.field("background_w2").metadata
    assert said[b"meaning"] == b"background level, of channel w2"
    run = json.loads((out / "run" / "run.json").read_text())
    assert run["channels"] == {"nuclei": "w1", "membrane": "w2"}


def test_sizes_are_told_by_both_channels_when_a_run_is_planned(
    package: Package, plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plate / "P_B02_s1_w1.TIF").unlink()
    (plate / "P_B02_s1_w2.TIF").unlink()
    assert main(command(package, plate, "plan")) == ExitCode.OK
    told = capsys.readouterr().out
    assert "counted: w1, w2" in told
    # In the first channel of this well there is nothing.
    assert "object size, plate 'P', 160 x 160 px: 19.7 px" in told


def test_saturation_of_any_channel_is_told(package: Package, plate: Path, tmp_path: Path) -> None:
    bright = np.minimum((plane((*NUCLEI, *CELLS), 2).astype(np.uint32) - 200) * 100, 65535).astype(np.uint16)
    tifffile.imwrite(plate / "P_B02_s1_w2.TIF", bright)
    out = tmp_path / "out"
    assert main([*command(package, plate, "count", str(out)), "--runner", "serial"]) == ExitCode.OK
    assert [
        "half_saturated" in warnings for warnings in rows(out, "fields").column("warnings").to_pylist()
    ] == [True, False]


def test_a_doubt_about_the_second_channel_is_told(package: Package) -> None:
    engine = load_engine(package, "onnxruntime", 1)
    kit = planes_kit(package, engine, RunConfig(diameter="model"))
    dark = np.full((SIDE, SIDE), 60_000, np.uint16) - plane(CELLS, 2)
    try:
        seen = examine(kit, Pixels({"nuclei": plane(NUCLEI, 1), "membrane": dark}, None, 65535, ()))
        plain = examine(
            kit, Pixels({"nuclei": plane(NUCLEI, 1), "membrane": plane(CELLS, 2)}, None, 65535, ())
        )
    finally:
        kit.close()
    assert "bright_background" in seen.warnings
    assert "bright_background" not in plain.warnings
    assert len(plain.qualities) == 2


def test_it_is_evaluated_on_images_of_two_channels(package: Package, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("images", "labels"):
        (data / name).mkdir(parents=True)
    labels = np.zeros((SIDE, SIDE), np.uint16)
    y, x = np.mgrid[:SIDE, :SIDE]
    for number, (top, left) in enumerate(sorted((*NUCLEI, *CELLS)), 1):
        labels[(y - top) ** 2 + (x - left) ** 2 < (DIAMETER / 2) ** 2] = number
    for name, names in (("by_name", ["membrane", "nuclei"]), ("by_order", ["a", "b"])):
        planes = [plane(CELLS, 2), plane(NUCLEI, 1)]
        tifffile.imwrite(
            data / "images" / f"{name}.ome.tif",
            np.stack(planes),
            metadata={"axes": "CYX", "Channel": {"Name": names}},
        )
        tifffile.imwrite(data / "labels" / f"{name}.ome.tif", labels)
    out = tmp_path / "evaluation"
    assert main(["evaluate", str(package.folder), str(data), "--out", str(out)]) == ExitCode.OK
    found = json.loads((out / "evaluation.json").read_text())
    assert found["totals"] == {"true": 10, "counted": 10, "misses": 0, "extras": 0, "splits": 0, "merges": 0}


def test_an_image_of_one_channel_is_refused(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name in ("images", "labels"):
        (data / name).mkdir(parents=True)
        tifffile.imwrite(data / name / "one.tif", plane(NUCLEI, 1))
    assert (
        main(["evaluate", str(package.folder), str(data), "--out", str(tmp_path / "out")]) == ExitCode.CONFIG
    )
    assert "one.tif: an image of 1 channel; 2 expected (nuclei, membrane)" in capsys.readouterr().err
