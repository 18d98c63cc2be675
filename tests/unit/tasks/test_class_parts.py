"""Classes of parts of an image: of its tiles, and of the objects that another package finds; each shown to the network as the images were that
it was taught with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from numpy.typing import NDArray

from cellcount_core.cli.main import main
from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import Schema
from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.labelled.image import pixels_in_memory
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import Package, read_for_writing, write_package
from cellcount_core.pipeline.context import package_of
from cellcount_core.pipeline.field import PlanesKit, examine, planes_kit
from cellcount_core.pipeline.rows import run_schema
from cellcount_core.tasks.classes.columns import TILES, count_values
from cellcount_core.tasks.task import Found
from tests.boxes import LARGE, SMALL, Disc, box_package, disc_image
from tests.jobs import rows
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


CROP = 40
SIZES = {"large": LARGE, "small": SMALL}


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package that tells how large the disc in the middle of an image is, and whether the image is one of discs at all."""
    kinds = ["small", "large"] * 30
    rng = np.random.default_rng(0)
    images = [
        (disc_image([(CROP // 2, CROP // 2, SIZES[kind] + int(rng.integers(-2, 3)))], (CROP, CROP), seed),)
        for seed, kind in enumerate(kinds)
    ]
    folder = tmp_path_factory.mktemp("packages") / "sizes"
    return with_section(
        train_classes(folder, "sizes", images, kinds, side_px=CROP, features=4),
        tmp_path_factory.mktemp("told") / "sizes",
        image_px=[CROP, CROP],
    )


def count(package: Package, images: Path, out: Path, *more: str) -> int:
    objects = () if "--objects" in more else ("--objects", "threshold")
    return main(["count", str(images), str(out), "--model", str(package.folder), "--per", "object", *objects,
                 "--runner", "serial", *more])  # fmt: skip


def folder_of(folder: Path, **images: NDArray[np.generic]) -> Path:
    folder.mkdir()
    for name, pixels in images.items():
        tifffile.imwrite(folder / f"{name}.tif", pixels)
    return folder


def test_an_object_at_the_edge_is_told_as_in_a_field_that_goes_on_as_its_mirror_image(
    sizes: Package, tmp_path: Path
) -> None:
    discs: list[Disc] = [
        (13, 60, SMALL),
        (60, 12, SMALL),
        (90, 90, SMALL),
        (21, 120, LARGE),
        (120, 139, LARGE),
    ]
    field = disc_image(discs)
    images = folder_of(tmp_path / "in", a=field, b=np.pad(field, CROP, mode="reflect"))
    assert count(sizes, images, tmp_path / "out") == ExitCode.OK
    told: dict[str, dict[tuple[int, int], float]] = {"a": {}, "b": {}}
    for one in rows(tmp_path / "out", "objects").to_pylist():
        beyond = CROP * (one["Metadata_Well"] == "b")
        y, x = (round(one[f"Nuclei_Location_Center_{axis}"]) - beyond for axis in "YX")
        told[one["Metadata_Well"]][y, x] = one["probability_small"]
    assert len(told["a"]) == len(discs) < len(told["b"])
    assert {place: told["b"][place] for place in told["a"]} == pytest.approx(told["a"], abs=0.02)


def test_objects_unlike_all_images_of_the_training_are_none_of_these(sizes: Package, tmp_path: Path) -> None:
    discs: list[Disc] = [(40, 40, SMALL), (40, 110, LARGE)]
    known, strange = disc_image(discs), disc_image(discs)
    strange[96:146, 20:140:4] = strange[96:146, 21:140:4] = 3300
    strange[96:146, 22:140:4] = strange[96:146, 23:140:4] = 1500
    images = folder_of(tmp_path / "in", known=known, strange=strange)
    assert count(sizes, images, tmp_path / "out") == ExitCode.OK
    first, second = rows(tmp_path / "out", "fields").to_pylist()
    assert (first["count"], first["count_none_of_these"]) == (2, 0)
    assert (second["count"], second["count_none_of_these"]) == (3, 1)
    for one in rows(tmp_path / "out", "objects").to_pylist():
        assert (one["class_out_of_domain"] > 0.5) == (one["Nuclei_Location_Center_Y"] > 90)
    wells = pq.read_table(tmp_path / "out" / "wells.parquet").to_pylist()
    assert [row["count_none_of_these"] for row in wells] == [0, 1]


def test_an_image_without_objects_has_0_of_each_class(sizes: Package, tmp_path: Path) -> None:
    assert count(sizes, folder_of(tmp_path / "in", a=disc_image([])), tmp_path / "out") == ExitCode.OK
    [row] = rows(tmp_path / "out", "fields").to_pylist()
    assert (row["count"], row["count_small"], row["count_large"], row["count_none_of_these"]) == (0, 0, 0, 0)
    assert row["count_small_share"] is None


def test_objects_may_be_found_in_one_channel_and_told_in_another(sizes: Package, tmp_path: Path) -> None:
    """Small discs in the channel of the nuclei lie inside large ones of the other."""
    folder = tmp_path / "P"
    folder.mkdir()
    for channel, diameter in (("w1", SMALL), ("w2", LARGE)):
        tifffile.imwrite(
            folder / f"P_B02_s1_{channel}.TIF", disc_image([(40, 40, diameter), (40, 110, diameter)])
        )
    both = ("--layout", "imagexpress", "--channel", "nuclei=w1", "--channel", "image=w2")
    assert count(sizes, folder, tmp_path / "both", *both) == ExitCode.OK
    assert count(sizes, folder, tmp_path / "one", *both[:2], "--channel", "w1") == ExitCode.OK
    told = [rows(tmp_path / out, "objects").to_pylist() for out in ("both", "one")]
    assert [[one["class"] for one in objects] for objects in told] == [["large"] * 2, ["small"] * 2]


def test_of_objects_that_are_found_with_a_class_those_that_are_meant_are_told(
    sizes: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    discs: list[Disc] = [(40, 40, SMALL), (40, 110, LARGE), (110, 40, SMALL)]
    images = folder_of(tmp_path / "in", a=disc_image(discs), none=disc_image(discs[::2]))
    finder = ("--objects", str(box_package(tmp_path / "discs").folder))
    assert count(sizes, images, tmp_path / "all", *finder) == ExitCode.OK
    assert (
        "objects are found as small, large, and each is told one of large, small" in capsys.readouterr().err
    )
    every = rows(tmp_path / "all", "objects").to_pylist()
    assert [one["found_as"] for one in every] == [one["class"] for one in every] != []
    assert count(sizes, images, tmp_path / "large", *finder, "--set", "run.classes.of=[large]") == ExitCode.OK
    assert "objects are found as" not in capsys.readouterr().err
    [large] = rows(tmp_path / "large", "objects").to_pylist()
    assert (large["found_as"], large["class"], large["Metadata_ObjectNumber"]) == ("large", "large", 1)
    fields = rows(tmp_path / "large", "fields").to_pylist()
    assert [(row["count"], row["count_large"], row["count_small"]) for row in fields] == [
        (1, 1, 0),
        (0, 0, 0),
    ]
    assert all(not row["warnings"] for row in fields)


@pytest.mark.parametrize(
    ("model", "classes", "said"),
    [
        ({}, {"of": ["large"]}, "says which objects are meant: give --per object with it"),
        ({"objects": "threshold"}, {"per": "object", "of": ["large"]}, "finds no objects of a class 'large': it gives them no class"),
        ({"objects": "blood"}, {"per": "object", "of": ["WCB"]}, "finds no objects of a class 'WCB'; known: 'Platelets', 'RBC', 'WBC'"),
        ({"objects": "threshold"}, {}, "finds objects whose classes are told: give --per object with it"),
        ({"objects": "SIZES"}, {"per": "object"}, "is for the task classes, and finds no objects"),
        ({"objects": "threshold", "package": "nuclei"}, {"per": "object"}, "`nuclei` is for the task instances"),
        ({"objects": "threshold", "package": "WHOLE"}, {"per": "object"}, r"give the side .* in px \(--crop PX\)"),
        ({"objects": "threshold", "package": "BORDER"}, {"per": "object"}, "the column 'count_border', which has another meaning"),
    ],
)  # fmt: skip
def test_packages_that_do_not_go_together_are_refused(
    sizes: Package,
    whole: Package,
    tmp_path: Path,
    model: dict[str, str],
    classes: dict[str, object],
    said: str,
) -> None:
    folders = {"SIZES": sizes.folder, "WHOLE": whole.folder}
    if model.get("package") == "BORDER":
        border = with_section(sizes, tmp_path / "border", classes=["border", "middle"])
        folders["BORDER"] = border.folder
    named = {name: str(folders.get(given, given)) for name, given in model.items()}
    run = RunConfig.model_validate({"model": {"package": str(sizes.folder), **named}, "classes": classes})
    with pytest.raises(ConfigFault, match=said):
        package_of(run)
