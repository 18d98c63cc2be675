"""The shipped network tells how large objects are, over a wide range, and says nothing where there is nothing."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.scales import PlateSize, ScaleSource
from cellcount_core.evaluation.evaluate import count_plane, counting_of
from cellcount_core.evaluation.suites.empty import empty_image
from cellcount_core.evaluation.suites.made_up import make
from cellcount_core.models.engines import Engine, load_engine, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.field import planes_kit
from cellcount_core.tasks.instances.task import section_of
from cellcount_core.tasks.object_size.factor import (
    OWN_SIZE,
    UNKNOWN_SIZE,
    PlateSizes,
    counting_factor,
    field_scale,
)
from cellcount_core.tasks.task import NO_ESTIMATE, SizeEstimate, task_of
from tests.fields import size_of
from tests.plates import nuclear_field


@cache
def nuclei() -> tuple[Package, Engine]:
    package = find_package("nuclei")
    return package, load_engine(package, resolve_engine(package, "auto", gpus=0), 1)


@pytest.mark.parametrize("diameter", [8, 12, 20, 35, 60, 120])
def test_the_size_of_nuclei_is_told_from_8_to_120_px(diameter: float) -> None:
    package, engine = nuclei()
    found = size_of(nuclear_field(diameter, 16, seed=diameter), package, engine)
    assert found.diameter_px is not None
    assert max(found.diameter_px / diameter, diameter / found.diameter_px) < 1.25
    assert found.objects >= 8


@pytest.mark.parametrize("diameter", [20, 60])
def test_three_nuclei_in_a_large_field_are_enough(diameter: float) -> None:
    package, engine = nuclei()
    found = size_of(nuclear_field(diameter, 3, seed=1, side=900), package, engine)
    assert found.diameter_px is not None
    assert max(found.diameter_px / diameter, diameter / found.diameter_px) < 1.3


def test_an_image_without_objects_tells_no_size() -> None:
    package, engine = nuclei()
    noise = np.random.default_rng(5).normal(1000, 30, (300, 300)).astype(np.uint16)
    assert size_of(noise, package, engine) == NO_ESTIMATE


def test_hot_pixels_and_noise_of_rows_tell_no_size() -> None:
    for number in (169, 184):
        _, plane = empty_image(number)
        assert size_of(plane, *nuclei()) == NO_ESTIMATE


def test_a_package_without_a_scale_tells_none() -> None:
    package = find_package("threshold")
    engine = load_engine(package, "smooth", 1)
    assert size_of(nuclear_field(20, 9, seed=2), package, engine) == SizeEstimate(None, 0, 0.0)


def test_parts_of_nuclei_at_the_edge_count_and_tell_no_size() -> None:
    package, engine = nuclei()
    package = with_separator(package, edge_area=4.0, edge_peak=0.5)
    whole = with_separator(package, edge_area=None)
    plane = nuclear_field(20, 36, seed=4)
    cut = np.ascontiguousarray(plane[:, 29:])
    counts = []
    for each in (package, whole):
        with closing(planes_kit(each, engine, counting_of("model"))) as kit:
            counts.append(count_plane(kit, cut).found.count)
    assert counts[0] > counts[1]
    assert size_of(cut, package, engine) == size_of(cut, whole, engine)


def with_separator(package: Package, **numbers: float | None) -> Package:
    separator = {**section_of(package).separator, **numbers}
    return replace(package, section={**package.section, "separator": separator})


def scale_of(
    plane: NDArray[np.uint16], diameter: object, pools: PlateSizes, plate: str = "P"
) -> tuple[object, ...]:
    package, engine = nuclei()
    run = RunConfig.model_validate({"diameter": diameter})
    scale, warnings = field_scale(
        run, package, pools, plate, plane.shape, None, lambda: size_of(plane, package, engine)
    )
    return scale.source, scale.diameter_px, warnings


def test_a_field_goes_by_what_was_given_then_by_its_pool_then_by_itself() -> None:
    plane = nuclear_field(30, 9, seed=3)
    height, width = plane.shape
    pools = {("P", height, width): PlateSize("P", height, width, 27.0, 12, 300, 25.0, 29.0)}
    assert scale_of(plane, "model", pools) == (ScaleSource.MODEL, None, ())
    assert scale_of(plane, 25, pools) == (ScaleSource.GIVEN, 25.0, ())
    assert scale_of(plane, "auto", pools) == (ScaleSource.POOL, 27.0, ())
    source, found, warnings = scale_of(plane, "auto", pools, plate="Q")
    assert (source, warnings) == (ScaleSource.IMAGE, (OWN_SIZE,))
    assert isinstance(found, float)
    assert 24 < found < 37


def test_a_field_of_a_pool_that_disagrees_goes_by_itself_and_an_empty_one_as_it_is() -> None:
    plane = nuclear_field(30, 9, seed=3)
    height, width = plane.shape
    pools = {("P", height, width): PlateSize("P", height, width, None, 12, 300, 15.0, 60.0)}
    assert scale_of(plane, "auto", pools)[0] == ScaleSource.IMAGE
    assert scale_of(np.full_like(plane, 300), "auto", pools) == (ScaleSource.UNKNOWN, None, (UNKNOWN_SIZE,))


@pytest.mark.slow
def test_an_estimate_does_not_look_at_more_than_a_bounded_number_of_pixels() -> None:
    package, engine = nuclei()
    seen: list[int] = []

    def maps(canvas: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(canvas.shape[0] * canvas.shape[1])
        return engine.run(canvas[None])[0]

    task_of(package).head(package).size((nuclear_field(40, 400, seed=7, side=2400),), maps)
    assert sum(seen) <= 6 * 528**2


@pytest.mark.parametrize("number", [10, 100])
def test_a_colony_of_small_nuclei_is_not_one_large_nucleus(number: int) -> None:
    image = make(8, number, "confluent", "dark")
    told = size_of(image.plane, *nuclei()).diameter_px
    assert told is not None
    assert 0.8 <= told / image.diameter_px <= 1.25


def test_small_objects_are_brought_into_what_the_network_sees_as_far_as_the_large_ones_stay_in_it() -> None:
    assert counting_factor(20.0, 25.0, None, None) == 0.8
    assert counting_factor(20.0, 25.0, 18.0, 30.0) == 0.8
    assert counting_factor(20.0, 60.0, 15.0, 66.0) == pytest.approx(13 / 15)
    assert counting_factor(20.0, 60.0, 6.0, 66.0) == pytest.approx(80 / 66)
    assert counting_factor(20.0, 20.0, 5.0, 120.0) == 1.0


def test_a_few_large_nuclei_are_not_told_by_pieces_of_them() -> None:
    for number, arrangement, background in ((3, "confluent", "dark"), (10, "sparse", "uneven")):
        image = make(120, number, arrangement, background)
        told = size_of(image.plane, *nuclei()).diameter_px
        assert told is not None
        assert told == pytest.approx(image.diameter_px, rel=0.1)
