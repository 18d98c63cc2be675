"""Classes of parts of an image: of its tiles, and of the objects that another package finds; each shown to the network as the images were that
it was taught with.
"""

from __future__ import annotations

import csv
import io
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
from cellcount_core.domain.errors import ConfigFault, ExitCode, ModelFault
from cellcount_core.labelled.image import pixels_in_memory
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import Package, read_for_writing, write_package
from cellcount_core.pipeline.context import package_of
from cellcount_core.pipeline.field import PlanesKit, examine, planes_kit
from cellcount_core.pipeline.rows import run_schema
from cellcount_core.tasks.classes.columns import TILES, count_values
from cellcount_core.tasks.task import Found, Truth, task_of
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
    assert by_tile.values["tiles"] == by_tile.values["tiles_told"] == 3
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


def noise() -> NDArray[np.uint16]:
    return np.random.default_rng(5).normal(300, 12, (SIDE, SIDE)).astype(np.uint16)


@pytest.mark.parametrize(
    "nothing", [np.full((SIDE, SIDE), 7, np.uint16), np.zeros((1, 1), np.uint16), noise()]
)
@pytest.mark.parametrize("per", ["image", "tile"])
def test_an_image_that_shows_nothing_is_told_no_class(
    whole: Package, nothing: NDArray[np.uint16], per: str
) -> None:
    run = asked(whole, per=per, **({"crop_px": SIDE} if per == "tile" else {}))
    with kit_of(run) as kit:
        seen = examine(kit, pixels_in_memory({"image": nothing}, "made up"))
    told = seen.found.values
    assert told["class"] is told["class_probability"] is told["probability"] is None
    assert "shows_nothing" in seen.warnings


def test_tiles_that_show_nothing_are_told_no_class_and_are_part_of_no_share(
    tiled: Package,
) -> None:
    field = np.hstack([noise(), shape_image("rings", 7), noise(), noise()])
    run = asked(tiled, per="tile")
    found = found_in(run, field)
    values = found.values
    assert (values["tiles"], values["tiles_told"], values["tiles_rings"], values["tiles_dots"]) == (
        4,
        1,
        1,
        0,
    )
    assert (values["class"], values["tiles_rings_share"]) == ("rings", 1)
    assert found.tiles is not None and found.boxes is not None
    columns, _ = found.tiles.rows()
    assert np.asarray(columns["empty"]).tolist() == [True, False, True, True]
    assert list(columns["class"]) == [None, "rings", None, None]
    assert np.isnan(np.asarray(columns["probability_rings"], np.float64)).tolist() == [
        True,
        False,
        True,
        True,
    ]
    assert len(found.boxes) == 1
    alone = found_in(run, shape_image("rings", 7))
    assert values["probability"] == pytest.approx(alone.values["probability"], abs=0.05)


def test_what_shows_nothing_enters_no_share_of_a_well(whole: Package, tmp_path: Path) -> None:
    folder = tmp_path / "P"
    folder.mkdir()
    for site, pixels in enumerate((shape_image("dots", 1), noise(), np.zeros_like(noise())), 1):
        tifffile.imwrite(folder / f"P_B02_s{site}_w1.TIF", pixels)
    out = tmp_path / "out"
    assert main(["count", str(folder), str(out), "--layout", "imagexpress", "--model", str(whole.folder),
                 "--runner", "serial"]) == ExitCode.OK  # fmt: skip
    [well] = pq.read_table(out / "wells.parquet").to_pylist()
    assert (well["class_dots"], well["class_dots_share"], well["class_rings"]) == (1, 1, 0)
    assert well["probability_dots"] == max(rows(out, "fields").to_pylist()[0]["probability"])
    assert main(["verify", str(out)]) == ExitCode.OK


def test_an_image_that_shows_nothing_is_evaluated_as_not_told(whole: Package) -> None:
    scoring = task_of(whole).scoring(whole)
    none, dots = (found_in(asked(whole), each) for each in (noise(), shape_image("dots", 1)))
    truths = [Truth("1", values={"class": "rings"}), Truth("2", values={"class": "dots"})]
    scored = [scoring.score(truth, found) for truth, found in zip(truths, (none, dots), strict=True)]
    figures = scoring.figures(scored)
    assert (figures["images"], figures["accuracy"], figures["balanced_accuracy"]) == (2, 0.5, 0.5)
    assert [figures[f"rings_told_{name}"] for name in CLASSES] == [0, 0, 0]


@pytest.mark.parametrize(
    ("shape", "said"),
    [((96, 96), ()), ((96, 190), ()), ((480, 96), ("image_larger_than_taught:5 times",))],
)
def test_an_image_much_larger_than_those_of_the_training_is_told_of_unless_it_is_looked_at_in_tiles(
    whole: Package, tmp_path: Path, shape: tuple[int, int], said: tuple[str, ...]
) -> None:
    told = with_section(whole, tmp_path / "told", image_px=[SIDE, SIDE])
    field = np.tile(shape_image("stripes", 3), (5, 2))[: shape[0], : shape[1]]
    assert found_in(asked(told), field).warnings == said
    assert found_in(asked(told, per="tile"), field).warnings == ()


def test_the_same_name_for_two_columns_of_tiles_is_refused(tiled: Package, tmp_path: Path) -> None:
    odd = with_section(tiled, tmp_path / "odd", classes=["told", "rings", "stripes"])
    with pytest.raises(ModelFault, match="the column 'tiles_told', which has another meaning"):
        schema_of(asked(odd))


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


def test_objects_unlike_all_images_of_the_training_are_none_of_these(
    sizes: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    said = capsys.readouterr().out
    assert "20.0 % of objects none of these, whatever is told" in said
    assert main(["export", str(tmp_path / "out"), str(tmp_path / "results.csv")]) == ExitCode.OK
    table = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert [row["count_none_of_these"] for row in table] == ["0", "1"]


def strange_disc(seed: int) -> NDArray[np.uint16]:
    """Stripes, which no disc has."""
    stripes = disc_image([], (CROP, CROP), seed)
    stripes[:, ::4] += 3000
    stripes[:, 1::4] += 3000
    return stripes


def test_a_field_mostly_of_tiles_that_are_none_of_these_says_so(sizes: Package) -> None:
    known = [disc_image([(CROP // 2, CROP // 2, SMALL)], (CROP, CROP), seed) for seed in range(2)]
    field = np.hstack([*known, *map(strange_disc, range(4)), disc_image([], (CROP, CROP))])
    found = found_in(asked(sizes, per="tile"), field)
    values = found.values
    assert (values["tiles"], values["tiles_told"], values["tiles_none_of_these"]) == (7, 6, 4)
    assert "none_of_these" in found.warnings
    assert found.tiles is not None
    columns, _ = found.tiles.rows()
    unlike = np.asarray(columns["class_out_of_domain"], np.float64)
    assert (unlike[:6] > 0.5).tolist() == [False] * 2 + [True] * 4 and np.isnan(unlike[6])
    assert "tiles_none_of_these" in schema_of(asked(sizes, per="tile")).results


def test_a_field_mostly_of_objects_that_are_none_of_these_is_not_said_to_have_no_interval(
    sizes: Package, tmp_path: Path
) -> None:
    field = disc_image([], (470, 160))
    for top in range(20, 420, 90):
        field[top : top + 50, 20:140:4] = field[top : top + 50, 21:140:4] = 3300
        field[top : top + 50, 22:140:4] = field[top : top + 50, 23:140:4] = 1500
    assert count(sizes, folder_of(tmp_path / "in", a=field), tmp_path / "out") == ExitCode.OK
    [row] = rows(tmp_path / "out", "fields").to_pylist()
    assert (row["count"], row["count_none_of_these"]) == (5, 5)
    assert "none_of_these" in row["warnings"] and "out_of_domain" not in row["warnings"]


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
