"""The shape of plates, as metadata or `run.plate_format` tells it, and the names of wells that file names only number ("W0029")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.plates import FORMATS, PlateFacts, numbered_well, well_of_number
from cellcount_core.plan.facts import Acquired, Facts
from cellcount_core.plan.findings import Findings

_SETTING = "run.plate_format"

WellNames = Mapping[Acquired, Mapping[str, str]]
"""The names of wells, by plate and folder as files have them, and by `numbered_well` of their numbers."""


@dataclass(frozen=True, slots=True)
class NamedWells:
    """Facts in which every well has its name, and those names."""

    facts: Facts
    wells: WellNames


def name_wells(facts: Facts, found: Findings, plate_format: int | None) -> NamedWells:
    """Give the shape of `plate_format` (a number of wells; None if it is not set) to every plate, and their names to wells that are only
    numbered.

    A well has the name that metadata gives its number; otherwise the numbers count from 1, row by row, on a plate of the known shape.
    The setting is used where it contradicts the metadata, with a warning. Raises ConfigFault if the shape of a plate with numbered wells
    is not known, and if it has no well of a number.
    """
    plates = dict(facts.plates)
    warnings: list[str] = []
    wells: dict[Acquired, Mapping[str, str]] = {}
    for of, seen in found.acquisitions.items():
        plate = facts.names.get(of, of[0])
        if plate_format is not None:
            one = plates.get(plate) or PlateFacts(folder=of[1], plate=of[0], source=_SETTING)
            plates[plate] = _shaped(one, plate, plate_format, warnings)
        if seen.numbered:
            stated = plates.get(plate)
            wells[of] = _names(plate, sorted(seen.numbered), stated)
            if stated is not None:
                plates[plate] = _translated(stated)
    return NamedWells(replace(facts, plates=plates, warnings=(*facts.warnings, *warnings)), wells)


def _shaped(facts: PlateFacts, plate: str, plate_format: int, warnings: list[str]) -> PlateFacts:
    rows, columns = FORMATS[plate_format]
    if facts.rows and facts.columns and (facts.rows, facts.columns) != (rows, columns):
        warnings.append(
            f"plate {plate!r}: {facts.source} states {facts.rows} x {facts.columns} wells, and {_SETTING} says {plate_format} wells, which"
            " is used"
        )
    return replace(facts, rows=rows, columns=columns)


def _names(plate: str, numbers: list[int], facts: PlateFacts | None) -> dict[str, str]:
    """The name of each of the running `numbers`. Raises ConfigFault if one has no name, or two have the same."""
    names: dict[str, str] = {}
    taken: dict[str, int] = {}
    for number in numbers:
        name = _name(number, facts)
        if name is None:
            raise ConfigFault(_unnamed(plate, number, facts))
        if name in taken:
            raise ConfigFault(
                f"plate {plate!r}: files of the wells number {taken[name]} and {number} would both be of well {name}, because"
                f" {'' if facts is None else facts.source} names wells otherwise than the plate's shape does: give the right shape with"
                " --plate-format"
            )
        taken[name] = number
        names[numbered_well(number)] = name
    return names


def _name(number: int, facts: PlateFacts | None) -> str | None:
    if facts is None:
        return None
    if number in facts.wells:
        return facts.wells[number]
    return well_of_number(number, facts.rows, facts.columns) if facts.rows and facts.columns else None


def _unnamed(plate: str, number: int, facts: PlateFacts | None) -> str:
    fitting = [wells for wells in FORMATS if wells >= number]
    way = (
        f"say how many wells it has, for example --plate-format {next((n for n in fitting if n >= 96), fitting[0])} (wells are numbered row by row)"
        if fitting
        else f"no plate has more than {max(FORMATS)} wells"
    )
    if facts is not None and facts.rows and facts.columns:
        return f"plate {plate!r}: there are files of well number {number}, and {facts.source} states {facts.rows} x {facts.columns} wells: {way}"
    return f"plate {plate!r}: its files only number their wells, such as {number}, and nothing states the plate's shape: {way}"


def _translated(facts: PlateFacts) -> PlateFacts:
    """The facts with names in place of running numbers in positions and expected fields."""
    names = {numbered_well(number): name for number, name in facts.wells.items()}
    if facts.rows and facts.columns:
        for number in range(1, facts.rows * facts.columns + 1):
            name = well_of_number(number, facts.rows, facts.columns)
            names.setdefault(numbered_well(number), name or "")
    return replace(
        facts,
        positions={(names.get(well, well), site): at for (well, site), at in facts.positions.items()},
        expected=tuple(
            replace(each, wells=tuple(names.get(well, well) for well in each.wells))
            for each in facts.expected
        ),
    )
