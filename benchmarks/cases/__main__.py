"""Every kind of input that was once counted or answered wrongly, tried anew: what is right, what is seen.

    python -m benchmarks.cases [DATA] [--only A1 B6] [--keep FOLDER] [--record]

DATA is the folder that holds dsb2018_nuclei/; lines that need it are left out without it. `--record` writes the table to
docs/explanation/cases.md. The exit code is 1 where a line is not as it should be.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.cases.bench import Bench, Case, Seen, short
from benchmarks.cases.counts import COUNTS
from benchmarks.cases.runs import RUNS
from benchmarks.record import CASES, record


def main() -> int:
    """Run, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", help="the folder that holds dsb2018_nuclei/")
    parser.add_argument("--only", nargs="+", metavar="ROW", default=[], help="rows to run: A1 B6 …")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep inputs and outputs here")
    parser.add_argument("--record", action="store_true", help="write the table to docs/explanation/cases.md")
    given = parser.parse_args()
    bad = False
    with tempfile.TemporaryDirectory(prefix="cases-") as scratch:
        folder = (given.keep or Path(scratch)).resolve()
        for part, cases in (("counts", COUNTS), ("runs", RUNS)):
            chosen = {row: case for row, case in cases.items() if not given.only or row in given.only}
            table = ["| row | given | right | seen | |", "|---|---|---|---|---|"]
            for row, (kind, case) in chosen.items():
                print(f"{row} {kind}", file=sys.stderr, flush=True)
                for seen in _lines(case, Bench(folder / row, given.data.resolve() if given.data else None)):
                    bad = bad or not seen.passed
                    table.append(_line(row, kind, seen))
                    print(table[-1], flush=True)
            if chosen == cases:
                record(f"cases-{part}", table, CASES)
    return int(bad)


def _lines(case: Case, bench: Bench) -> Iterator[Seen]:
    """The lines of a case; one that breaks off is a line that did not pass, and the others go on."""
    bench.folder.mkdir(parents=True)
    try:
        yield from case(bench)
    except (OSError, LookupError, ValueError, TypeError, AttributeError, subprocess.TimeoutExpired) as error:
        yield Seen("the rest of this row", "", f"{type(error).__name__}: {short(str(error))}", False)


def _line(row: str, kind: str, seen: Seen) -> str:
    cells: Sequence[str] = (
        f"{row} {kind}", short(seen.given), seen.right, short(seen.seen), "yes" if seen.passed else "**no**",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
