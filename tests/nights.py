"""Nights by a simulated clock, for tests: `night(config, clock)`; as a program, a night that is killed by SIGKILL on its way."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import yaml

from cellcount_core.cli.progress import Quiet
from cellcount_core.domain.fields import Commit, Receipt
from cellcount_core.nightly.config import NightlyConfig
from cellcount_core.nightly.digest import Digest
from cellcount_core.nightly.night import run_night
from cellcount_core.runners.events import Progress

MONDAY = datetime.fromisoformat("2026-03-02T22:00:00+00:00")


@dataclass
class SimulatedClock:
    """Stands still but for sleeping; `meanwhile` happens during each sleep."""

    date: datetime = MONDAY
    meanwhile: Callable[[], None] = lambda: None
    slept: list[float] = field(default_factory=list)
    per_call: float = 0.0
    seconds: float = 0.0

    def now(self) -> datetime:
        return self.date

    def running(self) -> float:
        self.seconds += self.per_call
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        self.date += timedelta(seconds=seconds)
        self.meanwhile()


class Witness(Quiet):
    """Counts the fields that were really counted and committed."""

    def __init__(self) -> None:
        self.fields: Counter[str] = Counter()
        self.shards = 0
        self.plate = ""

    def stage(self, text: str) -> None:
        if text.startswith("plate "):
            self.plate = text.split()[1]

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        assert receipt.commit is Commit.WRITTEN
        self.shards += 1
        self.fields[self.plate] += sum(receipt.statuses.values())


class Fatal(Witness):
    """Kills this process as soon as so many shards are committed."""

    def __init__(self, shards: int) -> None:
        super().__init__()
        self.until = shards

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        super().receipt(receipt, progress)
        if self.shards == self.until:
            print(yaml.safe_dump(dict(self.fields)), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


def settings(
    roots: Path | str | Sequence[Path | str], output: Path | str, **sections: object
) -> NightlyConfig:
    """ImageXpress plates for the `threshold` package, serial, two fields a shard, complete by a marker."""
    return NightlyConfig.model_validate(
        {
            "roots": [str(root) for root in ([roots] if isinstance(roots, str | Path) else roots)],
            "output": str(output),
            "complete": {"marker": "DONE"},
            "run": {"layout": {"kind": "imagexpress"}, "model": {"package": "threshold"}},
            "execution": {"runner": "serial", "threads": 1, "shard_fields": 2},
            **sections,
        }
    )


def night(
    config: NightlyConfig, clock: SimulatedClock | None = None, witness: Witness | None = None
) -> Digest:
    """One night."""
    return run_night(config, witness or Quiet(), clock or SimulatedClock())


def main(config: str, date: str, shards: str) -> None:
    """A night of that date which ends by SIGKILL after so many shards."""
    settings = NightlyConfig.model_validate(yaml.safe_load(Path(config).read_text(encoding="utf-8")))
    run_night(settings, Fatal(int(shards)), SimulatedClock(datetime.fromisoformat(date)))


if __name__ == "__main__":
    main(*sys.argv[1:])
