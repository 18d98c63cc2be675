"""`cellcount reduce`, `verify`, `export` and `models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cellcount_core.cli.counting import many, print_doubts, print_reasons, total_line
from cellcount_core.domain.errors import ExitCode, OutputFault, Status

if TYPE_CHECKING:
    from cellcount_core.stores.base import Store


def open_output(out: str, endpoint: str | None) -> Store:
    """The store of a run's output."""
    from cellcount_core.stores.open import asked_for, open_store

    return open_store(out, asked_for(out, endpoint=endpoint))


def reduce_again(out: str, endpoint: str | None) -> int:
    """Build the merged tables anew."""
    import sys

    from cellcount_core.output.runfile import read_run
    from cellcount_core.reduce.reducer import reduce_run
    from cellcount_core.runners.lease import held

    store = open_output(out, endpoint)
    # Nothing is written into a folder that holds no run.
    read_run(store)
    with held(store, say=lambda text: print(text, file=sys.stderr)):
        summary = reduce_run(store)
    print(f"{total_line(summary)}, {many(summary.wells, 'well')}")
    print_reasons(summary.reasons, summary.examples)
    print_doubts(summary)
    return int(ExitCode.OK)


def verify_output(out: str, endpoint: str | None) -> int:
    """Prove the ledger, or say what contradicts it."""
    from cellcount_core.reduce.verify import verify

    report = verify(open_output(out, endpoint))
    tally = " + ".join(f"{report.statuses[status.value]} {status.value}" for status in Status)
    objects = "" if report.objects is None else f", {many(report.objects, 'object')}"
    print(f"{report.fields} expected = {tally}; {many(report.shards, 'shard')}{objects}")
    for line in report.told:
        print(f"  {line}")
    for finding in report.findings:
        print(f"  {finding}")
    if report.found > len(report.findings):
        print(f"  … and {report.found - len(report.findings)} more")
    print(
        "the ledger holds" if report.proven else f"the ledger does not hold: {many(report.found, 'finding')}"
    )
    return int(ExitCode.OK if report.proven else ExitCode.LEDGER)


def export_counts(out: str, file: Path, endpoint: str | None) -> int:
    """Write `index,count`, or whatever the run's task answers of a field."""
    from cellcount_core.reduce.summary import results_csv

    text = results_csv(open_output(out, endpoint))
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputFault(f"{file}: cannot be written: {error.strerror}") from error
    rows = text.count("\n") - 1
    print(f"{file}: {rows} field{'' if rows == 1 else 's'}, in the order of the rows of fields/")
    return int(ExitCode.OK)


def list_models() -> int:
    """Print the shipped packages with what they were measured at."""
    from cellcount_core.models.package import shipped_packages

    for package in shipped_packages():
        scale = f"objects of {package.input.diameter_px:g} px" if package.input.diameter_px else "any scale"
        tells = f"counts {package.object_name} ({scale})" if package.object_name else f"task {package.task}"
        print(f"{package.name} {package.version}  {package.digest[:12]}  {tells}")
        print(
            f"    for {', '.join(package.modality)}; engines: {', '.join(package.engines)}; channels: {', '.join(package.input.channels)}"
        )
        if "f1_50" in package.accuracy:
            print(f"    F1 at IoU 0.5: {package.accuracy['f1_50']:.3f} ({package.accuracy['data']})")
    return int(ExitCode.OK)
