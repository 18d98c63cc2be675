"""Fields from the rows of a listing: which channels are counted, which fields are expected, and what a field has."""

from __future__ import annotations

import pytest

from cellcount_core.config import ExpectGrid, RunConfig
from cellcount_core.domain.errors import ConfigFault, Reason
from cellcount_core.domain.fields import FieldKey, Source
from cellcount_core.images.imagefile import COLOURS
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.layouts.pattern import PatternSettings
from cellcount_core.layouts.table import TableSettings
from cellcount_core.plan.fields import ChannelChoice, select_channels
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


ROLES = ("nuclei",)


def test_the_only_channel_is_counted_and_measured_unasked() -> None:
    assert select_channels(RunConfig(), ROLES, {"w1"}) == ChannelChoice(("w1",), ("w1",))
    assert select_channels(RunConfig(), ROLES, {""}) == ChannelChoice(("",), ("",))


def test_one_of_several_channels_must_be_chosen() -> None:
    with pytest.raises(ConfigFault, match=r"several channels \('w1', 'w2'\).*--channel NAME"):
        select_channels(RunConfig(), ROLES, {"w2", "w1"})


def test_the_channel_asked_for_is_counted_and_those_asked_for_are_measured() -> None:
    run = RunConfig(channels={"nuclei": "w2"}, measure=("w1", "w2"))
    assert select_channels(run, ROLES, {"w1", "w2"}) == ChannelChoice(("w2",), ("w1", "w2"))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            RunConfig(channels={"nuclei": "w11"}),
            "run.channels.nuclei: no file of channel 'w11'; did you mean 'w1'",
        ),
        (RunConfig(channels={"nuclei": "w1"}, measure=("DAPI",)), "run.measure: no file of channel 'DAPI'"),
        (RunConfig(channels={"nucleus": "w1"}), "no role 'nucleus'; did you mean 'nuclei'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(run: RunConfig, message: str) -> None:
    with pytest.raises(ConfigFault) as fault:
        select_channels(run, ROLES, {"w1", "w2"})
    assert message in str(fault.value)


def test_measuring_another_channel_does_not_drop_the_counted_one() -> None:
    run = RunConfig(channels={"nuclei": "w1"}, measure=("w2",))
    assert select_channels(run, ROLES, {"w1", "w2"}).measured == ("w1", "w2")


def test_a_name_is_left_to_the_file_where_file_names_carry_no_channel() -> None:
    run = RunConfig(channels={"nuclei": "DAPI"}, measure=("GFP",))
    assert select_channels(run, ROLES, {""}) == ChannelChoice(("DAPI",), ("DAPI", "GFP"))


def test_a_model_of_two_roles_needs_a_channel_for_each() -> None:
    with pytest.raises(ConfigFault, match=r"give run\.channels\.membrane"):
        select_channels(RunConfig(channels={"nuclei": "w1"}), ("nuclei", "membrane"), {"w1", "w2"})
    run = RunConfig(channels={"nuclei": "w1", "membrane": "w2"})
    assert select_channels(run, ("nuclei", "membrane"), {"w1", "w2"}).counted == ("w1", "w2")


def test_small_and_capital_letters_do_not_matter_where_one_channel_alone_is_meant() -> None:
    run = RunConfig(channels={"nuclei": "dapi"}, measure=("gfp",))
    assert select_channels(run, ROLES, {"DAPI", "GFP"}) == ChannelChoice(("DAPI",), ("DAPI", "GFP"))
    assert select_channels(run, ROLES, {"dapi", "DAPI", "GFP"}).counted == ("dapi",)
    with pytest.raises(
        ConfigFault, match=r"no file of channel 'dapi'; did you mean '(DAPI|Dapi)'\? there are 'DAPI', 'Dapi'"
    ):
        select_channels(RunConfig(channels={"nuclei": "dapi"}), ROLES, {"Dapi", "DAPI"})
    with pytest.raises(ConfigFault, match="did you mean 'DAPI'"):
        select_channels(RunConfig(channels={"nuclei": "dapi2"}), ROLES, {"GFP", "DAPI"})


def test_a_channel_named_twice_in_other_letters_is_measured_once() -> None:
    run = RunConfig(channels={"nuclei": "dapi"}, measure=("DAPI", "Dapi"))
    assert select_channels(run, ROLES, {"DAPI", "GFP"}).measured == ("DAPI",)


def test_a_model_of_colours_takes_them_from_the_colour_files_there_are() -> None:
    assert select_channels(RunConfig(), COLOURS, {""}) == ChannelChoice(COLOURS, COLOURS, "")
    assert select_channels(RunConfig(), COLOURS, {"w1"}) == ChannelChoice(COLOURS, COLOURS, "w1")
    assert select_channels(RunConfig(), COLOURS, {"Red", "Green", "Blue", "w4"}) == ChannelChoice(
        ("Red", "Green", "Blue"), ("Red", "Green", "Blue")
    )
    asked = RunConfig(channels=dict.fromkeys(COLOURS, "w2"), measure=("w1",))
    assert select_channels(asked, COLOURS, {"w1", "w2"}) == ChannelChoice(COLOURS, (*COLOURS, "w1"), "w2")


def test_a_model_of_colours_asks_which_files_hold_them() -> None:
    with pytest.raises(
        ConfigFault, match=r"red, green and blue of colour images, .*'w1', 'w2'.*--channel NAME"
    ):
        select_channels(RunConfig(), COLOURS, {"w2", "w1"})
    with pytest.raises(ConfigFault, match=r"run\.channels: no file of channel 'w3'"):
        select_channels(RunConfig(channels=dict.fromkeys(COLOURS, "w3")), COLOURS, {"w1", "w2"})


def test_colours_are_looked_for_within_their_files_and_other_channels_beside_them() -> None:
    keys = [f"P/P_A01_s1_w{number}.TIF" for number in (1, 2)]
    run = RunConfig(layout=ImageXpressSettings(), channels=dict.fromkeys(COLOURS, "w2"), measure=("w1",))
    with plan_of(store_of(keys), run, roles=COLOURS) as plan:
        [field] = [field for shard in plan.shards() for field in shard.fields]
    assert {(source.key, source.channel) for source in field.sources} == {(keys[0], "w1"), (keys[1], "")}
    assert field.reason is None


KEYS = [
    "p_A01_s1_w1.TIF", "p_A01_s2_w1.TIF", "p_B02_s1_w1.TIF",
    "TimePoint_2/p_A01_s1_w1.TIF", "q_A01_s1_w1.TIF",
]  # fmt: skip


def run(expect: object) -> RunConfig:
    return RunConfig.model_validate({"layout": ImageXpressSettings(), "expect": expect})


def missing(expect: object) -> list[tuple[str, str, int, int]]:
    fields = planned(KEYS, run(expect))
    keys = [field.key for field in fields]
    assert keys == sorted(set(keys))
    absent = [field for field in fields if field.reason is not None]
    assert all(field.reason is Reason.ABSENT and "run.expect" in field.detail for field in absent)
    assert len(fields) - len(absent) == len(KEYS)
    return [(field.key.plate, field.key.well, field.key.site, field.key.timepoint) for field in absent]


def test_only_what_was_seen_is_expected_unless_asked() -> None:
    assert missing("observed") == []


def test_a_rectangle_expects_every_well_site_and_time_point_of_its_plate() -> None:
    assert missing("rectangular") == [
        ("p", "A01", 2, 2), ("p", "B02", 1, 2), ("p", "B02", 2, 1), ("p", "B02", 2, 2),
    ]  # fmt: skip


def test_a_grid_expects_every_well_of_the_plate() -> None:
    found = missing(ExpectGrid(wells=6, sites=(1, 2)))
    assert len(found) == (6 * 2 * 2 - 4) + (6 * 2 - 1)
    assert ("q", "B03", 2, 1) in found


def test_a_field_outside_the_grid_is_counted_and_told() -> None:
    grid = ExpectGrid(wells=6, sites=(1,))
    with plan_of(store_of([*KEYS, "p_C04_s1_w1.TIF"]), run(grid)) as plan:
        assert [text for text in plan.summary.warnings if text.startswith("2 fields lie outside")]


def test_a_file_that_the_manifest_names_and_that_is_not_there_is_missing() -> None:
    manifest = b"key,well,channel\na.tif,A01,w1\nlost.tif,A02,w1\n"
    store = MemoryStore({"m.csv": manifest, "a.tif": b"x", "b.tif": b"x"})
    with plan_of(store, RunConfig(layout=TableSettings(manifest="m.csv"))) as plan:
        first, second = (field for shard in plan.shards() for field in shard.fields)
    assert first.reason is None
    assert (second.reason, second.detail) == (Reason.ABSENT, "lost.tif: is not there")
    assert second.sources[0].key == "lost.tif"
    assert plan.summary.ignored == {"not named by the manifest": 2}


def test_a_file_that_is_only_measured_and_not_there_is_left_out() -> None:
    manifest = b"key,well,channel\na.tif,A01,w1\nlost.tif,A01,w2\n"
    store = MemoryStore({"m.csv": manifest, "a.tif": b"x"})
    run = RunConfig(layout=TableSettings(manifest="m.csv"), channels={"nuclei": "w1"}, measure=("w1", "w2"))
    with plan_of(store, run) as plan:
        (field,) = (field for shard in plan.shards() for field in shard.fields)
    assert (field.reason, [source.key for source in field.sources]) == (None, ["a.tif"])


def test_a_manifest_row_that_stands_there_twice_is_one_file() -> None:
    store = MemoryStore({"m.csv": b"key,well\na.tif,A01\na.tif,A01\n", "a.tif": b"x"})
    with plan_of(store, RunConfig(layout=TableSettings(manifest="m.csv"))) as plan:
        (field,) = (field for shard in plan.shards() for field in shard.fields)
    assert (field.reason, len(field.sources)) == (None, 1)
