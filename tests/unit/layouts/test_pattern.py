from __future__ import annotations

import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.layouts.pattern import Pattern, PatternSettings, compile_pattern

HARMONY = r"r(?P<row>\d+)c(?P<column>\d+)f(?P<site>\d+)p(?P<plane>\d+)-ch(?P<channel>\d+)sk(?P<timepoint>\d+)"


def pattern(text: str, plate: str = "") -> Pattern:
    return compile_pattern(PatternSettings(pattern=text, plate=plate), "PX")


def test_numbered_rows_become_letters() -> None:
    parsed = pattern(HARMONY).parse("Images/r03c12f02p04-ch1sk5fk1fl1.tiff")
    assert parsed == Parsed(FieldKey("Images", "C12", 2, 5), "1", 4, "Images")
    parsed = pattern(HARMONY).parse("r32c48f01p01-ch1sk1fk1fl1.tiff")
    assert parsed == Parsed(FieldKey("PX", "AF48", 1, 1), "1", 1)


def test_the_plate_comes_from_the_group_then_the_setting_then_the_folder() -> None:
    grouped = r"(?P<plate>[^/]+)/(?P<well>[A-P]\d\d)"
    assert _plate(pattern(grouped, plate="set").parse("found/B02.tif")) == "found"
    assert _plate(pattern(r"(?P<well>[A-P]\d\d)", plate="set").parse("folder/B02.tif")) == "set"
    assert _plate(pattern(r"(?P<well>[A-P]\d\d)").parse("folder/B02.tif")) == "folder"


def test_a_well_of_one_digit_is_brought_to_two_and_another_name_is_kept() -> None:
    wells = pattern(r"(?P<well>[A-Za-z0-9]+)\.tif")
    assert wells.parse("b2.tif") == Parsed(FieldKey("PX", "B02", 1, 1))
    assert wells.parse("W00014.tif") == Parsed(FieldKey("PX", "W00014", 1, 1))


@pytest.mark.parametrize(
    "key", ["other.tif", "r33c01f01p01-ch1sk1.tiff", "r00c01f01p01-ch1sk1.tiff", "r01c49f01p01-ch1sk1.tiff"]
)
def test_a_name_without_a_match_or_a_well_that_exists_does_not_parse(key: str) -> None:
    assert pattern(HARMONY).parse(key) is None


def test_a_number_that_no_table_can_hold_does_not_parse() -> None:
    sites = pattern(r"(?P<well>[A-H]\d\d)_(?P<site>\w+)\.tif")
    assert sites.parse("A01_x.tif") is None
    assert sites.parse(f"A01_{'9' * 5000}.tif") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(?P<well>[A-H", "not a regular expression: unterminated character set at character"),
        (r"(?P<well>..)(?P<chanel>\d)", "'chanel' is unknown; did you mean 'channel'"),
        (r"s(?P<site>\d)", "no group gives the well"),
        (r"(?P<row>[A-H])", "no group gives the well"),
        (r"(?P<well>...)(?P<row>[A-H])", "gives the well twice"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_with_its_fault(text: str, message: str) -> None:
    with pytest.raises(ConfigFault) as fault:
        pattern(text)
    assert message in str(fault.value)
    assert "run.layout.pattern" in str(fault.value)


def _plate(parsed: object) -> str:
    assert isinstance(parsed, Parsed)
    return parsed.field.plate
