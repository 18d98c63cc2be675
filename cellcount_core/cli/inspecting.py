"""`cellcount layout test`: how the names of an input are read, as a table. `cellcount check`: all that is wrong with an input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from cellcount_core.cli.counting import many, size_text
from cellcount_core.config import JobConfig
from cellcount_core.domain.errors import ConfigFault, ExitCode

if TYPE_CHECKING:
    from cellcount_core.models.package import Package
    from cellcount_core.plan.check import Checked
    from cellcount_core.plan.inspect import Outcome, PlateNames

_SHOWN_PLATES = 20
_SHOWN_NAMES = 8
_WIDEST = 80


def test_layout(job: JobConfig) -> int:
    """Print how names are read, and what is found; return OK if a plan would read all of them."""
    from cellcount_core.plan.inspect import inspected, outcomes, plates, why_unread
    from cellcount_core.runners.places import open_job_input, storage_options

    source = open_job_input(job)
    try:
        with inspected(source, job.run, options=storage_options(job.storage)) as seen:
            print(f"layout: {seen.layout}\n")
            rows = [row for each in outcomes(seen) for row in _rows(each)]
            print_table(("name is read as", "files", "for example"), rows)
            print()
            for number, plate in enumerate(plates(seen)):
                if number == _SHOWN_PLATES:
                    print("… and more plates")
                    break
                print(_plate_line(plate))
            found = seen.discovery.found
            for warning in seen.discovery.facts.warnings:
                print(f"warning: {warning}")
            for key in found.unparsed_examples:
                print(f"not read: {key}: {why_unread(key, seen.run)}")
            good = bool(len(seen.discovery.sorter)) and not found.unparsed
            return int(ExitCode.OK if good else ExitCode.CONFIG)
    except ConfigFault as fault:
        print(f"no layout: {fault}\n")
        _print_tried(job)
        return int(ExitCode.CONFIG)


_BYTES_A_FIELD = 6_500
_BYTES_AN_OBJECT = 66
_OBJECTS_A_FIELD = 100
"""What tables take on disk, measured on 96 fields of BBBC013 with 193 objects each; objects are not known before they are counted."""


def check(job: JobConfig, price: float | None, workers: int | None) -> int:
    """Print all that is wrong with an input, and how much work it is. Return CONFIG if a plan would stop, FAILURES if there are other faults."""
    from cellcount_core.models.package import find_package
    from cellcount_core.plan.check import Weight, checked
    from cellcount_core.plan.inspect import inspected
    from cellcount_core.runners.places import open_job_input, storage_options

    package = find_package(job.run.model.package)
    source = open_job_input(job)
    try:
        with inspected(source, job.run, options=storage_options(job.storage)) as seen:
            print(f"layout: {seen.layout}")
            told = checked(source, seen, package.input.channels)
    except ConfigFault as fault:
        print(f"stop: {fault}")
        print("1 fault; `cellcount layout test` tells what each layout reads")
        return int(ExitCode.CONFIG)
    for plate in told.plates[:_SHOWN_PLATES]:
        print(_plate_line(plate))
    if told.fields:
        print(_work_line(told, package, price, workers))
    for weight in Weight:
        for each in told.findings:
            if each.weight is weight:
                print(f"{weight.value}: {each.told}")
    weights = [each.weight for each in told.findings]
    bad = len(weights) - weights.count(Weight.NOTE)
    print(f"{many(bad, 'fault')}; {many(told.sampled, 'image')} opened")
    if Weight.STOP in weights:
        return int(ExitCode.CONFIG)
    return int(ExitCode.FAILURES if bad else ExitCode.OK)


def _work_line(told: Checked, package: Package, price: float | None, workers: int | None) -> str:
    """How much there is to do, in words."""
    from cellcount_core.models.engines import resolve_engine
    from cellcount_core.output.planfile import usable_cores
    from cellcount_core.runners.fanout import s_per_megapixel

    cores = workers or usable_cores()
    engine = resolve_engine(package, "auto", gpus=0)
    roles = max(1, len(package.input.channels))
    seconds = told.fields * told.megapixels * s_per_megapixel(package, engine) * roles / cores
    written = told.fields * (_BYTES_A_FIELD + _OBJECTS_A_FIELD * _BYTES_AN_OBJECT)
    line = (
        f"work: {many(told.fields, 'field')}, {many(told.files, 'file')}, {size_text(told.size)} to read; about {size_text(written)} to write"
        f" ({_OBJECTS_A_FIELD} objects a field); roughly {_minutes(seconds)} on {many(cores, 'core')} without a GPU, at the objects' own size"
    )
    return line if price is None else f"{line}; cost {price * seconds / 3600:.2g} at {price:g} an hour"


def _minutes(seconds: float) -> str:
    if seconds < 60:
        return "a minute"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _rows(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """The rows of an outcome, one for each example."""
    first, *others = outcome.examples or ("",)
    yield outcome.what, str(outcome.number), first
    for each in others:
        yield "", "", each


def _print_tried(job: JobConfig) -> None:
    """What each layout makes of the names."""
    from cellcount_core.layouts.auto import tried
    from cellcount_core.plan.choose import first_keys
    from cellcount_core.runners.places import open_job_input

    rows = [
        (one.kind, str(one.read), one.example or ", ".join(one.metadata[:1]), one.unread)
        for one in tried(first_keys(open_job_input(job), job.run))
    ]
    if rows:
        print_table(("layout", "reads", "for example", "and not"), rows)
    else:
        print("no layout but flat reads a name of it")


def _plate_line(plate: PlateNames) -> str:
    wells = sorted(plate.wells)
    facts = plate.facts
    told = [
        f"{many(len(wells), 'well')} ({_few(wells)})",
        f"{many(len(plate.sites), 'site')} ({_numbers(plate.sites)})",
        f"channels {', '.join(channel or 'none in the names' for channel in sorted(plate.channels))}",
    ]
    if facts is not None and facts.channels:
        told[-1] += f" ({', '.join(f'{channel}: {name}' for channel, name in facts.channels if name)})"
    if plate.planes != {0}:
        told.append(f"planes {_numbers(plate.planes)}")
    told.append(f"times {_numbers(plate.timepoints)}")
    if facts is not None:
        told += [f"{facts.rows} x {facts.columns} wells"] if facts.rows and facts.columns else []
        told += [f"{facts.um_per_px:.4g} um/px"] if facts.um_per_px is not None else []
        told.append(f"by {facts.source}")
    return f"plate {plate.plate!r}: {many(plate.fields, 'field')}; {'; '.join(told)}"


def _few(names: Sequence[str]) -> str:
    shown = names if len(names) <= _SHOWN_NAMES else [*names[: _SHOWN_NAMES - 1], "…", names[-1]]
    return ", ".join(shown)


def _numbers(numbers: Iterable[int]) -> str:
    """Numbers with runs drawn together: "1-4, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1][-1:] = [number] if len(runs[-1]) > 1 else [runs[-1][0], number]
        else:
            runs.append([number])
    return _few(["-".join(map(str, dict.fromkeys(run))) for run in runs])


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with columns as wide as their widest cell; the last one is not cut."""
    widths = [min(_WIDEST, max(len(row[at]) for row in (head, *rows))) for at in range(len(head))]
    for row in (head, *rows):
        print("  ".join(_cells(row, widths)).rstrip())


def _cells(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
        last = number == len(row) - 1
        yield cell if last else f"{cell:>{width}}" if cell.isdigit() else f"{cell:<{width}}"
