"""Wells that file names only number get their names from metadata or from the shape of the plate; without a shape the plan refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.fingerprint import fingerprint
from cellcount_core.domain.plates import (
    FORMATS,
    ExpectedFields,
    PlateFacts,
    Position,
    numbered_well,
    parse_well,
)
from cellcount_core.output.planfile import plate_shapes
from cellcount_core.plan.facts import Facts
from cellcount_core.plan.findings import Findings
from cellcount_core.plan.wells import name_wells
from tests.unit.plan.listings import plan_of, store_of

STATED = PlateFacts(folder="m", plate="p", source="m/p.mrf", rows=8, columns=12)


def found(*numbers: int, plate: str = "p", folder: str = "m") -> Findings:
    findings = Findings()
    for number in numbers:
        findings.add_image(
            Parsed(FieldKey(plate, numbered_well(number), 1, 1), folder=folder, numbered=number)
        )
    return findings


def names(facts: Facts, findings: Findings, plate_format: int | None = None) -> list[str]:
    return list(name_wells(facts, findings, plate_format).wells["p", "m"].values())


def test_numbers_count_row_by_row_from_1_on_the_stated_shape() -> None:
    assert names(Facts({"p": STATED}), found(1, 12, 13, 29, 96)) == ["A01", "A12", "B01", "C05", "H12"]


@pytest.mark.parametrize("wells", FORMATS)
def test_every_well_of_every_format_has_its_own_number(wells: int) -> None:
    named = names(Facts(), found(*range(1, wells + 1)), wells)
    positions = [position for name in named if (position := parse_well(name)) is not None]
    assert len(positions) == len(set(named)) == wells
    assert positions == sorted(positions)
    assert (positions[-1].row + 1, positions[-1].column + 1) == FORMATS[wells]


def test_a_number_is_no_name_of_a_well() -> None:
    assert all(parse_well(numbered_well(number)) is None for number in range(1, 2000))


def test_without_a_shape_the_plan_refuses_and_names_the_option() -> None:
    with pytest.raises(ConfigFault, match=r"plate 'p'.*such as 7.*--plate-format 96"):
        names(Facts(), found(7))
    with pytest.raises(ConfigFault, match="--plate-format 384"):
        names(Facts(), found(200))


def test_a_number_beyond_the_plate_is_refused_rather_than_moved() -> None:
    with pytest.raises(
        ConfigFault, match=r"well number 97, and m/p.mrf states 8 x 12 wells.*--plate-format 384"
    ):
        names(Facts({"p": STATED}), found(97))


def test_the_setting_wins_over_the_metadata_and_the_contradiction_is_told() -> None:
    named = name_wells(Facts({"p": STATED}), found(29), 384)
    assert named.wells["p", "m"] == {"W00029": "B05"}
    assert named.facts.plates["p"].rows == 16
    assert named.facts.warnings == (
        "plate 'p': m/p.mrf states 8 x 12 wells, and run.plate_format says 384 wells, which is used",
    )


def test_the_setting_gives_every_plate_its_shape() -> None:
    """So that a plate of which four wells were used is drawn as it is."""
    findings = Findings()
    findings.add_image(Parsed(FieldKey("q", "A01", 1, 1)))
    facts = name_wells(Facts(), findings, 96).facts
    assert (facts.plates["q"].rows, facts.plates["q"].columns) == (8, 12)
    assert name_wells(Facts(), findings, None).facts == Facts()


def test_a_name_that_the_metadata_gives_a_number_is_taken() -> None:
    named_only = replace(STATED, rows=None, columns=None, wells={14: "B02"})
    assert names(Facts({"p": named_only}), found(14)) == ["B02"]
    with pytest.raises(ConfigFault, match="such as 15"):
        names(Facts({"p": named_only}), found(14, 15))


def test_two_numbers_never_become_one_well() -> None:
    with pytest.raises(ConfigFault, match=r"number 14 and 26 would both be of well B02"):
        names(Facts({"p": replace(STATED, columns=24, wells={14: "B02"})}), found(14, 26))


def test_positions_and_expected_fields_of_numbered_wells_are_named_too() -> None:
    stated = replace(
        STATED,
        positions={("W00029", 1): Position(1.0, 2.0)},
        expected=(ExpectedFields(("W00029", "W00030"), (1,), "why"),),
    )
    facts = name_wells(Facts({"p": stated}), found(29), None).facts.plates["p"]
    assert facts.positions == {("C05", 1): Position(1.0, 2.0)}
    assert facts.expected == (ExpectedFields(("C05", "C06"), (1,), "why"),)


def test_a_plate_renamed_by_its_metadata_keeps_its_numbers() -> None:
    facts = Facts({"Plate 1": STATED}, {("p", "m"): "Plate 1"})
    assert name_wells(facts, found(2), None).wells == {("p", "m"): {"W00002": "A02"}}


def test_the_shape_reaches_the_plan_from_which_plates_are_drawn() -> None:
    with plan_of(store_of(["q/A01.png"]), RunConfig(plate_format=96)) as plan:
        assert plate_shapes(plan.path) == {"q": (8, 12)}


def test_no_other_number_of_wells_is_a_format() -> None:
    with pytest.raises(ValidationError, match="plate_format"):
        RunConfig.model_validate({"plate_format": 100})


def test_a_run_without_the_setting_has_the_fingerprint_it_had() -> None:
    assert "plate_format" not in RunConfig().model_dump(mode="json")
    given = RunConfig(plate_format=96).model_dump(mode="json")
    assert given["plate_format"] == 96
    assert RunConfig.model_validate(given).plate_format == 96
    plain = RunConfig().model_dump(mode="json")
    assert fingerprint(plain, "d", "numpy", "l", ()) != fingerprint(given, "d", "numpy", "l", ())
