"""Many small fields through Ray while workers are killed at random: nothing lost, nothing doubled, the driver no larger.

    python -m benchmarks.reliability.load [--fields 100000] [--kills-per-minute 3] [--actors 2] [--seed 0] [--keep FOLDER] [--record]

`cellcount count` runs as a process of its own with a local Ray of its own. While it counts, one of its actors gets SIGKILL at
moments drawn by `--seed` (a Poisson process), and the driver's memory is looked at every second. Then every field is looked
for in the tables, with its own number of objects at its own places, and `cellcount verify` is run.

Ray takes some MiB in its first minute, however much is counted: the growth of the driver tells from 50,000 fields on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from benchmarks.record import RELIABILITY, record
from benchmarks.reliability.marked_plates import MOST_MARKS, SIDE_PX, MarkedPlates, Verdict, judge

LOOK_S = 1.0
FLAT_MIB = 1.0
"""Growth by 10,000 fields that is still called flat."""

_ACTOR = "ray::CountingActor"
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Look:
    """The driver's memory when `done` fields were committed: resident, and the part of it that is its alone. Bytes."""

    done: int
    resident: int
    own: int


@dataclass(slots=True)
class Log:
    """What a driver told so far, from its JSON lines. Written by the thread that reads them."""

    began: float | None = None
    ended: float | None = None
    done: int = 0
    lost_attempts: int = 0
    fields_again: int = 0
    already: int = 0
    stages: list[tuple[float, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def read(self, lines: Iterator[str]) -> None:
        """Take in lines until there are no more."""
        for line in lines:
            if line.startswith("{"):
                self._take(json.loads(line))
            else:
                self.words.append(line)

    def _take(self, event: dict[str, object]) -> None:
        match event["event"]:
            case "begin":
                self.began = time.monotonic()
            case "stage":
                self.stages.append((time.monotonic(), str(event["stage"])))
                if event["stage"] == "reducing":
                    self.ended = time.monotonic()
            case "shard":
                statuses = event["statuses"]
                assert isinstance(statuses, dict)
                self.done += sum(statuses.values())
                self.already += event["commit"] == "already"
            case "death":
                self.lost_attempts += 1
                self.fields_again += int(str(event["fields"]))
            case "warning":
                self.words.append(str(event["text"]))


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the driver; `seconds` are those of counting, `whole_s` those from start to exit."""

    code: int
    whole_s: float
    seconds: float
    log: Log
    kills: int
    looks: tuple[Look, ...]
    peak: int


@dataclass(frozen=True, slots=True)
class Memory:
    """The driver's own memory in the first and in the last third of the fields, medians, and its growth by 10,000 fields. MiB."""

    first: float
    last: float
    growth: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fields", type=int, default=100_000)
    parser.add_argument("--kills-per-minute", type=float, default=3.0)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=5400.0, help="end the driver after so many seconds")
    parser.add_argument("--keep", type=Path, help="work here and leave images and tables")
    parser.add_argument(
        "--record", action="store_true", help=f"write the table to docs/explanation/{RELIABILITY.name}"
    )
    arguments = parser.parse_args()
    with ExitStack() as stack:
        scratch = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cc-load-")))
        plates = MarkedPlates(arguments.fields, arguments.seed)
        source, output = scratch / "in", scratch / "out"
        print(f"drawing {plates.fields} fields", flush=True)
        plates.write(source)
        run = drive(source, output, arguments)
        if run.code != 0:
            raise SystemExit("\n".join([*run.log.words[-20:], f"the driver ended with exit code {run.code}"]))
        print(f"counted in {run.seconds:.0f} s, {run.kills} kills; judging", flush=True)
        verdict = judge(output, plates)
        proof = verify(output)
    table = table_of(run, verdict, proof, arguments)
    print("\n".join([*table, *verdict.examples]))
    record("load", table, page=RELIABILITY)
    if not (verdict.right and proof.code == 0):
        raise SystemExit("the output is not as it should be")


def drive(source: Path, output: Path, arguments: argparse.Namespace) -> Run:
    """Count `source` and kill actors meanwhile."""
    with tempfile.TemporaryDirectory(prefix="cc-ray-") as ray:
        command = [sys.executable, "-m", "cellcount_core.cli", "count", str(source), str(output)]
        command += ["--layout", "imagexpress", "--model", "threshold", "--progress", "json"]
        command += ["--actors", str(arguments.actors)]
        started = time.monotonic()
        driver = psutil.Popen(
            command, env=environment(Path(ray)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        log, looks = Log(), list[Look]()
        reader = threading.Thread(target=log.read, args=(driver.stderr,))
        reader.start()
        killer = Killer(driver, arguments.kills_per_minute, arguments.seed)
        try:
            while driver.poll() is None:
                looks += look(driver, log.done)
                if log.began is not None and log.ended is None:
                    killer.act(time.monotonic() - log.began)
                if time.monotonic() - started > arguments.limit_s:
                    break
                time.sleep(LOOK_S)
        finally:
            end(driver)
            reader.join()
        whole = time.monotonic() - started
    assert driver.returncode is not None
    counting = (log.ended or time.monotonic()) - (log.began or started)
    peak = max((seen.resident for seen in looks), default=0)
    within = tuple(seen for seen in looks if 0 < seen.done < log.done)
    return Run(driver.returncode, whole, counting, log, killer.kills, within, peak)


def end(driver: psutil.Popen) -> None:
    """Ask a driver that is still at work to stop, so that its Ray ends with it; insist after two minutes."""
    if driver.poll() is not None:
        return
    driver.terminate()
    try:
        driver.wait(timeout=120)
    except psutil.TimeoutExpired:
        driver.kill()
        driver.wait()


def environment(folder: Path) -> dict[str, str]:
    """This environment, with a Ray below `folder` that nobody else can join."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
    }


class Killer:
    """Ends random actors of a driver with SIGKILL."""

    def __init__(self, driver: psutil.Process, per_minute: float, seed: int) -> None:
        self._driver = driver
        self._rate_s = per_minute / 60
        self._random = random.Random(seed)
        self._due = self._wait()
        self._killed: set[psutil.Process] = set()

    @property
    def kills(self) -> int:
        """Actors that were up when they were killed."""
        return len(self._killed)

    def _wait(self) -> float:
        return self._random.expovariate(self._rate_s) if self._rate_s > 0 else float("inf")

    def act(self, seconds: float) -> None:
        """Kill what is due when counting has gone on for `seconds`. A kill waits while no actor is up."""
        while self._due <= seconds:
            # One that was killed can still be there for a moment.
            up = [actor for actor in actors_of(self._driver) if actor not in self._killed]
            if not up:
                return
            chosen = self._random.choice(up)
            try:
                chosen.kill()
            except psutil.NoSuchProcess:
                continue
            self._killed.add(chosen)
            self._due += self._wait()


def actors_of(driver: psutil.Process) -> list[psutil.Process]:
    """The actors that are up, by process id."""
    found = []
    for process in driver.children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE and "".join(process.cmdline()).startswith(_ACTOR):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.pid)


def look(driver: psutil.Process, done: int) -> list[Look]:
    """One look at the driver's memory; none where it has just ended."""
    try:
        seen = driver.memory_full_info()
    except psutil.Error:
        return []
    return [Look(done, seen.rss, seen.uss)]


@dataclass(frozen=True, slots=True)
class Proof:
    """How `cellcount verify` ended and what it said last."""

    code: int
    words: str
    seconds: float


def verify(output: Path) -> Proof:
    """Run it."""
    began = time.monotonic()
    command = [sys.executable, "-m", "cellcount_core.cli", "verify", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines() or [""]
    return Proof(done.returncode, lines[-1], time.monotonic() - began)


def memory_of(looks: Sequence[Look]) -> Memory:
    """From looks while fields were being committed. Raises ValueError where there are fewer than six."""
    if len(looks) < 6:
        raise ValueError(f"{len(looks)} looks at the driver are too few to tell whether it grows")
    whole = looks[-1].done
    first = [seen for seen in looks if seen.done <= whole / 3]
    last = [seen for seen in looks if seen.done >= whole * 2 / 3]
    before, after = (median(seen.own for seen in third) / _MIB for third in (first, last))
    apart = median(seen.done for seen in last) - median(seen.done for seen in first)
    return Memory(before, after, (after - before) / apart * 10_000)


def table_of(run: Run, verdict: Verdict, proof: Proof, arguments: argparse.Namespace) -> list[str]:
    """What is printed and recorded."""
    memory = memory_of(run.looks)
    log = run.log
    met = {True: "yes", False: "**no**"}
    return [
        f"{verdict.expected} fields of {SIDE_PX} x {SIDE_PX} px with 0 to {MOST_MARKS} objects, `threshold`, "
        f"{arguments.actors} actors on Ray, {arguments.kills_per_minute:g} random SIGKILLs of an actor a minute.",
        "",
        "| | | bar | met |",
        "|---|---|---|---|",
        f"| fields lost (no row) | {verdict.lost} | 0 | {met[verdict.lost == 0]} |",
        f"| fields doubled (more than one row) | {verdict.doubled} | 0 | {met[verdict.doubled == 0]} |",
        f"| rows of fields that are not there | {verdict.strange} | 0 | {met[verdict.strange == 0]} |",
        f"| fields not `ok` | {verdict.not_ok} | 0 | {met[verdict.not_ok == 0]} |",
        f"| fields of another count than drawn | {verdict.miscounted} | 0 | {met[verdict.miscounted == 0]} |",
        f"| fields whose objects are not those drawn | {verdict.misplaced} | 0 | {met[verdict.misplaced == 0]} |",
        f"| files left by those who died | {verdict.left} | 0 | {met[verdict.left == 0]} |",
        f"| `cellcount verify` ({proof.seconds:.0f} s) | {proof.words} | | {met[proof.code == 0]} |",
        f"| driver's own memory, growth by 10,000 fields | {memory.growth:+.2f} MiB | ≤ {FLAT_MIB:g} MiB | "
        f"{met[memory.growth <= FLAT_MIB]} |",
        f"| … in the first and in the last third | {memory.first:.1f}, {memory.last:.1f} MiB | | |",
        f"| driver's peak resident memory, planning and reducing included | {run.peak / _MIB:.0f} MiB | | |",
        f"| actors killed | {run.kills} | | |",
        f"| attempts lost with them | {log.lost_attempts} of {log.fields_again} fields, each done again | | |",
        f"| shards found committed when done again | {log.already} | | |",
        f"| objects | {verdict.objects} | | |",
        f"| counting | {run.seconds:.0f} s, {verdict.expected / run.seconds:.0f} fields/s | | |",
        f"| from start to exit | {run.whole_s:.0f} s | | |",
    ]


if __name__ == "__main__":
    main()
