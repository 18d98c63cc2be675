"""What the commands about a finished run take, and `cellcount demo`: `reduce`, `verify`, `export`, `dilution`, `pictures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellcount_core.cli.options import (
    Endpoint,
    Out,
    Runner,
)


def reduce(out: Out, endpoint: Endpoint = None) -> None:
    """Build wells, plates and summary again from the parts of a run.

    Example: cellcount reduce ./out
    """
    from cellcount_core.cli import outputs

    raise typer.Exit(outputs.reduce_again(out, endpoint))


def verify(out: Out, endpoint: Endpoint = None) -> None:
    """Prove the ledger: every expected field once, digests, row counts, objects a field.

    Example: cellcount verify ./out
    """
    from cellcount_core.cli import outputs

    raise typer.Exit(outputs.verify_output(out, endpoint))


def export(
    out: Out,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="File to write (CSV, or JSON with --to asm or coco); with --to coco, voc or yolo a new folder.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="vicell|asm|coco|voc|yolo",
            help="Write instead: all wells of a viability run as the CSV of a Vi-CELL BLU (vicell) or as Allotrope JSON (asm); or the box of every "
            "object, as COCO JSON, Pascal VOC XML or YOLO text files.",
        ),
    ] = None,
    platemap: Annotated[
        Path | None,
        typer.Option(
            "--platemap",
            metavar="FILE",
            help="With vicell and asm: a CSV with columns well and sample, which names the samples.",
        ),
    ] = None,
    measured: Annotated[
        str | None,
        typer.Option(
            "--measured",
            metavar="TIME",
            help="With vicell and asm: time to state, e.g. 2026-11-30T09:00:00+00:00. Default: when the run was counted.",
        ),
    ] = None,
    endpoint: Endpoint = None,
) -> None:
    """Write the plain table, a row an image in key order: index, count (or what the task answers) with its interval, file, plate, well,
    site, status, reason, warnings in words; or a file as cell counters write it; or the boxes of all objects.

    Examples:

      cellcount export ./out counts.csv

      cellcount export ./out ./boxes --to coco

      cellcount export ./out viability.csv --to vicell

      cellcount export ./out viability.json --to asm --platemap samples.csv
    """
    from cellcount_core.cli import outputs

    if to in outputs.COUNTER_FILES:
        raise typer.Exit(outputs.export_samples(out, file, to, platemap, measured, endpoint))
    if platemap is not None or measured is not None:
        raise typer.BadParameter(
            "--platemap and --measured are of --to vicell and --to asm; give one of them"
        )
    if to is None:
        raise typer.Exit(outputs.export_counts(out, file, endpoint))
    raise typer.Exit(outputs.export_boxes(out, file, to, endpoint))


def dilution(
    out: Out,
    platemap: Annotated[
        Path,
        typer.Option(
            "--platemap",
            metavar="FILE",
            help="CSV with the columns well, sample and dilution (times: 1, 2, 4 …).",
            show_default=False,
        ),
    ],
    file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON too.")
    ] = None,
    endpoint: Endpoint = None,
) -> None:
    """Tell how well the counts of a viability run follow a dilution series, by the indicators of ISO 20391-2: variation between
    replicates, R² of the proportional fit, proportionality index. They say nothing of accuracy.

    Example: cellcount dilution ./out --platemap series.csv
    """
    from cellcount_core.cli import outputs

    raise typer.Exit(outputs.assess_dilution(out, platemap, file, endpoint))


def pictures(
    out: Out,
    fields: Annotated[
        int, typer.Option("--fields", metavar="N", help="How many fields to draw.", min=1, max=60)
    ] = 6,
    endpoint: Endpoint = None,
) -> None:
    """Draw the plate map and overlays of a few fields of a finished run, so that one can look at what was counted.

    Example: cellcount pictures ./out --fields 6
    """
    from cellcount_core.cli import outputs

    raise typer.Exit(outputs.draw(out, fields, endpoint))


def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write to.")] = Path("demo"),
    wells: Annotated[
        int, typer.Option("--wells", metavar="N", help="Wells to render (1 to 96).", min=1, max=96)
    ] = 96,
    runner: Runner = None,
) -> None:
    """Render a plate with known counts, count it, and compare.

    Example: cellcount demo demo
    """
    from cellcount_core.cli import outputs

    raise typer.Exit(outputs.demonstrate(folder, wells, runner or "auto"))
