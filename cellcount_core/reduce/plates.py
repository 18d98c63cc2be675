"""Plates from wells: one row a plate."""

from __future__ import annotations

from dataclasses import dataclass

from cellcount_core.domain.columns import PLATE, Features
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


def plate_row(plate: Plate, features: Features) -> dict[str, object]:
    """The row of the plates table."""
    return {
        PLATE.name: plate.name,
        "wells_expected": plate.wells,
        "wells_complete": plate.complete,
        "reasons": canonical_json(dict(plate.tally.reasons)),
        **plate.tally.columns(features),
    }
