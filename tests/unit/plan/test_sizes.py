"""Single images' sizes become one size for what belongs together; a sample of a plan does not depend on how it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellcount_core.domain.errors import ConfigFault, Reason
from cellcount_core.domain.fields import FieldKey, PlannedField, Source
from cellcount_core.plan.sizes import (
    FIELDS,
    FIELDS_A_PLATE,
    PLATES,
    ImageSize,
    Sampler,
    contradicting,
    contradictions,
    pool_sizes,
    scale_warnings,
)


def image(diameter: float | None, objects: int = 20, plate: str = "P", side: int = 512) -> ImageSize:
    return ImageSize(plate, side, side, diameter, objects)


def test_a_plate_has_the_size_of_most_of_its_objects() -> None:
    [pool] = pool_sizes([image(20.0, 50), image(21.0, 60), image(22.0, 40), image(27.0, 1), image(None, 0)])
    assert (pool.diameter_px, pool.images, pool.objects) == (21.0, 4, 151)
    assert (pool.low_px, pool.high_px) == (20.0, 27.0)
    assert scale_warnings([pool]) == []


@given(st.permutations([image(20.0, 3), image(24.0, 5), image(23.0, 7), image(21.5, 2)]))
def test_the_order_of_the_images_does_not_matter(images: list[ImageSize]) -> None:
    assert pool_sizes(images)[0].diameter_px == 23.0


def test_images_of_another_size_or_plate_are_another_pool() -> None:
    pools = pool_sizes([image(20.0), image(40.0, side=1024), image(80.0, plate="Q")])
    assert [(pool.plate, pool.width_px, pool.diameter_px) for pool in pools] == [
        ("P", 512, 20.0),
        ("P", 1024, 40.0),
        ("Q", 512, 80.0),
    ]


def test_a_folder_of_two_magnifications_is_told_and_has_no_size() -> None:
    [pool] = pool_sizes([image(20.0)] * 4 + [image(40.0)] * 4)
    assert pool.diameter_px is None
    assert "object sizes disagree (20 to 40 px in 8 images)" in scale_warnings([pool])[0]


def test_a_diameter_given_is_contradicted_where_every_image_shows_another_size() -> None:
    seen = [image(20.0, 50), image(26.0, 4), image(None, 0)]
    [shown] = contradicting(seen, 12.0)
    assert (shown.plate, shown.diameter_px, shown.images, shown.objects) == ("P", 20.0, 2, 54)
    assert len(contradicting(seen, 42.0)) == 1
    for agrees in (13.0, 20.0, 32.0, 41.0):
        assert contradicting(seen, agrees) == ()


def test_a_diameter_given_is_not_contradicted_by_few_objects_nor_by_images_on_both_sides() -> None:
    assert contradicting([image(20.0, 4)], 5.0) == ()
    assert contradicting([image(None, 0)], 5.0) == ()
    assert contradicting([image(20.0), image(90.0)], 42.0) == ()
    assert [one.plate for one in contradicting([image(20.0), image(9.0, plate="Q")], 10.0)] == ["P"]


def test_what_contradicts_a_diameter_is_told_in_one_line_with_the_first_plates() -> None:
    assert contradictions((), 10.0) == []
    shown = contradicting([image(20.0 + number, plate=f"P{number}") for number in range(5)], 10.0)
    [told] = contradictions(shown, 10.0)
    assert "--diameter 10 is more than 1.6 times off" in told
    assert "20 px in plate 'P0' (20 objects in 1 image), 21 px" in told
    assert "and 2 more plates" in told


def test_one_odd_image_of_few_objects_does_not_split_a_plate() -> None:
    [pool] = pool_sizes([image(20.0, 50)] * 8 + [image(95.0, 2)])
    assert pool.diameter_px == 20.0


def test_of_two_images_none_is_an_outlier() -> None:
    [pool] = pool_sizes([image(20.0, 50), image(60.0, 2)])
    assert pool.diameter_px is None


def test_a_plate_without_objects_is_told_where_another_has_some() -> None:
    pools = pool_sizes([image(None, 0), image(20.0, plate="Q")])
    assert [pool.diameter_px for pool in pools] == [None, 20.0]
    assert "no object size found" in scale_warnings(pools)[0]


def test_a_sample_without_any_object_is_told_and_counted_all_the_same() -> None:
    pools = pool_sizes([image(None, 0)] * 3 + [image(None, 0, plate="Q")])
    assert [pool.diameter_px for pool in pools] == [None, None]
    [warning] = scale_warnings(pools)
    assert "they are empty" in warning and "model's scale" in warning and "--diameter PX" in warning


def test_a_size_of_no_cells_stops_with_the_ways_out_and_beside_others_is_told() -> None:
    for absurd in (3.2, 190.0):
        with pytest.raises(
            ConfigFault, match=r"512 x 512 px \(20 objects in 1 image\).*--diameter 25.*model"
        ):
            pool_sizes([image(absurd)])
        warnings = scale_warnings(pool_sizes([image(absurd), image(20.0, plate="Q")]))
        assert len(warnings) == 1 and "'P'" in warnings[0] and "do not look like cells" in warnings[0]


def test_a_size_that_rests_on_few_objects_is_told_with_its_doubt() -> None:
    [warning] = scale_warnings(pool_sizes([image(20.0, 6)]))
    assert "20.0 px rests on 6 objects in 1 image: give --diameter PX" in warning
    assert not scale_warnings(pool_sizes([image(20.0, 6), image(21.0, 7)]))


def test_how_far_the_sizes_of_a_plate_reach_is_that_of_most_images() -> None:
    images = [ImageSize("P", 512, 512, 20.0, 30, 12.0, 26.0)] * 2 + [
        ImageSize("P", 512, 512, 21.0, 20, 14.0, 90.0)
    ]
    [pool] = pool_sizes(images)
    assert (pool.small_px, pool.large_px) == (12.0, 26.0)


def test_a_plate_whose_size_one_image_tells_keeps_the_scale_that_this_image_is_counted_at() -> None:
    alone = ImageSize("P", 512, 512, 20.0, 30, 12.0, 26.0, factor=1.25)
    assert [pool.factor for pool in pool_sizes([alone, image(None, 0)])] == [1.25]
    assert [pool.factor for pool in pool_sizes([alone, alone])] == [None]


def planned(plate: int, number: int, reason: Reason | None = None) -> PlannedField:
    key = FieldKey(f"P{plate:04d}", f"W{number:04d}", 1, 1)
    return PlannedField(key, (Source("", 0, f"{plate}/{number}.tif", size=1),), reason)


def sampled(fields: list[PlannedField]) -> list[PlannedField]:
    sampler = Sampler()
    assert list(sampler.watch(fields)) == fields
    return sampler.fields()


def test_a_small_plate_is_sampled_whole_and_what_cannot_be_counted_is_not() -> None:
    fields = [planned(1, number) for number in range(10)]
    fields[3] = planned(1, 3, Reason.ABSENT)
    assert sampled(fields) == [field for field in fields if field.reason is None]


def test_the_sample_is_bounded_for_large_plates_and_many_of_them() -> None:
    assert len(sampled([planned(1, number) for number in range(500)])) == FIELDS_A_PLATE
    many = sampled([planned(plate, number) for plate in range(3 * PLATES) for number in range(20)])
    assert len({field.key.plate for field in many}) == PLATES
    assert len(many) <= FIELDS


def test_a_plate_keeps_its_sample_whatever_other_plates_there_are() -> None:
    alone = sampled([planned(7, number) for number in range(100)])
    beside = sampled([planned(plate, number) for plate in (3, 7) for number in range(100)])
    assert [field for field in beside if field.key.plate == "P0007"] == alone
