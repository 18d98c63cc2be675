"""The suites by name, how they are run, and the files each writes: NAME.json and NAME.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cellcount_core import __version__
from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.evaluation.assess import Data, ProgressCallback
from cellcount_core.evaluation.evaluate import Diameter
from cellcount_core.evaluation.result import write_files
from cellcount_core.evaluation.suites.accuracy import accuracy
from cellcount_core.evaluation.suites.base import (
    Asked,
    Counter,
    Suite,
    SuiteResult,
    SuiteTable,
    open_counters,
)
from cellcount_core.evaluation.suites.empty import empty
from cellcount_core.evaluation.suites.made_up import made_up
from cellcount_core.evaluation.suites.robustness import robustness
from cellcount_core.evaluation.suites.scale import scale
from cellcount_core.evaluation.suites.uncertainty import uncertainty
from cellcount_core.models.package import Package, shipped_folder
from cellcount_core.pipeline.context import prepare_process
from cellcount_core.tasks.task import TruthKind

Bars = Literal["shipped", "always"]
"""Which packages are held to the project's bars: those shipped with cellcount, or any."""

ALL = "all"
FORMAT = 1
_DIGITS = 6

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            "accuracy",
            "objects and counts, a column a package and engine",
            "data",
            accuracy,
            (TruthKind.LABELS, TruthKind.BOXES),
            "several",
        ),
        Suite("scale", "the same images at other magnifications, and how well sizes are told", "data", scale),
        Suite("robustness", "the same images degraded as microscopes and cameras do it", "data", robustness),
        Suite(
            "uncertainty",
            "whether intervals hold the truth, and strange images are told",
            "data",
            uncertainty,
        ),
        Suite("empty", "images in which there is nothing to count", "nothing", empty),
        Suite("made-up", "drawn nuclei of known number, from 8 to 120 px", "nothing", made_up),
    )
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A suite that was run: what it found, with or without bars, with which counters and on which data."""

    suite: str
    found: SuiteResult
    counters: tuple[Counter, ...]
    data: Data | None


def chosen_suites(names: Sequence[str]) -> list[Suite]:
    """The suites of these names, each once; `all` means every suite. Raises ConfigFault, naming the nearest known
    name, if a name is unknown."""
    for name in names:
        if name not in SUITES and name != ALL:
            raise ConfigFault(
                f"--suite {name!r} is unknown{nearest(name, [*SUITES, ALL])}; known: {', '.join([*SUITES, ALL])}"
            )
    return [suite for suite in SUITES.values() if suite.name in names or ALL in names]


def judging(suites: Sequence[Suite], names: Sequence[str], packages: Sequence[Package]) -> list[Suite]:
    """Those of the suites that can judge all the packages. With `all` the others are left out.

    Raises ConfigFault, which says why, if one that is asked for by name cannot, or if none can.
    """
    kept, reasons = [], []
    for suite in suites:
        why = next(filter(None, map(suite.why_not, packages)), "")
        if why and suite.name in names:
            raise ConfigFault(f"--suite {suite.name}: {why}")
        if why:
            reasons.append(f"{suite.name}: {why}")
        else:
            kept.append(suite)
    if not kept:
        raise ConfigFault(f"no suite can judge this package: {'; '.join(reasons)}")
    return kept


def refuse_idle_options(
    suites: Sequence[Suite], *, beside: Sequence[str], unlike: Sequence[str], engine: str
) -> None:
    """Raise ConfigFault if an option is given that none of the suites uses."""
    names = {suite.name for suite in suites}
    given = (
        ("--beside", bool(beside), "accuracy"),
        ("--engine with several names", "," in engine, "accuracy"),
        ("--unlike", bool(unlike), "uncertainty"),
    )
    for option, is_given, suite in given:
        if is_given and suite not in names:
            raise ConfigFault(f"{option} is of --suite {suite} alone; asked for: {', '.join(sorted(names))}")


def is_shipped(package: Package) -> bool:
    """Whether the package is shipped with cellcount and therefore held to the project's bars."""
    return package.folder.resolve().parent == shipped_folder().resolve()


def run_suites(
    suites: Sequence[Suite], packages: Sequence[Package], data: Data | None, *, engine: str, threads: int, diameter: Diameter,
    unlike: Sequence[str], limit: int | None, bars: Bars, progress: Callable[[str], ProgressCallback],
) -> Iterator[Measured]:  # fmt: skip
    """Run suites one after the other. The first package is measured; in `accuracy` the others stand beside it.

    `progress` returns the callback of a suite. Raises ConfigFault if a suite needs data that is missing, has no
    object, or cannot be counted.
    """
    suites = judging(suites, [suite.name for suite in suites], packages)
    for suite in suites:
        if suite.needs == "data" and data is None:
            raise ConfigFault(
                f"--suite {suite.name}: DATA expected, a folder of labelled images or an .npz with X and y"
            )
    prepare_process()
    counters = open_counters(packages, engine=engine, threads=threads, diameter=diameter)
    try:
        for suite in suites:
            if suite.needs == "data":
                assert data is not None
                _refuse_without_objects(data, packages[0].input.channels)
            found = suite.run(Asked(counters, data, tuple(unlike), limit, progress(suite.name)))
            if bars == "shipped" and not is_shipped(packages[0]):
                found = SuiteResult(
                    found.caption, tuple(table.without_bars() for table in found.tables), found.notes
                )
            yield Measured(suite.name, found, counters, data)
    finally:
        for counter in counters:
            counter.close()


def _refuse_without_objects(data: Data, roles: tuple[str, ...]) -> None:
    if not any(entry.load(roles).diameter_px > 0 for entry in data.entries):
        raise ConfigFault(
            f"{data.path}: no object in the labels of {len(data.entries)} images; only --suite empty can use them"
        )


def write_measured(measured: Measured, folder: Path) -> list[Path]:
    """Write the suite's JSON and Markdown into `folder`, which is created if needed, and return both paths.

    The files hold neither time nor host. Raises OutputFault naming the file that cannot be written.
    """
    return write_files(
        folder,
        {
            f"{measured.suite}.json": json.dumps(
                as_json(measured), indent=1, ensure_ascii=False, allow_nan=False
            )
            + "\n",
            f"{measured.suite}.md": "\n".join(markdown(measured)) + "\n",
        },
    )


def as_json(measured: Measured) -> dict[str, object]:
    """All values, with floats rounded to six digits and null for undefined values. Rows include their bars if these
    apply."""
    counters, data = measured.counters, measured.data
    return {
        "format": FORMAT,
        "cellcount": __version__,
        "suite": measured.suite,
        "packages": [
            {
                "name": counter.package.name, "version": counter.package.version, "digest": counter.package.digest,
                "engine": counter.engine,
            }
            for counter in counters
        ],
        "diameter": counters[0].diameter,
        "data": None if data is None else {
            "path": data.path, "kind": data.kind, "split": data.split, "modality": list(data.modality), "images": len(data.entries),
        },
        "notes": list(measured.found.notes),
        "tables": {table.name: _rows(table) for table in measured.found.tables},
    }  # fmt: skip


def _rows(table: SuiteTable) -> list[dict[str, object]]:
    return [
        {
            column.name: round(each.value, _DIGITS) if isinstance(each.value, float) else each.value
            for column, each in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]


def markdown(measured: Measured) -> list[str]:
    """The caption, the tables and the notes, as lines of Markdown."""
    lines = [measured.found.caption]
    for table in measured.found.tables:
        lines += [
            "",
            f"| {' | '.join(column.title for column in table.columns)} |",
            "|" + "---|" * len(table.columns),
        ]
        lines += [f"| {' | '.join(each.judged for each in row)} |" for row in table.rows]
    for note in measured.found.notes:
        lines += ["", note]
    return lines


def aligned(measured: Measured) -> list[str]:
    """The same for a terminal: columns of equal width, text to the left and numbers to the right."""
    lines = [measured.found.caption]
    for table in measured.found.tables:
        texts = [
            [column.title for column in table.columns],
            *([each.judged for each in row] for row in table.rows),
        ]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        left = [
            all(isinstance(row[at].value, str) or row[at].value is None for row in table.rows)
            for at in range(len(table.columns))
        ]
        lines.append("")
        for row in texts:
            shown = [
                text.ljust(width) if to_left else text.rjust(width)
                for text, width, to_left in zip(row, widths, left, strict=True)
            ]
            lines.append("  ".join(shown).rstrip())
    for note in measured.found.notes:
        lines += ["", note]
    return lines
