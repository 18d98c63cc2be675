"""A model package is known by its digest, and refused when anything in it changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellcount_core.domain.errors import ConfigFault, ModelFault
from cellcount_core.models.engines import ON_GPU, check_golden, load_engine, resolve_engine
from cellcount_core.models.manifest import MANIFEST
from cellcount_core.models.package import (
    find_package,
    load_package,
    read_for_writing,
    shipped_folder,
    write_package,
)
from cellcount_core.tasks.instances.task import section_of
from cellcount_core.tasks.task import task_of


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_folder() / "threshold", tmp_path / "threshold"))


def edit(folder: Path, **changes: object) -> None:
    manifest = folder / "package.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


def test_the_digest_is_that_of_the_content_wherever_it_lies(copy: Path) -> None:
    assert load_package(copy).digest == find_package("threshold").digest


def test_a_changed_file_is_refused_by_name(copy: Path) -> None:
    (copy / "golden.npz").write_bytes(b"other")
    with pytest.raises(ModelFault, match=r"golden\.npz: its content is"):
        load_package(copy)


def test_a_missing_file_is_refused_by_name(copy: Path) -> None:
    (copy / "golden.npz").unlink()
    with pytest.raises(ModelFault, match=r"golden\.npz: named in package\.json but not there"):
        load_package(copy)


def test_a_file_outside_the_package_is_refused(copy: Path) -> None:
    edit(copy, files={"../golden.npz": "sha256:0", "golden.npz": "sha256:0"})
    with pytest.raises(ModelFault, match="not a file of the package's own folder"):
        load_package(copy)


INTERVAL = {"level": 0.9, "relative": 0.0, "low": -0.6, "high": 0.9, "images": 41}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("format", 3, "package format 3, this version reads 1 and 2"),
        ("engines", [], r"engines: .* \(got \[\]\)"),
        ("modality", "fluorescence", r"modality: .* \(got 'fluorescence'\)"),
        ("golden", {"file": "golden.npz", "atol": "small"}, r"golden\.atol: .* \(got 'small'\)"),
        ("golden", {"file": "golden.npz", "atol": -1.0}, r"golden\.atol: .* \(got -1\.0\)"),
        ("interval", INTERVAL | {"level": 1.5}, r"interval\.level: a share between 0 and 1"),
        ("interval", INTERVAL | {"images": -41}, r"interval\.images: at least one"),
        ("interval", INTERVAL | {"relative": -0.1}, r"interval\.relative: a number of at least 0"),
        ("interval", INTERVAL | {"low": 2.0}, r"interval\.low and high: two numbers in that order"),
        ("accuracy", {"f1_50": 1.7}, r"accuracy\.f1_50: a share from 0 to 1 expected \(got 1\.7\)"),
        ("accuracy", {"images": -3}, r"accuracy\.images: a number of at least 0 expected \(got -3\)"),
        ("accuracy", {"at": {"ap_50": "good"}}, r"accuracy\.at\.ap_50: a number expected \(got 'good'\)"),
    ],
)
def test_a_malformed_manifest_says_what_is_wrong(copy: Path, key: str, value: object, told: str) -> None:
    edit(copy, **{key: value})
    with pytest.raises(ModelFault, match=told):
        load_package(copy)


def test_an_unknown_name_proposes_the_nearest_package() -> None:
    with pytest.raises(ModelFault, match="did you mean 'threshold'"):
        find_package("treshold")


def test_an_unknown_engine_proposes_the_nearest() -> None:
    with pytest.raises(ConfigFault, match="'smooth'"):
        resolve_engine(find_package("threshold"), "smoth", gpus=0)


@pytest.mark.parametrize(
    "folder", [path.parent.name for path in sorted(shipped_folder().glob("*/package.json"))]
)
def test_every_shipped_package_gives_its_golden_tensors_on_every_cpu_engine(folder: str) -> None:
    package = find_package(folder)
    names = [name for name in package.engines if name not in ON_GPU]
    assert names
    for name in names:
        found = check_golden(package, load_engine(package, name, threads=1))
        assert found <= package.golden_of(name).atol


@pytest.mark.parametrize(
    "folder", [path.parent.name for path in sorted(shipped_folder().glob("*/package.json"))]
)
def test_the_golden_tensors_of_every_shipped_package_show_objects(folder: str) -> None:
    package = find_package(folder)
    with np.load(package.file(package.golden)) as stored:
        assert stored["input"].std() > 0.05
        assert np.ptp(stored["maps"], axis=(0, 1, 2)).max() > 0.5


def test_an_engine_off_its_golden_tensors_is_refused() -> None:
    package = find_package("threshold")

    class Off:
        name = "off"
        batch = 1

        def run(self, tiles: np.ndarray) -> np.ndarray:
            return np.zeros_like(tiles)

    with pytest.raises(ModelFault, match="off its golden tensors by"):
        check_golden(package, Off())


@pytest.mark.parametrize(
    ("shift", "told"), [(0.3, "by 0.3 "), (0.05, "on average"), (float("nan"), "by nan")]
)
def test_an_engine_with_golden_tensors_of_its_own_is_held_to_both_of_its_tolerances(
    copy: Path, shift: float, told: str
) -> None:
    with np.load(copy / "golden.npz") as stored:
        arrays = dict(stored)
    own = arrays["maps"] + np.float32(0.4)
    np.savez(copy / "golden.npz", **arrays, maps__smooth=own)
    digest = hashlib.sha256((copy / "golden.npz").read_bytes()).hexdigest()
    allowed = {"smooth": {"maps": "maps__smooth", "atol": 0.1, "mean_atol": 0.01}}
    golden = {"file": "golden.npz", "atol": 0.0, "engines": allowed}
    edit(copy, golden=golden, files={"golden.npz": f"sha256:{digest}"})
    package = load_package(copy)

    class Shifted:
        name = "smooth"
        batch = 1

        def __init__(self, by: float) -> None:
            self._rest = [maps[None] + np.float32(by) for maps in own]

        def run(self, tiles: np.ndarray) -> np.ndarray:
            return self._rest.pop(0)

    assert check_golden(package, Shifted(0.005)) == pytest.approx(0.005, abs=1e-6)
    with pytest.raises(ModelFault, match=told):
        check_golden(package, Shifted(shift))


def test_smoothing_does_not_depend_on_where_a_tile_begins() -> None:
    package = find_package("threshold")
    engine = load_engine(package, "smooth", threads=1)
    image = np.random.default_rng(3).normal(0.5, 0.3, (1, 96, 131, 1)).astype(np.float32)
    whole = engine.run(image)[0]
    r = package.radius
    for y, x in ((5, 7), (13, 30), (31, 2)):
        part = engine.run(image[:, y : y + 50, x : x + 61])[0]
        np.testing.assert_array_equal(part[r:-r, r:-r], whole[y + r : y + 50 - r, x + r : x + 61 - r])


@pytest.mark.parametrize("name", ["threshold", "nuclei", "histology"])
def test_a_shipped_manifest_of_format_1_says_the_same_when_it_is_written_anew(
    name: str, tmp_path: Path
) -> None:
    before = find_package(name)
    assert json.loads((before.folder / MANIFEST).read_text())["format"] == 1
    folder = Path(shutil.copytree(before.folder, tmp_path / name))
    after = write_package(folder, read_for_writing(folder))
    written = json.loads((folder / MANIFEST).read_text())
    assert (written["format"], written["task"]) == (2, "instances")
    assert written["instances"]["stride"] == before.stride
    assert replace(after, folder=before.folder, digest=before.digest) == before
    assert section_of(after) == section_of(before)
    again = write_package(folder, read_for_writing(folder))
    assert again.digest == after.digest


def test_a_package_of_a_task_to_come_is_refused_by_the_nearest_one(copy: Path) -> None:
    edit(copy, task="instanzes")
    with pytest.raises(
        ModelFault, match="'instanzes', which this version does not know; did you mean 'instances'"
    ):
        task_of(load_package(copy))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("stride", "four", r"instances\.stride: .* \(got 'four'\)"),
        ("stride", 0, r"instances\.stride: .* \(got 0\)"),
        ("maps", [], r"instances\.maps: .* at least 1 item .* \(got \[\]\)"),
    ],
)
def test_a_section_says_which_key_is_wrong(copy: Path, key: str, value: object, told: str) -> None:
    edit(copy, **{key: value})
    package = load_package(copy)
    with pytest.raises(ModelFault, match=told):
        task_of(package).head(package)


def test_a_package_uses_the_network_of_another(tmp_path: Path) -> None:
    for name in ("viability-fluorescence", "viability-live-dead"):
        package = find_package(name)
        assert package.base is not None
        assert (
            package.file("network.onnx").read_bytes()
            == find_package("nuclei").file("network.onnx").read_bytes()
        )
        assert [
            path.name for path in package.folder.iterdir() if path.suffix in (".onnx", ".h5", ".npz")
        ] == []
    copy = Path(shutil.copytree(shipped_folder() / "viability-fluorescence", tmp_path / "own"))
    assert load_package(copy).digest == find_package("viability-fluorescence").digest
    assert write_package(copy, read_for_writing(copy)).digest == load_package(copy).digest


def test_another_network_than_the_one_that_is_stated_is_refused(tmp_path: Path) -> None:
    own = Path(shutil.copytree(shipped_folder() / "viability-fluorescence", tmp_path / "own"))
    beside = Path(shutil.copytree(shipped_folder() / "nuclei", tmp_path / "nuclei"))
    assert load_package(own).base == beside
    (beside / "network.onnx").write_bytes(b"other")
    with pytest.raises(ModelFault, match=r"network\.onnx: its content is"):
        load_package(own)
    edit(own, network_of="nuclej")
    with pytest.raises(
        ModelFault, match="uses the network of the package 'nuclej', which is neither beside it nor shipped"
    ):
        load_package(own)
    edit(own, network_of="../nuclei")
    with pytest.raises(ModelFault, match="network_of"):
        load_package(own)


def test_an_input_that_shows_a_role_that_is_none_is_refused(tmp_path: Path) -> None:
    own = Path(shutil.copytree(shipped_folder() / "viability-live-dead", tmp_path / "own"))
    manifest = json.loads((own / "package.json").read_text())
    edit(own, input={**manifest["input"], "seen": [["live", "ded"]]})
    with pytest.raises(ModelFault, match="seen: 'ded' is not one of the channels live, dead"):
        load_package(own)
