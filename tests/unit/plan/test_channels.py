from __future__ import annotations

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.images.imagefile import COLOURS
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.plan.fields import ChannelChoice, select_channels
from tests.unit.plan.listings import plan_of, store_of

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
