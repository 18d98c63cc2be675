"""What the commands that look at an input without counting it take: `cellcount layout test`, `check`."""

from __future__ import annotations

from typing import Annotated

import typer

from cellcount_core.cli.options import (
    Anonymous,
    Channel,
    Endpoint,
    Input,
    Layout,
    Measure,
    Model,
    PlateFormat,
    Set,
    UmPerPx,
)

layout = typer.Typer(
    help="See how the names of an input are read.\n\nExample: cellcount layout test ./plate",
    rich_markup_mode=None,
)


@layout.command("test", short_help="Say how each name is read, and what does not parse and why.")
def test_layout(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="[PATTERN] PATH",
            help="Folder or s3:// prefix of images; before it, a regular expression for --layout pattern.",
            show_default=False,
        ),
    ],
    layout: Layout = None,
    plate_format: PlateFormat = None,
    assignments: Set = None,
    endpoint: Endpoint = None,
    anonymous: Anonymous = False,
) -> None:
    """Say how the names of an input are read, as a table: images, metadata files, what is left out and why, names that do not parse and why;
    and the wells, sites, channels, planes and time points found. No image is opened, nothing is written.

    It ends with exit code 2 where a plan would stop: a name does not parse, or no layout is plain.

    Examples:

      cellcount layout test ./plate

      cellcount layout test ./plate --layout imagexpress

      cellcount layout test '(?P<well>[A-H][0-9]+)_s(?P<site>[0-9]+)' ./plate
    """
    from cellcount_core.cli import inspecting
    from cellcount_core.cli.arguments import job_from_arguments

    if len(places) > 2:
        raise typer.BadParameter(
            "PATH, or PATTERN and PATH are expected; quote a pattern, or the shell takes it apart"
        )
    settings: dict[str, object] = {"run.plate_format": plate_format}
    if len(places) == 2:
        if layout not in (None, "pattern"):
            raise typer.BadParameter(f"a PATTERN is of --layout pattern, not of {layout}")
        layout, settings = "pattern", settings | {"run.layout.pattern": places[0]}
    job = job_from_arguments(
        source=places[-1], output="(none)", layout=layout, assignments=assignments, endpoint=endpoint,
        anonymous=anonymous, settings=settings,
    )  # fmt: skip
    raise typer.Exit(inspecting.test_layout(job))


def check(
    source: Input,
    layout: Layout = None,
    channel: Channel = None,
    measure: Measure = None,
    model: Model = None,
    um_per_px: UmPerPx = None,
    plate_format: PlateFormat = None,
    price: Annotated[
        float | None,
        typer.Option(
            "--price", metavar="PER_HOUR", help="What the machine costs an hour, to estimate the cost.", min=0
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--cores",
            metavar="N",
            help="Cores to estimate the time for; those of this machine by default.",
            min=1,
        ),
    ] = None,
    assignments: Set = None,
    endpoint: Endpoint = None,
    anonymous: Anonymous = False,
) -> None:
    """Tell all that is wrong with an input before it is counted: names that do not parse, wells with other numbers of sites than most, missing
    fields and channels, files of the same content, and by a sample of the images those that are cut short, differ in size or type, hold zeros
    alone, or contradict the metadata in their pixel size. And how many bytes, minutes and how much money a count takes.

    A line each, in one report: "stop" (a count would be refused, exit code 2), "fault" (fields would fail, be missing or wrong, exit code 3),
    "note". Nothing is written, and no model is loaded.

    Examples:

      cellcount check ./plate --channel DAPI

      cellcount check s3://bucket/plate --channel w1 --price 2.5 --cores 64
    """
    from cellcount_core.cli import inspecting
    from cellcount_core.cli.arguments import job_from_arguments

    job = job_from_arguments(
        source=source, output="(none)", layout=layout, channels=channel, measure=measure, model=model,
        assignments=assignments, endpoint=endpoint, anonymous=anonymous,
        settings={"run.um_per_px": um_per_px, "run.plate_format": plate_format},
    )  # fmt: skip
    raise typer.Exit(inspecting.check(job, price, workers))
