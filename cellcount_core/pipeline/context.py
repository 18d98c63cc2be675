"""What a worker must know to count: small, picklable, without secrets."""

from __future__ import annotations

from dataclasses import dataclass

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import Schema
from cellcount_core.domain.fields import Selection
from cellcount_core.domain.scales import PoolScale
from cellcount_core.stores.base import StorageOptions


@dataclass(frozen=True, slots=True)
class RunContext:
    """Everything about a run that its workers share.

    `package` is the name or path the package is found by on the worker, `package_digest` what it must be. `counted` are the
    channels of the package's roles, in their order; `measured` those whose intensities are measured. `schema` is that of the tables. `scales` are the object
    sizes found when planning. `threads` are those of the model's arithmetic;
    `readers` how many objects are read at once. `amends`: the shards are fields of committed ones, done once more.
    """

    input_url: str
    input_options: StorageOptions
    output_url: str
    output_options: StorageOptions
    run: RunConfig
    fingerprint: str
    package: str
    package_digest: str
    engine: str
    counted: tuple[Selection, ...]
    measured: tuple[Selection, ...]
    schema: Schema
    scales: tuple[PoolScale, ...]
    threads: int
    readers: int
    amends: bool = False
