"""What the head says of a field: at once or by blocks, with gates, and what it doubts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.config import RunConfig, ViabilityConfig
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import ConfigFault, FieldFault, ModelFault, Reason
from cellcount_core.domain.scales import PlateNumbers
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import find_package
from cellcount_core.pipeline.field import PlanesKit, examine, planes_kit, prepare
from cellcount_core.pipeline.maps import network_planes
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.pipeline.rows import Examined
from cellcount_core.tasks.task import task_of
from cellcount_core.tasks.viability.plate_rule import ViabilityRule
from tests.plates import nuclear_field

SIDE = 420


@pytest.fixture(scope="module", params=["viability-fluorescence", "viability-live-dead"])
def kit(request: pytest.FixtureRequest) -> Iterator[PlanesKit]:
    package = find_package(request.param)
    engine = load_engine(package, resolve_engine(package, "auto", gpus=0), 1)
    with closing(planes_kit(package, engine, RunConfig(diameter=20.0, labels="tiff"))) as made:
        yield made


def planes(kit: PlanesKit, seed: int = 1) -> dict[str, NDArray[np.uint16]]:
    """36 cells: those of the left half are live, the others dead."""
    every = nuclear_field(20, 36, seed, SIDE)
    empty = np.random.default_rng(seed).normal(300, 40, every.shape).astype(np.uint16)
    left = np.arange(SIDE)[None, :] < SIDE // 2
    first, dead = kit.package.input.channels
    return {
        first: every if first == "all" else np.where(left, every, empty),
        dead: np.where(left, empty, every),
    }


def seen(kit: PlanesKit, um_per_px: float | None = None, seed: int = 1, **viability: object) -> Examined:
    run = kit.run.model_copy(update={"viability": ViabilityConfig.model_validate(viability)})
    return examine(replace(kit, run=run), Pixels(planes(kit, seed), um_per_px, 65535, ()))


def test_half_of_the_cells_are_live(kit: PlanesKit) -> None:
    found = seen(kit).found
    assert found.values["viability"] == pytest.approx(50, abs=3)
    assert found.count == pytest.approx(36, abs=1)
    assert (found.values["both"], found.values["neither"]) == (0, 0)
    assert Doubt.DEAD_OUTSIDE not in found.warnings


def test_blur_around_dead_cells_far_above_a_low_threshold_is_no_sign_of_swapped_channels(
    kit: PlanesKit,
) -> None:
    first, dead = kit.package.input.channels
    every = nuclear_field(20, 36, 1, SIDE)
    run = kit.run.model_copy(update={"viability": ViabilityConfig(thresholds={"dead": 32.0})})
    rng = np.random.default_rng(1)
    above = every.astype(np.float64) - float(np.median(every))
    blurred = np.maximum(above, 0) + 0.5 * cv2.GaussianBlur(np.maximum(above, 0), (0, 0), 8)
    shown = {
        first: every,
        dead: np.clip(300 + blurred + rng.normal(0, 5, every.shape), 0, 65535).astype(np.uint16),
    }
    found = examine(replace(kit, run=run), Pixels(shown, None, 65535, ())).found
    assert found.values["viability"] in (0.0, None)
    assert Doubt.DEAD_OUTSIDE not in found.warnings


def test_a_field_counted_by_blocks_says_the_same(kit: PlanesKit) -> None:
    small = kit.run.model_copy(update={"whole_limit": 65_536, "block": 256})
    whole, blocks = (
        examine(replace(kit, run=run), Pixels(planes(kit), None, 65535, ())) for run in (kit.run, small)
    )
    assert blocks.found.values["live"] == whole.found.values["live"]
    assert blocks.found.values["dead"] == whole.found.values["dead"]


def test_colours_of_pictures_are_those_of_the_classes(kit: PlanesKit) -> None:
    found = seen(kit).found
    assert found.labels is not None
    assert found.classes is not None
    numbers = np.unique(found.labels[:, : SIDE // 2 - 20])[1:]
    assert set(found.classes[numbers - 1].tolist()) == {0}
    assert np.bincount(found.classes, minlength=4).tolist() == [
        found.values[name] for name in ("live", "dead", "both", "neither")
    ]


def test_gates_leave_out_objects_from_numbers_labels_and_rows(kit: PlanesKit) -> None:
    every = seen(kit, 0.5)
    assert every.found.objects is not None
    columns, _ = every.found.objects.rows()
    middle = float(np.median(np.asarray(columns["diameter_um"], np.float64)))
    gated = seen(kit, 0.5, min_diameter=f"{middle:.4f}um").found
    assert gated.objects is not None
    rows, moments = gated.objects.rows()
    assert 0 < gated.count < every.found.count
    assert gated.values["gated_out"] == every.found.count - gated.count
    assert np.asarray(rows["Metadata_ObjectNumber"]).tolist() == list(range(1, gated.count + 1))
    assert np.unique(gated.labels).tolist() == list(range(gated.count + 1))
    assert moments["diameter_um"].n == gated.count
    assert moments["diameter_um"].low >= middle - 0.001


def test_a_gate_that_nothing_passes_leaves_an_empty_field(kit: PlanesKit) -> None:
    found = seen(kit, min_diameter="200px").found
    assert (found.count, found.values["viability"], found.values["viability_n"]) == (0, None, 0)
    assert found.values["gated_out"] == pytest.approx(36, abs=1)
    assert Doubt.ALL_GATED in found.warnings
    assert Doubt.NOTHING_FOUND not in seen(kit, min_diameter="200px").warnings


def test_what_gates_leave_out_was_found(kit: PlanesKit) -> None:
    every = seen(kit).found
    assert every.objects is not None
    columns, _ = every.objects.rows()
    [diameter] = [name for name in columns if name.endswith("_AreaShape_EquivalentDiameter")]
    second = np.sort(np.asarray(columns[diameter], np.float64))[-2]
    gated = seen(kit, min_diameter=f"{second:.4f}px")
    assert gated.found.count in (1, 2)
    assert not {Doubt.FEW_FOUND, Doubt.NOTHING_FOUND} & set(gated.warnings)


def test_no_pixel_size_is_told_where_it_is_needed(kit: PlanesKit) -> None:
    with pytest.raises(FieldFault) as fault:
        seen(kit, min_diameter="7um")
    assert fault.value.reason is Reason.NO_PIXEL_SIZE
    assert Doubt.VOLUME_UNKNOWN in seen(kit, chamber="improved_neubauer").found.warnings
    assert seen(kit, chamber="improved_neubauer").found.values["cells_per_ml"] is None
    assert Doubt.VOLUME_UNKNOWN not in seen(kit, chamber="improved_neubauer", squares=1).found.warnings
    assert seen(kit).found.values["diameter_histogram"] is None


def test_cells_wall_to_wall_are_too_dense(kit: PlanesKit) -> None:
    first, dead = kit.package.input.channels
    crowded = nuclear_field(20, 225, 3, 340)
    both = {first: crowded, dead: np.random.default_rng(1).normal(300, 40, crowded.shape).astype(np.uint16)}
    assert Doubt.TOO_DENSE in examine(kit, Pixels(both, None, 65535, ())).found.warnings


def test_an_empty_field_is_a_zero_without_a_viability(kit: PlanesKit) -> None:
    rng = np.random.default_rng(1)
    nothing = {role: rng.normal(300, 20, (256, 256)).astype(np.uint16) for role in kit.package.input.channels}
    found = examine(kit, Pixels(nothing, 0.65, 65535, ())).found
    assert (found.count, found.values["live"], found.values["viability"]) == (0, 0, None)
    assert found.warnings == ()


@pytest.mark.parametrize("shown", ["zeros", "white", "overexposed"])
def test_no_cell_is_told_by_an_image_that_shows_nothing(kit: PlanesKit, shown: str) -> None:
    both = planes(kit)
    _, dead = kit.package.input.channels
    blank = np.full_like(both[dead], 0 if shown == "zeros" else 65535)
    if shown == "overexposed":
        blank[:, : SIDE // 25] = both[dead][:, : SIDE // 25]
    found = examine(kit, Pixels({**both, dead: blank}, None, 65535, ())).found
    assert found.count > 0
    assert (found.values["live"], found.values["dead"], found.values["viability"]) == (0, 0, None)
    assert Doubt.ROLE_BLANK in found.warnings


def test_a_stain_that_shines_into_both_channels_is_said(kit: PlanesKit) -> None:
    if "live" not in kit.package.input.channels:
        pytest.skip("only the roles live and dead can both be positive")
    every = nuclear_field(20, 36, 1, SIDE)
    shared = (300 + 0.4 * (every.astype(np.float64) - 300)).clip(0).astype(np.uint16)
    found = examine(kit, Pixels({"live": shared, "dead": every}, None, 65535, ())).found
    assert found.values["both"] == found.count > 30
    assert Doubt.BOTH_OR_NEITHER in found.warnings
    assert Doubt.BOTH_OR_NEITHER not in seen(kit).found.warnings


def test_one_population_is_said_of_every_role_that_tells_the_class(kit: PlanesKit) -> None:
    first, dead = kit.package.input.channels
    every = nuclear_field(20, 36, 1, SIDE)
    shared = (300 + 0.4 * (every.astype(np.float64) - 300)).clip(0).astype(np.uint16)
    rule = ViabilityRule(kit.package, kit.run)
    table = rule.seen(prepare(kit, Pixels({first: every, dead: shared}, None, 65535, ())))
    _, warnings = rule.found("P", {"": table})
    assert [warning.rpartition("(")[2] for warning in warnings] == [
        f"--threshold {role}=VALUE)" for role in (first, dead) if role != "all"
    ]


def numbers_of(kit: PlanesKit, *fields: dict[str, NDArray[np.generic]], **viability: object) -> PlateNumbers:
    """What is found out about a plate of these fields."""
    run = kit.run.model_copy(update={"viability": ViabilityConfig.model_validate(viability)})
    rule = ViabilityRule(kit.package, run)
    tables = [rule.seen(prepare(replace(kit, run=run), Pixels(each, None, 65535, ()))) for each in fields]
    numbers, warnings = rule.found("P", {"": np.concatenate(tables)})
    assert len(warnings) == (len({each["dead"].dtype for each in fields}) > 1)
    return PlateNumbers("P", numbers, len(fields), 0)


@pytest.mark.parametrize("settings", [{}, {"thresholds": {"dead": 200, "live": 200}}])
def test_a_field_in_other_units_than_its_plates_thresholds_fails(
    kit: PlanesKit, settings: dict[str, dict[str, float]]
) -> None:
    given = {
        name: {role: value for role, value in each.items() if role in kit.package.input.channels}
        for name, each in settings.items()
    }
    both = planes(kit)
    small = {role: (plane // 257).astype(np.uint8) for role, plane in both.items()}
    found = numbers_of(kit, both, planes(kit, 2), small, **given)
    run = kit.run.model_copy(update={"viability": ViabilityConfig.model_validate(given)})
    of_plate = replace(kit, run=run, plate_numbers={"P": found})
    assert examine(of_plate, Pixels(both, None, 65535, ()), "P").found.values["viability"] == pytest.approx(
        50, abs=3
    )
    with pytest.raises(
        FieldFault, match="has 8 bits, and the thresholds of its plate are in units of 16"
    ) as fault:
        examine(of_plate, Pixels(small, None, 255, ()), "P")
    assert fault.value.reason is Reason.WRONG_DTYPE


def test_a_threshold_that_no_cell_can_reach_is_refused(kit: PlanesKit) -> None:
    with pytest.raises(
        ConfigFault, match="the threshold 70000 of the role 'dead' is above all that an image of 16"
    ):
        numbers_of(kit, planes(kit), thresholds={"dead": 70000})
    with pytest.raises(FieldFault, match="the threshold 70000"):
        seen(kit, thresholds={"dead": 70000})


def test_the_brighter_of_two_stains_counts_in_its_own_units() -> None:
    spec = find_package("viability-live-dead").input
    bright, dim = nuclear_field(20, 9, 1, 150), (nuclear_field(20, 9, 2, 150) // 10).astype(np.uint16)
    [joined] = network_planes([bright, dim], spec)
    assert joined.dtype == np.float32
    for own in (bright, dim):
        peak = np.unravel_index(int(np.argmax(own)), own.shape)
        assert joined[peak] > 0.7
    only = find_package("viability-fluorescence").input
    assert network_planes([bright, dim], only)[0] is bright


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "viability needs one section of instances, boxes (got 0)"),
        ({"boxes": {}, "classes": {"a": "alive"}}, "'alive' is no class; did you mean 'live'"),
        ({"boxes": {}, "classes": {"a": "live"}}, "must say which classes are live and dead"),
    ],
)
def test_a_section_that_does_not_tell_live_from_dead_is_refused(
    section: dict[str, object], said: str
) -> None:
    package = replace(find_package("viability-fluorescence"), section=section)
    with pytest.raises(ModelFault) as fault:
        task_of(package).head(package)
    assert said in str(fault.value)


def test_channels_that_are_no_roles_are_refused() -> None:
    package = find_package("viability-fluorescence")
    odd = replace(package, input=replace(package.input, channels=("nuclei", "dead")))
    with pytest.raises(ModelFault, match="its channels must be the roles all and dead, or live and dead"):
        task_of(odd).head(odd)
