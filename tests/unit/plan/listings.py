"""Stores and shorthands for planning: a store in memory whose listing has a chosen order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import schema_3
from cellcount_core.domain.fields import PlannedField
from cellcount_core.output.planfile import ShardLimits
from cellcount_core.output.runfile import ModelIdentity
from cellcount_core.plan.planner import Plan, PlannedModel, make_plan
from cellcount_core.stores.base import Absent, Created, Denied, Listed, Piece

MODEL = PlannedModel(
    ModelIdentity("discs", "1.0.0", "digest", "numpy"),
    ("nuclei",),
    lambda _, measured: schema_3("Nuclei", measured),
)
LIMITS = ShardLimits(fields=4, size=2**40)


class MemoryStore:
    """Objects in a dict, listed in the order of insertion, three a batch."""

    def __init__(self, objects: dict[str, bytes] | None = None, url: str = "memory://input") -> None:
        self.objects = dict(objects or {})
        self.url = url

    def list(self, prefix: str = "") -> Iterator[list[Listed]]:
        found = [
            Listed(key, len(body), f"tag-{key}")
            for key, body in self.objects.items()
            if not prefix or key.startswith(f"{prefix}/")
        ]
        for start in range(0, len(found), 3):
            yield found[start : start + 3]

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise Absent(key)
        return self.objects[key]

    def get_range(self, key: str, start: int, stop: int) -> Piece:
        body = self.get(key)
        return Piece(body[start:stop], len(body), f"tag-{key}")

    def get_many(self, keys: Sequence[str], *, ahead: int) -> Iterator[tuple[str, bytes | Absent | Denied]]:
        for key in keys:
            yield key, self.objects.get(key, Absent(key))

    def put_new(self, key: str, body: bytes) -> Created:
        if key in self.objects:
            return Created.EXISTS
        self.objects[key] = body
        return Created.NEW

    def put(self, key: str, body: bytes) -> None:
        self.objects[key] = body

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def size_of(self, key: str) -> int | None:
        return len(self.objects[key]) if key in self.objects else None


def store_of(keys: Sequence[str], url: str = "memory://input") -> MemoryStore:
    """A store with a few bytes at each of `keys`."""
    return MemoryStore(dict.fromkeys(keys, b"pixels"), url)


def plan_of(
    store: MemoryStore,
    run: RunConfig,
    limits: ShardLimits = LIMITS,
    *,
    own_output: str = "",
    run_rows: int = 200_000,
    roles: tuple[str, ...] = MODEL.roles,
) -> Plan:
    """The plan of a store's files, for a model of these roles."""
    model = replace(MODEL, roles=roles)
    return make_plan(store, run, model, limits, own_output=own_output, run_rows=run_rows)


def planned(keys: Sequence[str], run: RunConfig) -> list[PlannedField]:
    """The planned fields of some files, in order."""
    with plan_of(store_of(keys), run) as plan:
        return [field for shard in plan.shards() for field in shard.fields]


def plan_bytes(
    store: MemoryStore, run: RunConfig, limits: ShardLimits = LIMITS, run_rows: int = 200_000
) -> bytes:
    """The plan file of a store's files."""
    with plan_of(store, run, limits, run_rows=run_rows) as plan:
        return Path(plan.path).read_bytes()
