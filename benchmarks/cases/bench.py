"""What every case is run with: the command line as a user types it, in an empty home, and the tables it leaves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
_LONGEST_S = 600


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of the table: what was given, what is right, what was seen, and whether that will do."""

    given: str
    right: str
    seen: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended: its exit code, all that it printed (the case's own folder left out of paths), its wall time and
    its time on CPUs (s)."""

    code: int
    text: str
    wall_s: float
    cpu_s: float

    def says(self, *patterns: str) -> bool:
        """Whether every regular expression is found in what it printed, in any case of letters."""
        return all(re.search(pattern, self.text, re.IGNORECASE) for pattern in patterns)

    @property
    def last(self) -> str:
        """Its last line that is not empty, cut to what a table holds."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return short(lines[-1]) if lines else ""

    @property
    def traceback(self) -> bool:
        """Whether it printed a traceback."""
        return "Traceback (most recent call last)" in self.text


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder of its own for one case, an empty home, and `data` where the real images are (None: not here)."""

    folder: Path
    data: Path | None
    environment: Mapping[str, str] = field(default_factory=dict)

    def new(self, name: str) -> Path:
        """A new folder."""
        made = self.folder / name
        made.mkdir(parents=True)
        return made

    def run(
        self, *words: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Done:
        """`cellcount WORDS` in a process of its own. `environment` is laid over a clean one with an empty home."""
        command = [sys.executable, "-m", "cellcount_core.cli", *(str(word) for word in words)]
        return self.call(command, cwd=cwd, environment=environment)

    def call(
        self, command: Sequence[str], cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Done:
        """Any command, in the same environment."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        kept = {
            name: os.environ[name] for name in ("PATH", "LANG", "OPENBLAS_CORETYPE") if name in os.environ
        }
        clean = {
            **kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "200",
            **self.environment, **(environment or {}),
        }  # fmt: skip
        began, before = time.perf_counter(), os.times()
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=clean, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=False, timeout=_LONGEST_S,
        )  # fmt: skip
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        said = done.stdout.replace(f"{self.folder}/", "")
        return Done(done.returncode, said, time.perf_counter() - began, cpu)

    def count(self, source: Path, *options: str, out: Path | None = None) -> Counted:
        """`cellcount count SOURCE OUT --runner serial OPTIONS`."""
        output = out or self.folder / f"out-{len(list(self.folder.glob('out-*')))}"
        return Counted(self.run("count", source, output, "--runner", "serial", *options), output)


@dataclass(frozen=True, slots=True)
class Counted:
    """A count and the folder of its tables."""

    done: Done
    out: Path

    def table(self, name: str) -> pa.Table | None:
        """All rows of `fields`, `objects`, `wells.parquet` or `plates.parquet`; None where there are none."""
        place = self.out / name
        parts = sorted(place.glob("*.parquet")) if place.is_dir() else [place] if place.is_file() else []
        if not parts:
            return None
        return pa.concat_tables([pq.read_table(part).replace_schema_metadata(None) for part in parts])

    def rows(self) -> list[dict[str, object]]:
        """The fields table, a dictionary a row."""
        table = self.table("fields")
        return [] if table is None else list(table.to_pylist())

    def counts(self) -> list[int | None]:
        """The count of every field, in the order of the rows; None where it was not counted."""
        return [row["count"] if isinstance(row["count"], int) else None for row in self.rows()]

    def total(self) -> int:
        """Objects counted in all fields."""
        return sum(count or 0 for count in self.counts())

    def warned(self) -> set[str]:
        """Warning codes of all rows, without what follows a colon."""
        found = [code for row in self.rows() for code in _strings(row["warnings"])]
        return {code.partition(":")[0] for code in found}

    def reasons(self) -> set[str]:
        """Reason codes of all rows that have one."""
        return {str(row["reason"]) for row in self.rows() if row["reason"] is not None}

    def seen(self) -> str:
        """Counts, reasons and warnings in few words."""
        if not self.rows():
            return f"exit {self.done.code}: {self.done.last}"
        counts = [str(count) for count in self.counts() if count is not None]
        words = (
            [", ".join(counts[:8]) + (f" … ({len(counts)} fields)" if counts[8:] else "")] if counts else []
        )
        words += sorted(self.reasons()) + sorted(self.warned())
        return "; ".join(words) + (f"; exit {self.done.code}" if self.done.code else "")


Case = Callable[[Bench], Iterator[Seen]]


def near(count: int, right: int, share: float = 0.03) -> bool:
    """Within a share of what is right, and always within less than one object."""
    return abs(count - right) <= share * right + 1e-9


def short(text: str, length: int = 160) -> str:
    """Text that fits a cell of the table."""
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= length else line[: length - 1] + "…"


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
