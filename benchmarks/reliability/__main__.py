"""Run every drill of tests/faults and write what became of the rows: `python -m benchmarks.reliability --runs 3 --record`.

A drill breaks something in a run (a worker, a driver, a node, the store, the disk) and sets the outcome against a run in which
nothing broke. The drills are tests, so each run is also asserted; here they are run several times and their verdicts gathered.
`--only EXPRESSION` is pytest's -k. The exit code is 1 where a row was lost, doubled or altered or a test failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.record import RELIABILITY, record

ROOT = Path(__file__).parents[2]
FAULTS = ROOT / "tests" / "faults"
VERDICTS = "CELLCOUNT_DRILLS"


@dataclass(slots=True)
class Drilled:
    """All verdicts on one drill. `redone` is None where no run of it could tell."""

    runs: int = 0
    fields: int = 0
    lost: int = 0
    doubled: int = 0
    altered: int = 0
    failed: int = 0
    left: int = 0
    redone: list[int] = field(default_factory=list)

    def add(self, verdict: dict[str, object]) -> None:
        """Add one run's verdict."""
        self.runs += 1
        for name in ("fields", "lost", "doubled", "altered", "failed"):
            setattr(self, name, getattr(self, name) + _number(verdict[name]))
        left = verdict["left"]
        assert isinstance(left, list)
        self.left += len(left)
        if verdict["redone"] is not None:
            self.redone.append(_number(verdict["redone"]))

    @property
    def bad(self) -> int:
        """Everything that must be 0."""
        return self.lost + self.doubled + self.altered + self.left


def main() -> int:
    """Run, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1, help="how often every drill is run (default 1)")
    parser.add_argument("--only", metavar="EXPRESSION", default="", help="pytest's -k: drills to run")
    parser.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/reliability.md"
    )
    given = parser.parse_args()
    drilled: dict[str, Drilled] = {}
    broken: list[str] = []
    began = time.monotonic()
    for number in range(given.runs):
        print(f"run {number + 1} of {given.runs}", file=sys.stderr, flush=True)
        for verdict in _run(given.only, broken):
            drilled.setdefault(str(verdict["drill"]), Drilled()).add(verdict)
    if not drilled:
        print("no drill ran", file=sys.stderr)
        return 1
    table = lines(drilled)
    table.append("")
    times = "once" if given.runs == 1 else f"{given.runs} times"
    table.append(f"Every drill {times}, in {(time.monotonic() - began) / 60:.0f} minutes.")
    print("\n".join(table))
    for failure in broken:
        print(f"FAILED {failure}", file=sys.stderr)
    bad = bool(broken) or any(one.bad for one in drilled.values())
    if not bad:
        record("drills", table, RELIABILITY)
    return int(bad)


def lines(drilled: dict[str, Drilled]) -> list[str]:
    """The table, a line a drill in the order of their names, and a last one for all."""
    table = [
        "| drill | runs | fields expected | rows lost | rows doubled | rows or tables altered | failed, as it must | fields counted again, a run | files left |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    whole = Drilled()
    for name, one in sorted(drilled.items()):
        table.append(_line(name, one, _spread(one.redone)))
        for column in ("runs", "fields", "lost", "doubled", "altered", "failed", "left"):
            setattr(whole, column, getattr(whole, column) + getattr(one, column))
    return [*table, _line("**all**", whole, "")]


def _line(name: str, one: Drilled, redone: str) -> str:
    numbers = (one.runs, one.fields, one.lost, one.doubled, one.altered, one.failed, redone, one.left)
    return f"| {name} | " + " | ".join(str(number) for number in numbers) + " |"


def _spread(numbers: Sequence[int]) -> str:
    if not numbers:
        return "not seen"
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _run(only: str, broken: list[str]) -> Iterable[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="cellcount-drills-") as folder:
        verdicts = Path(folder) / "verdicts"
        command = [
            sys.executable,
            "-m",
            "pytest",
            str(FAULTS),
            "-q",
            "-rf",
            "--no-header",
            *(["-k", only] if only else []),
        ]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, VERDICTS: str(verdicts)},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        told = done.stdout.splitlines()
        print(told[-1] if told else "", file=sys.stderr, flush=True)
        if done.returncode:
            failures = [line.removeprefix("FAILED ") for line in told if line.startswith("FAILED ")]
            broken += failures or [f"pytest ended with {done.returncode}"]
        text = verdicts.read_text(encoding="utf-8") if verdicts.exists() else ""
        return [json.loads(line) for line in text.splitlines()]


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


if __name__ == "__main__":
    sys.exit(main())
