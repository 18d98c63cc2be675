"""What an instrument's metadata says of a plate, beside what the names of its files say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product


@dataclass(frozen=True, slots=True)
class Position:
    """Where the centre of a field lies on the stage, in µm: `x_um` to the right and `y_um` down, as a plate is looked at."""

    x_um: float
    y_um: float


@dataclass(frozen=True, slots=True)
class ExpectedFields:
    """Fields that the instrument was to write: each of `wells` with each of `sites` at each of `timepoints`.

    No `timepoints` stand for those of which there are files. `why` is the `reason_detail` of those that are not there; it
    names the file that states them and, where the instrument gives one, its own reason.
    """

    wells: tuple[str, ...]
    sites: tuple[int, ...]
    why: str
    timepoints: tuple[int, ...] = ()

    def places(self, timepoints: Iterable[int]) -> Iterator[tuple[str, int, int]]:
        """Well, site and time point of each, in order; `timepoints` are those of which there are files."""
        return product(
            sorted(set(self.wells)), sorted(set(self.sites)), sorted(set(self.timepoints or timepoints))
        )


@dataclass(frozen=True, slots=True)
class PlateFacts:
    """What metadata files state of one plate; what they do not state is None or empty.

    It is the plate whose files lie below `folder` and are named `plate` by the layout ("" where file names tell no plate);
    `source` is the key of the file that states it. `name` is what the instrument calls the plate, "" where that is `plate`. `rows` and `columns` are the shape of the plate, in wells. `channels` maps a channel as file names
    call it ("w1") to its name in the instrument ("DAPI"), in the instrument's order. `um_per_px` is the size of a pixel
    in the object plane. `positions` has that of each well and site. `timepoints` and `planes` (z) are numbers of them.
    """

    folder: str
    plate: str
    source: str
    name: str = ""
    rows: int | None = None
    columns: int | None = None
    channels: tuple[tuple[str, str], ...] = ()
    um_per_px: float | None = None
    positions: Mapping[tuple[str, int], Position] = field(default_factory=dict)
    expected: tuple[ExpectedFields, ...] = ()
    timepoints: int | None = None
    planes: int | None = None

    def plain(self) -> dict[str, object]:
        """As plain data for JSON, without what the rows of a plan say themselves (positions, expected fields)."""
        return {
            "folder": self.folder,
            "source": self.source,
            "rows": self.rows,
            "columns": self.columns,
            "channels": dict(self.channels),
            "um_per_px": self.um_per_px,
            "timepoints": self.timepoints,
            "planes": self.planes,
        }
