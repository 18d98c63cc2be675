"""Outputs of runs that never were: a real plan, run file and committed parts, from a list of fields."""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import SCHEMA_VERSION, schema_3
from cellcount_core.domain.errors import Reason, Status
from cellcount_core.domain.fields import FieldKey, PlannedField, Shard, Source
from cellcount_core.domain.statistics import Moments
from cellcount_core.output.parts import Part, build_part, commit_part
from cellcount_core.output.planfile import PLAN_KEY, write_plan
from cellcount_core.output.rows import FieldRow, ObjectRows
from cellcount_core.output.runfile import RUN_KEY, ModelIdentity, Numbers, RunFile, to_json
from cellcount_core.stores.base import StorageOptions, Store
from cellcount_core.stores.open import open_store

SCHEMA = replace(schema_3("Nuclei", ("w1", "w2")), version=SCHEMA_VERSION)
FINGERPRINT = "f" * 64


@dataclass(frozen=True)
class Made:
    """One field: where, and what came of it. `um_per_px` None is a field without calibration."""

    key: FieldKey
    end: int | Reason
    um_per_px: float | None = 0.5
    warnings: tuple[str, ...] = ()


def memory_store() -> Store:
    """An empty store of its own."""
    return open_store(f"memory://{uuid.uuid4().hex}", StorageOptions(schemes=("memory",)))


def object_columns(made: Made) -> dict[str, NDArray[np.generic]]:
    """Objects of a counted field, from its key alone."""
    assert isinstance(made.end, int)
    n = made.end
    random = np.random.default_rng(int(made.key.field_id[:8], 16))
    corner = random.integers(0, 500, (n, 2))
    size = random.integers(1, 40, (n, 2))
    columns: dict[str, NDArray[np.generic]] = {
        "Metadata_ObjectNumber": np.arange(1, n + 1, dtype=np.int32),
        "Nuclei_Location_Center_X": corner[:, 0] + size[:, 0] / 2,
        "Nuclei_Location_Center_Y": corner[:, 1] + size[:, 1] / 2,
        "Nuclei_AreaShape_BoundingBoxMinimum_X": corner[:, 0],
        "Nuclei_AreaShape_BoundingBoxMinimum_Y": corner[:, 1],
        "Nuclei_AreaShape_BoundingBoxMaximum_X": corner[:, 0] + size[:, 0],
        "Nuclei_AreaShape_BoundingBoxMaximum_Y": corner[:, 1] + size[:, 1],
        "score": random.uniform(0.5, 1.0, n),
        "touches_border": random.random(n) < 0.1,
    }
    for column in SCHEMA.measured:
        whole = column.name.endswith("_Area")
        columns[column.name] = random.integers(1, 900, n) if whole else random.lognormal(3.0, 1.0, n)
    return columns


def moments(values: NDArray[np.generic]) -> Moments:
    """Moments of an array."""
    if not values.size:
        return Moments()
    x = values.astype(np.float64)
    return Moments(
        x.size, float(x.mean()), float(((x - x.mean()) ** 2).sum()), float(x.min()), float(x.max())
    )


def rows_of(made: Sequence[Made]) -> tuple[list[FieldRow], list[ObjectRows]]:
    """What a worker would know of these fields."""
    fields: list[FieldRow] = []
    objects: list[ObjectRows] = []
    for one in made:
        source = (f"{one.key.plate}/{one.key.well}_s{one.key.site}.tif",)
        if isinstance(one.end, Reason):
            fields.append(FieldRow(one.key, "max", one.end.status, one.end, "made to fail", source))
            continue
        columns = object_columns(one)
        objects.append(ObjectRows(one.key, columns))
        fields.append(
            FieldRow(
                one.key,
                "max",
                Status.OK,
                source=source,
                warnings=one.warnings,
                values={
                    "channel": "w1",
                    "count": one.end,
                    "width_px": 600,
                    "height_px": 400,
                    "um_per_px": one.um_per_px,
                    "scale": 1.0,
                    "focus": float("nan"),
                    "empty": one.end == 0,
                },
                moments={column.name: moments(columns[column.name]) for column in SCHEMA.measured},
            )
        )
    return fields, objects


def part_of(number: int, made: Sequence[Made]) -> Part:
    """The part of one shard."""
    return build_part(number, *rows_of(made), SCHEMA, FINGERPRINT)


def write_run(store: Store, shards: Sequence[Sequence[Made]]) -> None:
    """Plan and run file of a run with these shards."""
    planned = [Shard(number, tuple(_planned(one) for one in made)) for number, made in enumerate(shards)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.parquet"
        written = write_plan(path, planned, lambda _: FINGERPRINT)
        body = path.read_bytes()
    run = RunFile(
        fingerprint=FINGERPRINT,
        run={},
        input="plate",
        model=ModelIdentity("threshold", "1", "0" * 64, "smooth"),
        channels={"nuclei": "w1"},
        schema=SCHEMA,
        listing_digest=written.listing_digest,
        plan_sha256=hashlib.sha256(body).hexdigest(),
        numbers=Numbers(sum(map(len, shards)), sum(map(len, shards)), len(shards), 0, {}, {}, 0),
        versions={},
    )
    store.put(PLAN_KEY, body)
    store.put_new(RUN_KEY, to_json(run))


def _planned(made: Made) -> PlannedField:
    absent = made.end is Reason.ABSENT
    source = Source("w1", 0, f"{made.key.plate}/{made.key.well}_s{made.key.site}.tif", size=10)
    return PlannedField(
        made.key, () if absent else (source,), Reason.ABSENT if absent else None, "not there" * absent
    )


def output(shards: Sequence[Sequence[Made]], store: Store | None = None) -> Store:
    """A counted run, not yet reduced."""
    store = store or memory_store()
    write_run(store, shards)
    for number, made in enumerate(shards):
        commit_part(store, part_of(number, made))
    return store


def plate(wells: int = 6, sites: int = 2, name: str = "P1") -> list[Made]:
    """A small plate: counts that differ, an empty field, one that failed and one that is missing."""
    made: list[Made] = []
    for index in range(wells * sites):
        key = FieldKey(name, f"B{index // sites + 2:02d}", index % sites + 1, 1)
        ends: dict[int, int | Reason] = {1: 0, 3: Reason.TRUNCATED, 6: Reason.ABSENT}
        made.append(Made(key, ends.get(index, 5 + index * 7 % 11)))
    return made


def cut(made: Sequence[Made], size: int) -> list[Sequence[Made]]:
    """Shards of `size` fields."""
    return [made[start : start + size] for start in range(0, len(made), size)]
