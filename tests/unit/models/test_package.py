"""A model package is known by its digest, and refused when anything in it changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cellcount_core.domain.errors import ConfigFault, ModelFault
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.golden import check_golden
from cellcount_core.models.package import find_package, load_package, shipped_folder


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


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("format", 2, "format 2"),
        ("engines", [], "engines must be an object"),
        ("stride", "four", "stride must be a number"),
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
def test_every_shipped_package_gives_its_golden_tensors(folder: str) -> None:
    package = find_package(folder)
    name = resolve_engine(package, "auto", gpus=0)
    assert check_golden(package, load_engine(package, name, threads=1)) <= package.golden_atol


def test_an_engine_off_its_golden_tensors_is_refused() -> None:
    package = find_package("threshold")

    class Off:
        name = "off"
        batch = 1

        def run(self, tiles: np.ndarray) -> np.ndarray:
            return np.zeros_like(tiles)

    with pytest.raises(ModelFault, match="off its golden tensors by"):
        check_golden(package, Off())


def test_smoothing_does_not_depend_on_where_a_tile_begins() -> None:
    package = find_package("threshold")
    engine = load_engine(package, "smooth", threads=1)
    image = np.random.default_rng(3).normal(0.5, 0.3, (1, 96, 131, 1)).astype(np.float32)
    whole = engine.run(image)[0]
    r = package.radius
    for y, x in ((5, 7), (13, 30), (31, 2)):
        part = engine.run(image[:, y : y + 50, x : x + 61])[0]
        np.testing.assert_array_equal(part[r:-r, r:-r], whole[y + r : y + 50 - r, x + r : x + 61 - r])
