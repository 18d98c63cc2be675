from __future__ import annotations

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import Reason
from cellcount_core.domain.fields import FieldKey, Source
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.layouts.pattern import PatternSettings
from tests.unit.plan.listings import MemoryStore, plan_of, planned, store_of


def imagexpress(**settings: object) -> RunConfig:
    return RunConfig.model_validate(
        {"layout": ImageXpressSettings(), "channels": {"nuclei": "w1"}, **settings}
    )


def sources(keys: list[str], run: RunConfig) -> list[str]:
    (field,) = planned(keys, run)
    assert field.reason is None
    return [source.key for source in field.sources]


def test_only_files_of_counted_and_measured_channels_are_read() -> None:
    keys = ["p_A01_s1_w1.TIF", "p_A01_s1_w2.TIF", "p_A01_s1_w3.TIF"]
    assert sources(keys, imagexpress()) == ["p_A01_s1_w1.TIF"]
    assert sources(keys, imagexpress(measure=("w1", "w3"))) == ["p_A01_s1_w1.TIF", "p_A01_s1_w3.TIF"]


def test_a_source_carries_what_the_store_told() -> None:
    (field,) = planned(["p_A01_s1_w1.TIF"], imagexpress())
    assert field.key == FieldKey("p", "A01", 1, 1)
    assert field.sources == (Source("w1", 0, "p_A01_s1_w1.TIF", -1, 6, "tag-p_A01_s1_w1.TIF"),)


def test_a_field_without_the_counted_channel_is_missing_and_says_what_is_there() -> None:
    first, second = planned(["p_A01_s1_w1.TIF", "p_A02_s1_w2.TIF"], imagexpress())
    assert first.reason is None
    assert (second.reason, second.sources) == (Reason.CHANNEL_MISSING, ())
    assert second.detail == "no file of channel 'w1'; there are 'w2'"


def test_a_field_without_a_channel_that_is_only_measured_is_still_counted() -> None:
    run = imagexpress(measure=("w2",))
    first, second = planned(["p_A01_s1_w1.TIF", "p_A02_s1_w1.TIF", "p_A02_s1_w2.TIF"], run)
    assert first.reason is None
    assert [source.channel for source in first.sources] == ["w1"]
    assert [source.channel for source in second.sources] == ["w1", "w2"]


def test_two_files_for_one_field_and_channel_are_ambiguous_and_both_named() -> None:
    (field,) = planned(["p_A01_s1_w1.TIF", "p_A01_s1_w1.tif"], imagexpress())
    assert field.reason is Reason.AMBIGUOUS_FILE
    assert field.detail == "p_A01_s1_w1.TIF and p_A01_s1_w1.tif both claim channel 'w1', plane 0"


def test_two_files_of_a_channel_that_nobody_asked_for_harm_nothing() -> None:
    keys = ["p_A01_s1_w1.TIF", "p_A01_s1_w2.TIF", "p_A01_s1_w2.tif"]
    assert sources(keys, imagexpress()) == ["p_A01_s1_w1.TIF"]


def test_a_file_of_no_bytes_is_known_when_planning() -> None:
    store = MemoryStore({"p_A01_s1_w1.TIF": b"", "p_A02_s1_w1.TIF": b"x"})
    with plan_of(store, imagexpress()) as plan:
        first, second = (field for shard in plan.shards() for field in shard.fields)
    assert (first.reason, first.detail) == (Reason.EMPTY_FILE, "p_A01_s1_w1.TIF: has 0 bytes")
    assert second.reason is None


STACK = ["p_A01_s1_w1.TIF", "ZStep_1/p_A01_s1_w1.TIF", "ZStep_2/p_A01_s1_w1.TIF"]


@pytest.mark.parametrize(
    ("z", "expected"),
    [("max", STACK[:1]), ("mean", STACK[1:]), ("first", STACK[1:2]), (2, STACK[2:]), (0, STACK[:1])],
)
def test_the_instruments_projection_stands_for_the_maximum_and_planes_for_all_else(
    z: object, expected: list[str]
) -> None:
    assert sources(STACK, imagexpress(z=z)) == expected


@pytest.mark.parametrize(("z", "expected"), [("max", STACK[1:]), ("first", STACK[1:2]), (1, STACK[1:2])])
def test_planes_without_a_projection_are_projected_here(z: object, expected: list[str]) -> None:
    assert sources(STACK[1:], imagexpress(z=z)) == expected


@pytest.mark.parametrize("z", ["max", "mean", "first", 3])
def test_a_single_image_serves_every_choice_of_planes(z: object) -> None:
    assert sources(STACK[:1], imagexpress(z=z)) == STACK[:1]


def test_a_plane_that_is_not_there_is_missing_and_says_which_are() -> None:
    (field,) = planned(STACK, imagexpress(z=7))
    assert field.reason is Reason.ABSENT
    assert field.detail == "no file of channel 'w1', plane 7 (run.z); planes there are: 0, 1, 2"


def test_plane_0_of_another_instrument_is_a_plane_like_any() -> None:
    layout = PatternSettings(pattern=r"(?P<well>[A-H]\d\d)_z(?P<plane>\d)")
    keys = ["A01_z0.tif", "A01_z1.tif"]
    assert sources(keys, RunConfig(layout=layout)) == keys
    assert sources(keys, RunConfig(layout=layout, z="first")) == keys[:1]


def test_the_channel_is_left_to_the_file_where_names_carry_none() -> None:
    run = RunConfig(channels={"nuclei": "DAPI"}, measure=("GFP",))
    (field,) = planned(["a.tif"], run)
    assert [(source.channel, source.key) for source in field.sources] == [("", "a.tif")]


def test_a_broken_link_is_an_absent_file() -> None:
    class Dangling(MemoryStore):
        def list(self, prefix: str = ""):  # type: ignore[no-untyped-def]
            for batch in super().list(prefix):
                yield [type(listed)(listed.key, 0, "") for listed in batch]

    with plan_of(Dangling(store_of(["a.tif"]).objects), RunConfig()) as plan:
        (field,) = (field for shard in plan.shards() for field in shard.fields)
    assert field.reason is Reason.ABSENT
    assert "a.tif: leads nowhere" in field.detail
