"""Commands about an output: `cellcount reduce`, `verify`, `export`, `pictures`, and `demo`, which makes one and shows it."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cellcount_core.cli.counting import many, print_doubts, print_reasons, total_line
from cellcount_core.cli.progress import Display, open_display
from cellcount_core.domain.errors import ConfigFault, ExitCode, Status

if TYPE_CHECKING:
    from cellcount_core.stores.base import Store


def output_store(out: str, endpoint: str | None) -> Store:
    """The store of a run's output, at a place that a person named."""
    from cellcount_core.stores.open import asked_for, open_store

    return open_store(out, asked_for(out, endpoint=endpoint))


def reduce_again(out: str, endpoint: str | None) -> int:
    """Build the merged tables again, print what is in them and return the exit code."""
    import sys

    from cellcount_core.output.runfile import read_run
    from cellcount_core.reduce.reducer import reduce_run
    from cellcount_core.runners.lease import held

    store = output_store(out, endpoint)
    # Nothing is written into a folder that holds no run.
    read_run(store)
    with held(store, say=lambda text: print(text, file=sys.stderr)):
        summary = reduce_run(store)
    print(f"{total_line(summary)}, {many(summary.wells, 'well')}")
    print_reasons(summary.reasons, summary.examples)
    print_doubts(summary)
    return int(ExitCode.OK)


def verify_output(out: str, endpoint: str | None) -> int:
    """Check the ledger, print the proof or what contradicts it, and return the exit code."""
    from cellcount_core.reduce.verify import verify

    report = verify(output_store(out, endpoint))
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
    """Write a CSV with a row a field: what the run's task answers, its file, and what to know of it; and print which of it is doubtful. Returns the
    exit code.

    Raises OutputFault if the file cannot be written.
    """
    from cellcount_core.reduce.reducer import reduce_tables
    from cellcount_core.reduce.summary import results_csv

    store = output_store(out, endpoint)
    text, summary = results_csv(store), reduce_tables(store).summary
    _write_text(file, text)
    rows = text.count("\n") - 1
    print(f"{file}: {rows} field{'' if rows == 1 else 's'}, in the order of the rows of fields/")
    print_reasons(summary.reasons, summary.examples)
    print_doubts(summary)
    return int(ExitCode.OK)


def export_boxes(out: str, place: Path, kind: str, endpoint: str | None) -> int:
    """Write the boxes of a run's objects as COCO, Pascal VOC or YOLO into a folder (COCO also into a JSON file). Returns the exit code.

    Raises ConfigFault if the kind is not known, the run has no objects or the place holds something else, OutputFault if a file cannot
    be written.
    """
    from cellcount_core.labelled.box_folder import put_boxes
    from cellcount_core.labelled.box_writers import boxes_of_run, write_boxes

    found = boxes_of_run(output_store(out, endpoint))
    files = write_boxes(kind, found.images(), found.classes)
    written = put_boxes(place, kind, found.run.fingerprint, files)
    print(f"{place}: {many(written, 'file')}, classes {', '.join(found.classes)}")
    beside = "beside the JSON file" if kind == "coco" else "in its folder images/"
    print(f"no image is written: to read the boxes again, put the images {beside}")
    if found.left_out:
        print(
            f"{many(found.left_out, 'field')} left out that could not be counted; `cellcount export {shlex.quote(out)} FILE.csv` shows which"
        )
    return int(ExitCode.OK)


_SHOWN = 6

COUNTER_FILES = ("vicell", "asm")
"""Files as automated cell counters write them, by the name that `--to` gives."""


def export_samples(
    out: str, file: Path, kind: str, platemap: Path | None, measured: str | None, endpoint: str | None
) -> int:
    """Write the wells of a viability run as a cell counter does, into one file. Returns the exit code.

    Raises ConfigFault if the run is not one of viability, the plate map is wrong or the time is none, OutputFault if the file cannot be written.
    """
    from cellcount_core.plan.platemap import read_platemap
    from cellcount_core.report.counter_files import asm_json, left_out, vicell_csv
    from cellcount_core.report.samples import read_samples, sample_names, unknown_wells

    rows = () if platemap is None else read_platemap(str(platemap), needed=("sample",)).rows
    samples = read_samples(output_store(out, endpoint), sample_names(rows))
    strange = unknown_wells(rows, samples)
    when = None if measured is None else _time(measured)
    text = vicell_csv(samples, when) if kind == "vicell" else asm_json(samples, file.name, when)
    _write_text(file, text)
    left = left_out(samples) if kind == "asm" else {}
    written = [sample for sample in samples.wells if sample.key not in left]
    print(f"{file}: {many(len(written), 'sample')}")
    if strange:
        print(f"  {platemap} names {strange}")
    for why in dict.fromkeys(left.values()):
        names = [sample.name for sample in samples.wells if left.get(sample.key) == why]
        shown = ", ".join(names[:_SHOWN]) + (f" … and {len(names) - _SHOWN} more" if names[_SHOWN:] else "")
        print(f"  left out, as Allotrope's model takes no measurement of them: {shown} ({why})")
    for told, number in Counter(line for sample in written for line in sample.told).items():
        print(f"  {many(number, 'sample')}: {told}")
    return int(ExitCode.OK)


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigFault(
            f"--measured {text!r}: a time expected, for example 2026-11-30T09:00:00+00:00"
        ) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _write_text(file: Path, text: str) -> None:
    from cellcount_core.labelled.box_folder import put_file

    put_file(file, text.encode("utf-8"))


def assess_dilution(out: str, platemap: Path, file: Path | None, endpoint: str | None) -> int:
    """Print the indicators of a dilution series, write them as JSON if a file is named, and return the exit code."""
    import json

    from cellcount_core.report.dilution import dilution_reports, report_data, report_lines
    from cellcount_core.report.samples import read_samples

    reports = dilution_reports(read_samples(output_store(out, endpoint)), platemap)
    for report in reports:
        print("\n".join(report_lines(report)))
    if file is not None:
        _write_text(
            file, json.dumps(report_data(reports), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        )
        print(f"written to {file}")
    return int(ExitCode.OK)


def draw(out: str, fields: int, endpoint: str | None) -> int:
    """Draw the pictures of a run, print where they are and return the exit code."""
    from cellcount_core.report.pictures import draw_pictures
    from cellcount_core.stores.open import asked_for, open_store

    options = asked_for(out, endpoint=endpoint)
    pictures = draw_pictures(open_store(out, options), options, fields)
    place = out.rstrip("/")
    for key in (pictures.plate_map, *pictures.further_maps, pictures.overlays, *pictures.fields):
        print(f"{place}/{key}")
    for note in pictures.notes:
        print(note, file=sys.stderr)
    return int(ExitCode.OK)


_SEED = 96


def demonstrate(folder: Path, wells: int, runner: str) -> int:
    """Render a plate of `wells` wells with known counts, count it, compare and draw. Returns the count's exit
    code.

    Two files are damaged on purpose; the count accepts their failure.
    """
    from rich.console import Console

    from cellcount_core.config import JobConfig
    from cellcount_core.demo.compare import compare, print_comparison
    from cellcount_core.demo.plate import render_plate
    from cellcount_core.report.pictures import draw_pictures
    from cellcount_core.runners.job import run_job
    from cellcount_core.stores.base import StorageOptions
    from cellcount_core.stores.open import open_store

    output = folder / "out"
    with open_display(Display.AUTO if sys.stderr.isatty() else Display.QUIET) as events:
        print(f"rendering {wells} wells with known counts into {folder}", flush=True)
        plate = render_plate(folder, _SEED, wells=wells)
        job = JobConfig.model_validate(
            {
                "input": str(plate.images),
                "output": str(output),
                "run": {
                    "layout": {"kind": "imagexpress"},
                    "channels": {"nuclei": "w1"},
                    "measure": ["w1", "w2"],
                },
                "execution": {"runner": runner, "shard_fields": 16, "max_failed": 2},
            }
        )
        print("counting it with the shipped model", flush=True)
        result = run_job(job, events)
        events.stage("drawing pictures")
        pictures = draw_pictures(open_store(str(output), StorageOptions()), StorageOptions(), 6)
    print_comparison(compare(output, plate.truth_csv), Console(soft_wrap=False))
    print(
        f"counted in {result.seconds:.0f} s; tables: {output}/wells.parquet, {output}/fields/, {output}/objects/"
    )
    print(f"prove it:   cellcount verify {output}")
    print(f"plate map:  {output}/{pictures.plate_map}")
    print(f"overlays:   {output}/{pictures.overlays}")
    return int(result.exit_code)
