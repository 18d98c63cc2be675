"""The wells of a viability run as samples of a cell counter, for files that other programs read; a plate map (plan/platemap.py) names them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import PLATE, TIMEPOINT, WELL, Merge
from cellcount_core.domain.errors import ConfigFault, OutputFault, nearest
from cellcount_core.output.runfile import RunFile, read_run
from cellcount_core.output.schema import read_table_bytes
from cellcount_core.plan.platemap import MapRow
from cellcount_core.stores.base import Absent, Store

WELLS_KEY = "wells.parquet"
_SHOWN = 5
_BEGAN = re.compile(r"run/timings/(\d{8}T\d{6})Z-")


@dataclass(frozen=True, slots=True)
class WellSample:
    """One well at one time point. `values` are its row of the wells table by column, in which null is None."""

    plate: str
    well: str
    timepoint: int
    name: str
    values: Mapping[str, object]

    @property
    def key(self) -> tuple[str, str, int]:
        """Plate, well and time point, which no other sample of the run has."""
        return self.plate, self.well, self.timepoint

    def number(self, column: str) -> float | None:
        """A value of the row; None where it is null, or the run has no such column."""
        value = self.values.get(column)
        return float(value) if isinstance(value, int | float) else None

    @property
    def missing_density(self) -> str:
        """Why there are no cells/mL, in words; "" if there are."""
        if self.number("cells_per_ml") is not None:
            return ""
        if not self.number("fields_ok"):
            return "no image of the well could be counted"
        return "the volume that an image shows is not known: no depth or volume was set, or the images have no pixel size"

    @property
    def is_partial(self) -> bool:
        """Whether only some of the images of the sample were counted."""
        return 0 < (self.number("fields_ok") or 0) < (self.number("fields_expected") or 0)

    @property
    def uncounted(self) -> str:
        """How many of the sample's images could not be counted, in words; "" if all or none were counted."""
        if not self.is_partial:
            return ""
        expected = round(self.number("fields_expected") or 0)
        return f"{expected - round(self.number('fields_ok') or 0)} of {expected} images could not be counted"

    @property
    def told(self) -> list[str]:
        """What to know of the sample, in words."""
        said = [self.uncounted] if self.uncounted else []
        said += [str(warning)] if (warning := self.values.get("viability_warnings")) else []
        return said + ([f"no cells/mL: {self.missing_density}"] if self.missing_density else [])


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of a run, in key order. `measured` is when they were counted, as the run's timings say, None if they are gone."""

    run: RunFile
    settings: RunConfig
    measured: datetime | None
    wells: tuple[WellSample, ...]

    @property
    def by_picture(self) -> bool:
        """Whether classes are told by the picture, not by the channels of roles."""
        return not {"all", "live", "dead"} & {*self.run.channels}


def read_samples(store: Store, names: Mapping[tuple[str, str], str] | None = None) -> Samples:
    """The samples of the run in `store`. `names` gives names by plate and well ("" for any plate); others are called after both.

    Raises OutputFault if there is no run or it is not reduced yet, ConfigFault if it is not one of viability.
    """
    run = read_run(store)
    if not any(column.merge is Merge.PERCENT for column in run.schema.fields):
        raise ConfigFault(
            f"{store.url}: a run of the task {run.schema.task!r}; only runs that tell live cells from dead ones are written for cell counters"
        )
    try:
        body = store.get(WELLS_KEY)
    except Absent as error:
        raise OutputFault(f"{store.url}: has no {WELLS_KEY} yet; `cellcount reduce` writes it") from error
    wells = []
    for row in read_table_bytes(WELLS_KEY, body).to_pylist():
        plate, well, timepoint = str(row[PLATE.name]), str(row[WELL.name]), int(row[TIMEPOINT.name])
        named = names or {}
        name = named.get((plate, well)) or named.get(("", well)) or _own_name(plate, well, timepoint)
        wells.append(WellSample(plate, well, timepoint, name, row))
    # `run.model` is a section that the fingerprint leaves out, and so are paths that a machine may lack.
    settings = RunConfig.model_validate(dict(run.run))
    return Samples(run, settings, _began(store), tuple(wells))


def _own_name(plate: str, well: str, timepoint: int) -> str:
    return f"{plate}_{well}" + (f"_t{timepoint}" if timepoint > 1 else "")


def _began(store: Store) -> datetime | None:
    """When the last session of counting began."""
    keys = [listed.key for batch in store.list("run/timings") for listed in batch]
    times = sorted(found[1] for key in keys if (found := _BEGAN.search(key)) is not None)
    return datetime.strptime(times[-1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) if times else None


def unknown_wells(rows: Sequence[MapRow], samples: Samples) -> str:
    """The wells of a plate map that the run does not have, in words: the nearest that it has, and those that the map leaves without a name,
    among which is the one that was meant if a well was misspelt; "" if it has all of them.

    A map may be one of the whole plate of which a part was imaged, so this is told and not refused. Raises ConfigFault if the run has none of
    its wells.
    """
    wells = {(plate, sample.well) for sample in samples.wells for plate in ("", sample.plate)}
    strange = [row for row in rows if (row.plate, row.well) not in wells]
    if not strange:
        return ""
    first = strange[0]
    own = [sample.well for sample in samples.wells if first.plate in ("", sample.plate)]
    hint = nearest(first.well, own) if own else nearest(first.plate, [one.plate for one in samples.wells])
    told = f"wells that the run does not have: {_some([f'{row.plate} {row.well}'.strip() for row in strange])}{hint}"
    if len(strange) == len(rows):
        raise ConfigFault(f"the plate map names only {told}")
    named = {(row.plate, row.well) for row in rows}
    left = [one.name for one in samples.wells if not {("", one.well), (one.plate, one.well)} & named]
    return f"{told}; wells without a line in it go by plate and well: {_some(left)}" if left else told


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" … and {len(names) - _SHOWN} more" if names[_SHOWN:] else "")


def sample_names(rows: Sequence[MapRow]) -> dict[tuple[str, str], str]:
    """The names that a plate map with a column `sample` gives, by plate and well."""
    return {(row.plate, row.well): row.columns["sample"] for row in rows if row.columns["sample"]}
