"""Every task, held to what all of them promise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import tifffile
from numpy.typing import NDArray

from cellcount_core.domain.statistics import wilson
from cellcount_core.images.imagefile import COLOURS
from cellcount_core.models.package import Package, find_package, read_for_writing, write_package
from cellcount_core.tasks.boxes.columns import corner_columns
from tests.boxes import LARGE, SMALL, Disc, box_package, disc_image
from tests.contract.tasks.task_contract import WELLS, TaskContract
from tests.jobs import rows
from tests.patterns import pattern_package
from tests.random_features import train_classes

SHAPE = (180, 200)


def number_of(well: str, site: int) -> int:
    """How many objects of the first kind a site has: 1 to 7."""
    return WELLS.index(well) + site


def places(number: int) -> list[tuple[int, int]]:
    return [(30 + 40 * (at // 4), 30 + 45 * (at % 4)) for at in range(number)]


class TestInstances(TaskContract):
    """Discs, counted by thresholds."""

    headline = "52 objects"

    @classmethod
    def make_package(cls, _: Path) -> Package:
        return find_package("threshold")

    @classmethod
    def image(cls, well: str, site: int) -> NDArray[np.generic]:
        discs: list[Disc] = [(y, x, SMALL) for y, x in places(number_of(well, site) + 1)]
        return disc_image(discs, SHAPE)

    @classmethod
    def check_field(cls, row: dict[str, object], well: str, site: int) -> None:
        assert row["count"] == number_of(well, site) + 1


class TestBoxes(TaskContract):
    """Discs of two sizes, found by a network that gives boxes."""

    headline = "63 objects, 41 small, 22 large"

    @classmethod
    def make_package(cls, folder: Path) -> Package:
        return box_package(folder)

    @classmethod
    def image(cls, well: str, site: int) -> NDArray[np.generic]:
        spots = places(number_of(well, site) + 2)
        discs: list[Disc] = [(y, x, SMALL) for y, x in spots[:-2]] + [(y, x, LARGE) for y, x in spots[-2:]]
        return disc_image(discs, SHAPE)

    @classmethod
    def check_field(cls, row: dict[str, object], well: str, site: int) -> None:
        small = number_of(well, site)
        assert (row["count"], row["count_small"], row["count_large"]) == (small + 2, small, 2)


class TestColourBoxes(TaskContract):
    """Red and blue discs in colour images; the files' names call their only channel w1."""

    headline = "52 objects, 41 reds, 11 blues"

    @classmethod
    def make_package(cls, folder: Path) -> Package:
        return box_package(folder, roles=COLOURS, name="colours")

    @classmethod
    def image(cls, well: str, site: int) -> NDArray[np.generic]:
        spots = places(number_of(well, site) + 1)
        red, blue = (disc_image([(y, x, SMALL) for y, x in some], SHAPE) for some in (spots[:-1], spots[-1:]))
        green = disc_image([], SHAPE)
        return np.clip(np.dstack([red, green, blue]) / 16, 0, 255).astype(np.uint8)

    @classmethod
    def check_field(cls, row: dict[str, object], well: str, site: int) -> None:
        red = number_of(well, site)
        assert (row["count"], row["count_reds"], row["count_blues"]) == (red + 1, red, 1)
        assert row["channel"] == "red"


class TestViability(TaskContract):
    """Discs in the first channel, some of which the second shows too: those are dead."""

    headline = "viability 78.8 % (66.0 to 87.8), 52 objects, 41 live, 11 dead"

    @classmethod
    def make_package(cls, folder: Path) -> Package:
        shutil.copytree(find_package("threshold").folder, folder)
        manifest = read_for_writing(folder)
        manifest |= {
            "name": "two-stains",
            "task": "viability",
            "viability": {"instances": manifest.pop("instances")},
        }
        given = manifest["input"]
        assert isinstance(given, dict)
        manifest["input"] = {**given, "channels": ["all", "dead"], "seen": [["all"]]}
        return write_package(folder, manifest)

    @classmethod
    def image(cls, well: str, site: int) -> NDArray[np.generic]:
        return disc_image([(y, x, SMALL) for y, x in places(number_of(well, site) + 1)], SHAPE)

    @classmethod
    def write(cls, folder: Path, well: str, site: int) -> None:
        super().write(folder, well, site)
        y, x = places(number_of(well, site) + 1)[-1]
        tifffile.imwrite(folder / f"P_{well}_s{site}_w2.TIF", disc_image([(y, x, SMALL)], SHAPE, 1))

    @classmethod
    def check_field(cls, row: dict[str, object], well: str, site: int) -> None:
        live = number_of(well, site)
        assert (row["count"], row["live"], row["dead"], row["both"], row["neither"]) == (
            live + 1,
            live,
            1,
            0,
            0,
        )
        assert row["viability"] == 100 * live / (live + 1)


class TestViabilityByBoxes(TestBoxes):
    """Discs found as boxes, of which the small ones stand for live cells."""

    headline = "viability 65.1 % (52.8 to 75.7), 63 objects, 41 live, 22 dead"

    @classmethod
    def make_package(cls, folder: Path) -> Package:
        box_package(folder)
        manifest = read_for_writing(folder)
        told = {"small": "live", "large": "dead"}
        manifest |= {"task": "viability", "viability": {"boxes": manifest.pop("boxes"), "classes": told}}
        return write_package(folder, manifest)

    @classmethod
    def check_field(cls, row: dict[str, object], well: str, site: int) -> None:
        small = number_of(well, site)
        assert (row["count"], row["live"], row["dead"]) == (small + 2, small, 2)
        assert row["viability"] == 100 * small / (small + 2)


KINDS = ("dots", "stripes")


class TestClasses(TaskContract):
    """Images of dots and of stripes, told apart by a network of the family `pooled`."""

    headline = "6 dots, 5 stripes"

    @classmethod
    def make_package(cls, folder: Path) -> Package:
        kinds = [KINDS[number % 2] for number in range(40)]
        return train_classes(folder, "shapes", [(shape_of(kind, n),) for n, kind in enumerate(kinds)], kinds)

    @classmethod
    def image(cls, well: str, site: int) -> NDArray[np.generic]:
        return shape_of(kind_of(well), 100 + number_of(well, site))

    @classmethod
    def check_field(cls, row: dict[str, object], well: str, site: int) -> None:
        assert row["class"] == kind_of(well)


def kind_of(well: str) -> str:
    return KINDS[WELLS.index(well) % 2]


def shape_of(kind: str, seed: int) -> NDArray[np.uint16]:
    if kind == "dots":
        rng = np.random.default_rng(seed)
        return disc_image([(int(y), int(x), 10) for y, x in rng.integers(12, 84, (6, 2))], (96, 96), seed)
    x = np.arange(96)[None] + np.zeros((96, 1))
    bright = np.random.default_rng(seed).normal(300, 12, (96, 96)) + 3000 * (np.sin(x / 3 + seed) > 0.3)
    return np.clip(bright, 0, 65535).astype(np.uint16)


class TestTiles(TestClasses):
    """Fields of two by three tiles, of dots or of stripes, told apart tile by tile."""

    headline = (
        "8 dots, 3 stripes, 62.1 % of tiles dots (50.1 to 72.9), 37.9 % of tiles stripes (27.1 to 49.9)"
    )

    @classmethod
    def make_package(cls, folder: Path) -> Package:
        super().make_package(folder)
        manifest = read_for_writing(folder)
        section = manifest["classes"]
        assert isinstance(section, dict)
        manifest["classes"] = {**section, "tile_px": TILE_PX}
        return write_package(folder, manifest)

    @classmethod
    def image(cls, well: str, site: int) -> NDArray[np.generic]:
        tiles = [shape_of(KINDS[at >= dotted(well, site)], at) for at in range(TILES)]
        return np.vstack([np.hstack(tiles[:3]), np.hstack(tiles[3:])])

    @classmethod
    def check_field(cls, row: dict[str, object], well: str, site: int) -> None:
        number = dotted(well, site)
        assert (row["tiles"], row["tiles_dots"], row["tiles_stripes"]) == (TILES, number, TILES - number)
        low, share, high = (row[f"tiles_dots_share{end}"] for end in ("_low", "", "_high"))
        assert isinstance(low, float) and isinstance(high, float)
        assert share == number / TILES
        assert low <= number / TILES <= high

    def test_each_tile_has_a_row_with_its_place_and_what_is_told_of_it(self, counted: Path) -> None:
        objects = rows(counted, "objects").to_pylist()
        own = [one for one in objects if (one["Metadata_Well"], one["Metadata_Site"]) == ("B04", 1)]
        corners = [tuple(one[name] for name in corner_columns("Tile")) for one in own]
        assert corners == [
            (y, x, y + TILE_PX, x + TILE_PX) for y in (0, TILE_PX) for x in (0, TILE_PX, 2 * TILE_PX)
        ]
        assert [one["class"] for one in own] == ["dots"] * 3 + ["stripes"] * 3
        for one in own:
            assert one["class_probability"] == max(one["probability_dots"], one["probability_stripes"])

    def test_wells_say_which_share_of_tiles_is_of_each_class(self, counted: Path) -> None:
        wells = {row["Metadata_Well"]: row for row in pq.read_table(counted / "wells.parquet").to_pylist()}
        both = dotted("B03", 1) + dotted("B03", 2)
        assert (wells["B03"]["tiles"], wells["B03"]["tiles_dots"]) == (2 * TILES, both)
        assert wells["B03"]["tiles_dots_share"] == both / (2 * TILES)
        low, high = wilson(both, 2 * TILES) or (0.0, 0.0)
        assert (wells["B03"]["tiles_dots_share_low"], wells["B03"]["tiles_dots_share_high"]) == (low, high)


class TestObjectClasses(TaskContract):
    """Discs, found by thresholds, of which another package tells how large they are."""

    headline = "63 objects, 34.9 % of objects large (24.3 to 47.2), 65.1 % of objects small (52.8 to 75.7)"
    asked: ClassVar = {"classes": {"per": "object"}, "model": {"objects": "threshold"}}

    @classmethod
    def make_package(cls, folder: Path) -> Package:
        kinds = ["small", "large"] * 20
        sizes = {"small": SMALL, "large": LARGE}
        middle = OBJECT_PX // 2
        images = [
            (disc_image([(middle, middle, sizes[kind])], (OBJECT_PX, OBJECT_PX), seed),)
            for seed, kind in enumerate(kinds)
        ]
        train_classes(folder, "sizes", images, kinds, side_px=OBJECT_PX)
        manifest = read_for_writing(folder)
        section = manifest["classes"]
        assert isinstance(section, dict)
        manifest["classes"] = {**section, "image_px": [OBJECT_PX, OBJECT_PX]}
        return write_package(folder, manifest)

    @classmethod
    def image(cls, well: str, site: int) -> NDArray[np.generic]:
        return TestBoxes.image(well, site)

    @classmethod
    def check_field(cls, row: dict[str, object], well: str, site: int) -> None:
        small = number_of(well, site)
        assert (row["count"], row["count_small"], row["count_large"]) == (small + 2, small, 2)
        assert row["count_small_share"] == small / (small + 2)

    def test_each_object_has_the_class_that_its_size_says(self, counted: Path) -> None:
        for one in rows(counted, "objects").to_pylist():
            expected = (
                "small" if one["Nuclei_AreaShape_Area"] < (SMALL + LARGE) ** 2 * np.pi / 16 else "large"
            )
            assert one["class"] == expected
            assert one["class_probability"] == max(one["probability_small"], one["probability_large"])

    def test_wells_say_which_share_of_objects_is_of_each_class(self, counted: Path) -> None:
        wells = {row["Metadata_Well"]: row for row in pq.read_table(counted / "wells.parquet").to_pylist()}
        small = number_of("B03", 1) + number_of("B03", 2)
        assert (wells["B03"]["count"], wells["B03"]["count_small"]) == (small + 4, small)
        low, high = wilson(small, small + 4) or (0.0, 0.0)
        ends = [wells["B03"][f"count_small_share{end}"] for end in ("_low", "", "_high")]
        assert ends == [low, small / (small + 4), high]


OBJECT_PX = 40
TILE_PX, TILES = 96, 6


def dotted(well: str, site: int) -> int:
    """How many tiles of a site show dots: 1 to 6, and 0."""
    return number_of(well, site) % (TILES + 1)


class TestPatterns(TaskContract):
    """Images that are bright in places, bright nearly everywhere, or nowhere: patterns of which an image shows none, one or both."""

    headline = "10 bright, 4 broad"

    @classmethod
    def make_package(cls, folder: Path) -> Package:
        return pattern_package(folder)

    @classmethod
    def image(cls, well: str, site: int) -> NDArray[np.generic]:
        rng = np.random.default_rng(number_of(well, site))
        pixels = rng.normal(300, 12, (100, 100))
        rows = 10 * number_of(well, site) if number_of(well, site) > 1 else 0
        pixels[:rows:2] += 3000
        return np.clip(pixels, 0, 65535).astype(np.uint16)

    @classmethod
    def check_field(cls, row: dict[str, object], well: str, site: int) -> None:
        number = number_of(well, site)
        expected = [name for name, there in (("bright", number > 1), ("broad", number > 4)) if there]
        assert (row["patterns"], row["patterns_found"]) == (expected, len(expected))
        chances = row["probability"]
        assert isinstance(chances, list)
        assert [
            name for name, chance in zip(("bright", "broad"), chances, strict=True) if chance >= 0.5
        ] == expected

    def test_wells_say_how_many_images_show_each_pattern(self, counted: Path) -> None:
        wells = {row["Metadata_Well"]: row for row in pq.read_table(counted / "wells.parquet").to_pylist()}
        assert [wells[well]["patterns_broad"] for well in WELLS] == [0, 0, 0, 1, 2, 1]
        assert (wells["B05"]["patterns_broad_share"], wells["B07"]["patterns_broad_share"]) == (0.5, 1.0)
        assert (
            0 < wells["B05"]["patterns_broad_share_low"] < 0.5 < wells["B05"]["patterns_broad_share_high"] < 1
        )
        summary = json.loads((counted / "summary.json").read_text())
        assert (summary["patterns_bright"], summary["patterns_broad"]) == (10, 4)
