"""A variant in fewer bits is shipped only where it counts as the float32 network does."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cellcount_core.cli.settings import read_yaml
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.labelled.label_files import median_diameter
from cellcount_core.models.engines import check_golden, load_engine, resolve_engine
from cellcount_core.models.manifest import MANIFEST
from cellcount_core.models.package import load_package, shipped_folder
from cellcount_core.tasks.instances.learn import InstancesConfig, LabelLesson
from cellcount_core.tasks.instances.score import score_labels
from cellcount_core.tasks.matching import ImageScore, Report
from cellcount_core.training.learning import Images
from cellcount_core.training.variants import FLOAT16, INT8, Tolerance, add_variant, judge


def disks(number: int) -> LabelledImage:
    """Bright disks of 14 to 24 px, some touching, on a noisy background."""
    rng = np.random.default_rng(number)
    labels = np.zeros((192, 192), np.int32)
    for label in range(1, 31):
        centre = (int(rng.integers(10, 182)), int(rng.integers(10, 182)))
        if not labels[centre[1] - 6 : centre[1] + 7, centre[0] - 6 : centre[0] + 7].any():
            cv2.circle(labels, centre, int(rng.integers(7, 12)), label, -1)
    _, numbered = np.unique(labels, return_inverse=True)
    labels = numbered.reshape(labels.shape).astype(np.int32)
    light = cv2.GaussianBlur((labels > 0).astype(np.float32), (0, 0), 1.2)
    plane = 200 + 1500 * light + rng.normal(0, 20, labels.shape)
    return LabelledImage(
        f"{number}", plane.astype(np.uint16), labels, f"{number}", "", median_diameter(labels)
    )


CONF = Path(__file__).resolve().parents[3] / "conf"
IMAGES = [disks(number) for number in range(6)]


def counted(*shares: float) -> Report:
    """What is counted where each object is found with the given share of its pixels, all of them 0..1."""

    def score(image: LabelledImage) -> ImageScore:
        found = image.labels.copy()
        for label in range(1, found.max() + 1):
            rows, columns = np.nonzero(image.labels == label)
            lost = round(len(rows) * (1 - shares[label % len(shares)]))
            found[rows[:lost], columns[:lost]] = 0
        return score_labels(image.truth, found)

    return Report(tuple(map(score, IMAGES)))


def test_a_variant_that_finds_the_same_objects_passes() -> None:
    verdict = judge(counted(1.0), counted(1.0), Tolerance())
    assert (verdict.passed, verdict.ap_fall, verdict.bias_change) == (True, 0.0, 0.0)
    assert str(verdict).endswith("passes")


def test_a_variant_whose_outlines_are_worse_is_left_out_though_it_counts_alike() -> None:
    verdict = judge(counted(0.85), counted(1.0), Tolerance())
    assert verdict.bias_change == 0
    assert verdict.ap_fall == pytest.approx(0.2)
    assert not verdict.passed
    assert str(verdict).endswith("left out, mean AP must fall by less than 0.01")


def test_a_variant_that_counts_otherwise_is_left_out() -> None:
    verdict = judge(counted(*[1.0] * 9, 0.0), counted(1.0), Tolerance(ap_fall=1.0))
    assert verdict.bias_change < -0.005
    assert verdict.reasons == ("count bias must change by less than 0.5 points",)


def test_a_gain_is_no_fall_and_the_limit_itself_does_not_pass() -> None:
    assert judge(counted(1.0), counted(0.85), Tolerance()).passed
    assert not judge(counted(0.85), counted(1.0), Tolerance(ap_fall=0.2 - 1e-9)).passed
    assert judge(counted(0.85), counted(1.0), Tolerance(ap_fall=0.2 + 1e-9)).passed


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The shipped nuclei network as it is before its variants are tried, with golden tensors that show objects."""
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
    from cellcount_core.models.engines import maps_of
    from cellcount_core.models.engines.onnx import OnnxEngine
    from cellcount_core.training.variants import put_arrays

    folder = Path(shutil.copytree(shipped_folder() / "nuclei", tmp_path / "nuclei"))
    (folder / INT8.file).unlink(missing_ok=True)
    shipped = load_package(shipped_folder() / "nuclei")
    config = InstancesConfig.model_validate(read_yaml(CONF / "train_nuclei.yaml"))
    lesson = LabelLesson(config, Images(IMAGES, IMAGES, IMAGES, IMAGES))
    crops = lesson.golden_crops(shipped.stride)
    assert crops.std() > 0.1
    maps = maps_of(OnnxEngine(shipped, 1, "onnxruntime"), crops)
    (folder / "golden.npz").unlink()
    put_arrays(
        folder / "golden.npz", {"input": crops, "maps": maps, **lesson.golden_arrays(shipped.section, maps)}
    )
    return folder


def bare(folder: Path) -> dict[str, object]:
    """The manifest with the engines that compute in float32 alone."""
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["files"]
    manifest.pop("variants", None)
    manifest["golden"].pop("engines", None)
    manifest["engines"] = {name: manifest["engines"][name] for name in ("keras", "onnxruntime")}
    return dict(manifest)


def quantise(folder: Path, brightness: float) -> None:
    """Write the int8 network, calibrated on the images at a brightness: 1 is that of the images that are counted."""
    from cellcount_core.models.families.onnx_graph import layer_weights
    from cellcount_core.models.families.unet import build_unet
    from cellcount_core.training.variants import calibration_tiles, write_int8

    package = load_package(shipped_folder() / "nuclei")
    network = build_unet(package.network)
    network.load_weights(str(package.file("network.weights.h5")))
    tiles = [
        tile * np.float32(brightness) for tile in calibration_tiles(IMAGES, package.input, package.stride)
    ]
    write_int8(package.network, layer_weights(network), tiles, folder / INT8.file)


@pytest.mark.slow
def test_an_int8_network_that_counts_alike_becomes_the_cpu_engine_with_figures_and_golden_maps(
    package: Path,
) -> None:
    quantise(package, brightness=1.0)
    lines: list[str] = []
    add_variant(package, bare(package), INT8, IMAGES, lines.append, diameters=["model"], gate=Tolerance())
    loaded = load_package(package)
    assert resolve_engine(loaded, "auto", gpus=0) == "onnxruntime-int8"
    by_diameter = loaded.variants["onnxruntime-int8"]
    assert isinstance(by_diameter, dict)
    figures = by_diameter["model"]
    assert figures["images"] == len(IMAGES)
    assert abs(figures["ap_fall"]) < 0.01
    assert abs(figures["bias_change"]) < 0.005
    assert lines[0].startswith("onnxruntime-int8, diameter model: mean AP")
    assert check_golden(loaded, load_engine(loaded, "onnxruntime-int8", 1)) <= INT8.atol
    with np.load(package / "golden.npz") as stored:
        difference = np.abs(stored["maps"] - stored["maps__onnxruntime-int8"])
    assert 0.001 < difference.max() < 0.2


@pytest.mark.slow
def test_an_int8_network_calibrated_on_darkness_is_refused_and_leaves_no_trace(package: Path) -> None:
    quantise(package, brightness=0.002)
    before = bare(package)
    lines: list[str] = []
    kept = add_variant(package, before, INT8, IMAGES, lines.append, diameters=["model"], gate=Tolerance())
    assert kept == before
    assert "left out" in lines[0]
    loaded = load_package(package)
    assert resolve_engine(loaded, "auto", gpus=0) == "onnxruntime"
    assert not (package / INT8.file).exists()
    assert loaded.variants == {}
    with np.load(package / "golden.npz") as stored:
        assert sorted(stored.files) == ["input", "labels", "maps"]


@pytest.mark.slow
def test_a_variant_must_pass_at_every_scale_it_is_tried_at(package: Path) -> None:
    quantise(package, brightness=1.0)
    # Brought down to a sixteenth, the images show nothing to any engine: that passes, and proves nothing.
    add_variant(package, bare(package), INT8, IMAGES, str, diameters=["model", 320.0], gate=Tolerance())
    assert "onnxruntime-int8" in load_package(package).engines
    quantise(package, brightness=0.002)
    lines: list[str] = []
    add_variant(
        package, bare(package), INT8, IMAGES, lines.append, diameters=[320.0, "model"], gate=Tolerance()
    )
    assert [line.endswith("passes") for line in lines] == [True, False]
    assert "onnxruntime-int8" not in load_package(package).engines


@pytest.mark.slow
def test_a_float16_engine_shares_the_weights_and_is_held_to_the_golden_maps_of_float32(package: Path) -> None:
    add_variant(package, bare(package), FLOAT16, IMAGES[:2], str, diameters=["model"], gate=Tolerance())
    loaded = load_package(package)
    assert loaded.engines["keras-float16"] == loaded.engines["keras"]
    assert loaded.golden_of("keras-float16").maps == "maps"
    engine = load_engine(loaded, "keras-float16", 1)
    assert 0 < check_golden(loaded, engine) < FLOAT16.atol
    gpu = replace(loaded, engines={name: loaded.engines[name] for name in ("keras-float16", "onnxruntime")})
    assert resolve_engine(gpu, "auto", gpus=0) == "onnxruntime"


@pytest.mark.slow
def test_no_two_products_of_the_integers_overflow_what_processors_without_vnni_add_them_in(
    package: Path,
) -> None:
    import onnx
    from onnx import numpy_helper

    quantise(package, brightness=1.0)
    graph = onnx.load(package / INT8.file).graph
    kernels = [
        numpy_helper.to_array(value)
        for value in graph.initializer
        if value.name.endswith("_kernel_quantized")
    ]
    assert len(kernels) >= 10
    worst = max(int(np.abs(kernel.astype(np.int32)).max()) for kernel in kernels)
    assert 2 * 255 * worst <= np.iinfo(np.int16).max
