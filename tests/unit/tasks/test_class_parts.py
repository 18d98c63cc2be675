"""Classes of parts of an image: of its tiles, each shown to the network as the images were that it was taught with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import Schema
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.image import pixels_in_memory
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import Package, read_for_writing, write_package
from cellcount_core.pipeline.context import package_of
from cellcount_core.pipeline.field import PlanesKit, examine, planes_kit
from cellcount_core.pipeline.rows import run_schema
from cellcount_core.tasks.classes.columns import TILES, count_values
from cellcount_core.tasks.task import Found
from tests.random_features import train_classes
from tests.shapes import CLASSES, shape_image

SIDE = 96


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package that looks at images as one."""
    truth = [CLASSES[number % 3] for number in range(60)]
    images = [(shape_image(kind, 1000 + number),) for number, kind in enumerate(truth)]
    return train_classes(tmp_path_factory.mktemp("packages") / "shapes", "shapes", images, truth)


@pytest.fixture(scope="module")
def tiled(whole: Package, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The same network in a package that looks at tiles."""
    return with_section(whole, tmp_path_factory.mktemp("packages") / "tiled", tile_px=SIDE)


def with_section(package: Package, folder: Path, **changes: object) -> Package:
    folder.mkdir()
    for path in package.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    manifest = read_for_writing(folder)
    section = manifest["classes"]
    assert isinstance(section, dict)
    manifest["classes"] = {**section, **changes}
    return write_package(folder, manifest)


def asked(package: Package, **classes: object) -> RunConfig:
    return RunConfig.model_validate({"model": {"package": str(package.folder)}, "classes": classes})


@contextmanager
def kit_of(run: RunConfig) -> Iterator[PlanesKit]:
    package = package_of(run)
    kit = planes_kit(package, load_engine(package, resolve_engine(package, "auto", gpus=0), 1), run)
    try:
        yield kit
    finally:
        kit.close()


def found_in(run: RunConfig, plane: NDArray[np.uint16]) -> Found:
    with kit_of(run) as kit:
        return examine(kit, pixels_in_memory({"image": plane}, "made up")).found


def schema_of(run: RunConfig) -> Schema:
    return run_schema(package_of(run), ("image",), ())


def mosaic() -> NDArray[np.uint16]:
    """Three images side by side, the last of which is ten times as bright."""
    kinds = [shape_image(kind, 7)[:SIDE, :SIDE] for kind in CLASSES]
    return np.hstack([*kinds[:2], np.clip(10 * kinds[2].astype(np.int64), 0, 65535).astype(np.uint16)])


def test_a_tile_is_told_as_an_image_is_that_shows_it_alone(whole: Package) -> None:
    field = mosaic()
    found = found_in(asked(whole, per="tile", crop_px=SIDE), field)
    assert found.tiles is not None and found.objects is None
    columns, _ = found.tiles.rows()
    for at in range(3):
        alone = found_in(asked(whole), field[:, at * SIDE : (at + 1) * SIDE])
        probabilities = [float(np.asarray(columns[f"probability_{name}"])[at]) for name in CLASSES]
        assert probabilities == pytest.approx(alone.values["probability"], abs=1e-6)
        assert columns["class"][at] == alone.values["class"]


def test_an_image_is_of_the_class_of_the_mean_over_its_tiles_whether_tiles_have_rows_or_not(
    tiled: Package,
) -> None:
    by_tile, by_image = (found_in(asked(tiled, per=per), mosaic()) for per in ("tile", "image"))
    assert by_image.parts is None and not schema_of(asked(tiled, per="image")).objects
    assert {name: by_tile.values[name] for name in by_image.values} == dict(by_image.values)
    assert by_tile.values["tiles"] == 3
    assert schema_of(asked(tiled, per="tile")) == schema_of(asked(tiled))


def test_tiles_have_the_size_of_the_images_that_the_network_was_taught_with(
    whole: Package, tmp_path: Path
) -> None:
    told = with_section(whole, tmp_path / "told", image_px=[48, 96])
    found = found_in(asked(told, per="tile"), mosaic())
    assert found.boxes is not None
    assert {(y1 - y0, x1 - x0) for y0, x0, y1, x1 in found.boxes.tolist()} == {(48, 96)}
    assert found.values["tiles"] == 6


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"per": "tile"}, r"does not say how large .* give the side of a tile in px \(--crop PX\)"),
        ({"per": "image", "crop_px": 64}, "images are told as a whole: give --per tile, or leave it out"),
    ],
)
def test_what_cannot_be_shown_is_refused(whole: Package, classes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigFault, match=said):
        package_of(asked(whole, **classes))


def test_settings_of_classes_are_refused_by_a_package_that_tells_none() -> None:
    run = RunConfig.model_validate({"model": {"package": "nuclei"}, "classes": {"per": "tile"}})
    with pytest.raises(ConfigFault, match="`nuclei` is for the task instances: choose another with --model"):
        package_of(run)


def test_shares_of_no_tiles_are_not_known_and_those_of_some_have_intervals() -> None:
    none = count_values(np.zeros(0, np.int64), ("a", "b"), TILES)
    assert (none["tiles_a"], none["tiles_a_share"], none["tiles_a_share_low"]) == (0, None, None)
    some = count_values(np.array([0, 0, 1]), ("a", "b"), TILES)
    assert (some["tiles_a"], some["tiles_b"], some["tiles_b_share"]) == (2, 1, pytest.approx(1 / 3))
    low, high = some["tiles_b_share_low"], some["tiles_b_share_high"]
    assert isinstance(low, float) and isinstance(high, float) and 0 < low < 1 / 3 < high < 1
