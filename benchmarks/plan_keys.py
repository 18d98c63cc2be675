"""Seconds and peak memory of planning many files, from listing to plan.parquet: `python benchmarks/plan_keys.py [FILES]`.

The keys are ImageXpress names of 384-well plates with 9 sites and 2 channels, listed in a shuffled order, as a store would
give them: the store of this script makes them up, so that what is measured is planning alone.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator

from cellcount_core.config import RunConfig
from cellcount_core.domain.wells import WellPosition
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.plan.planner import PlannedModel, make_plan
from cellcount_core.plan.runfile import ModelIdentity
from cellcount_core.plan.shards import ShardLimits
from cellcount_core.stores.base import LIST_BATCH, Listed

SITES, CHANNELS, WELLS = 9, 2, 384
_PLATE_FILES = SITES * CHANNELS * WELLS
_STEP = 7_368_787  # a prime: multiplying by it modulo the number of files visits each once, far apart


class MadeUpStore:
    """A store that can only list."""

    url = "memory://made-up"

    def __init__(self, files: int) -> None:
        self.files = files

    def list(self, prefix: str = "") -> Iterator[list[Listed]]:
        """All files in shuffled order."""
        for start in range(0, self.files, LIST_BATCH):
            numbers = range(start, min(start + LIST_BATCH, self.files))
            yield [_listed(number * _STEP % self.files) for number in numbers]


def _listed(number: int) -> Listed:
    plate, rest = divmod(number, _PLATE_FILES)
    well, rest = divmod(rest, SITES * CHANNELS)
    site, channel = divmod(rest, CHANNELS)
    name = WellPosition(*divmod(well, 24)).name
    key = f"plate{plate:04d}/TimePoint_1/plate{plate:04d}_{name}_s{site + 1}_w{channel + 1}.TIF"
    return Listed(key, 2_000_000 + number, f"{number:032x}")


def main() -> None:
    """Plan, and print what it took."""
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    before = _peak_mib()
    run = RunConfig(layout=ImageXpressSettings(), channels={"nuclei": "w1"}, measure=("w1", "w2"))
    model = PlannedModel(ModelIdentity("none", "0", "0", "none"), ("nuclei",), "Nuclei")
    started, cpu = time.perf_counter(), time.process_time()
    with make_plan(MadeUpStore(files), run, model, ShardLimits(64, 2**40)) as plan:  # type: ignore[arg-type]
        planned, planned_cpu = time.perf_counter() - started, time.process_time() - cpu
        size = plan.path.stat().st_size / 2**20
        peak = _peak_mib()
        started = time.perf_counter()
        fields = sum(len(shard.fields) for shard in plan.shards())
        read = time.perf_counter() - started
    print(f"files {files}, fields {fields}, shards {plan.summary.shards}, plan.parquet {size:.1f} MiB")
    print(
        f"planned in {planned:.1f} s ({planned_cpu:.1f} s CPU), peak {peak:.0f} MiB ({before:.0f} MiB before)"
    )
    print(f"read back in {read:.1f} s, peak {_peak_mib():.0f} MiB")


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
