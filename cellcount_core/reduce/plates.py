"""Plates from wells: one row a plate, and which plates are in doubt as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cellcount_core.domain.columns import PLATE, Value
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.fingerprint import canonical_json
from cellcount_core.reduce.tally import Tally
from cellcount_core.reduce.wells import Well


@dataclass(slots=True)
class Plate:
    """Running totals of a plate, or of the whole run. A well is complete where every field of it was counted."""

    name: str
    tally: Tally
    wells: int = 0
    complete: int = 0

    def add(self, well: Well) -> None:
        """Add a well that comes after those added so far."""
        self.wells += 1
        self.complete += all(tally.ok == tally.fields for tally in well.timepoints.values())
        for tally in well.timepoints.values():
            self.tally.merge(tally)

    def merge(self, other: Plate) -> None:
        """Add a plate whose wells come after those added so far."""
        self.wells += other.wells
        self.complete += other.complete
        self.tally.merge(other.tally)


_OF_MOST_FIELDS = (
    Doubt.OUT_OF_DOMAIN, Doubt.BRIGHT_BACKGROUND, Doubt.DARK_BACKGROUND, Doubt.LOOKS_LIKE_MASK, Doubt.SIZE_ABSURD,
    Doubt.SIZE_UNLIKE,
)  # fmt: skip
"""Doubts about a field that, where most counted fields of a plate share one, are doubts about the plate."""

_HUNDREDS = 100
"""A plate whose fields, at the median of the other plates, would hold so many objects should hold more than one for each hundred."""


def plates_in_doubt(plates: Sequence[Plate]) -> dict[str, Doubt]:
    """Plates whose counts cannot be believed as they are, by name, with why: most counted fields are out of domain, of the
    other kind of background, masks, or of an absurd or other size than the model is for, or there is hardly an object where the other plates have hundreds."""
    hardly = {name for number in range(_counted(plates)) for name in _hardly_any(plates, number)}
    found: dict[str, Doubt] = {}
    for plate in plates:
        tally = plate.tally
        shared = [doubt for doubt in _OF_MOST_FIELDS if 2 * tally.warnings[doubt] > tally.ok > 0]
        if plate.name in hardly:
            shared.insert(0, Doubt.NO_OBJECTS)
        if shared:
            found[plate.name] = shared[0]
    return found


def _counted(plates: Sequence[Plate]) -> int:
    """How many things are counted in each plate."""
    return len(plates[0].tally.counts) if plates else 0


def _hardly_any(plates: Sequence[Plate], number: int) -> Iterator[str]:
    """Plates with hardly one of the things counted (the first, the second …) where the other plates have hundreds."""
    totals = [(plate.name, plate.tally.counts[number]) for plate in plates]
    ordered = sorted(mean for _, total in totals if (mean := total.mean) is not None)
    for name, total in totals:
        if (mean := total.mean) is not None:
            expected = _median_without(ordered, mean) * total.fields
            if expected >= _HUNDREDS and total.total * _HUNDREDS <= expected:
                yield name


def _median_without(ordered: Sequence[float], value: float) -> float:
    """Median of the ascending `ordered` without one `value` that is in it; 0 where nothing is left."""
    place, others = ordered.index(value), len(ordered) - 1
    middle = {(others - 1) // 2, others // 2} if others else set()
    chosen = [ordered[index if index < place else index + 1] for index in middle]
    return sum(chosen) / len(chosen) if chosen else 0.0


def plate_row(plate: Plate, doubts: Mapping[str, Doubt]) -> dict[str, Value]:
    """The row of the plates table; `doubts` are the plates in doubt."""
    return {
        PLATE.name: plate.name,
        "wells_expected": plate.wells,
        "wells_complete": plate.complete,
        "reasons": canonical_json(dict(plate.tally.reasons)),
        "doubt": doubts.get(plate.name),
        **plate.tally.columns(),
    }
