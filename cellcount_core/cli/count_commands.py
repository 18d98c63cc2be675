"""What `cellcount count`, `plan`, `retry`, `nightly` and `submit` take and what `--help` says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellcount_core.cli.options import (
    Actors,
    Address,
    Anonymous,
    Chamber,
    Channel,
    Control,
    Crop,
    Depth,
    Diameter,
    Dilution,
    Endpoint,
    Input,
    Labels,
    Layout,
    MaxDiameter,
    MaxFailed,
    Measure,
    MinCircularity,
    MinDiameter,
    Model,
    Objects,
    Out,
    Output,
    Per,
    PlateFormat,
    PlateMap,
    Progress,
    Runner,
    Set,
    Strict,
    Threshold,
    UmPerPx,
    Update,
)
from cellcount_core.cli.progress import Display


def count(
    source: Input,
    output: Output = None,
    layout: Layout = None,
    plate_format: PlateFormat = None,
    platemap: PlateMap = None,
    channel: Channel = None,
    measure: Measure = None,
    model: Model = None,
    diameter: Diameter = None,
    um_per_px: UmPerPx = None,
    labels: Labels = False,
    threshold: Threshold = None,
    control: Control = None,
    min_diameter: MinDiameter = None,
    max_diameter: MaxDiameter = None,
    min_circularity: MinCircularity = None,
    chamber: Chamber = None,
    depth: Depth = None,
    dilution: Dilution = None,
    per: Per = None,
    objects: Objects = None,
    crop: Crop = None,
    assignments: Set = None,
    runner: Runner = None,
    address: Address = None,
    actors: Actors = None,
    endpoint: Endpoint = None,
    anonymous: Anonymous = False,
    max_failed: MaxFailed = None,
    strict: Strict = False,
    update: Update = False,
    progress: Progress = Display.AUTO,
) -> None:
    """Count every field of INPUT and write tables to OUTPUT.

    Run the same command again after a stop: only what is not committed is done.

    Examples:

      cellcount count ./plate ./out --layout imagexpress --channel w1

      cellcount count s3://bucket/plate s3://bucket/counts --endpoint http://127.0.0.1:9000

      cellcount count conf/count.yaml --set execution.actors=4

      cellcount count ./plate ./out --platemap ./platemap.csv

      cellcount count ./plate ./out --update

      cellcount count ./plate ./out --layout imagexpress --model viability-fluorescence --channel all=w1 --channel dead=w2 --min-diameter 7um

      cellcount count ./chamber ./out --model viability-live-dead --channel live=green --channel dead=red --um-per-px 0.65 --chamber improved_neubauer --dilution 2
    """
    from cellcount_core.cli import counting
    from cellcount_core.cli.arguments import ToUpdate, job_from_arguments, run_to_update, task_settings

    known = ToUpdate(source, output, None)
    if update:
        known = run_to_update(source, output, endpoint=endpoint, anonymous=anonymous, assignments=assignments)
    job = job_from_arguments(
        source=known.source, output=known.output, run=known.run, layout=layout, channels=channel, measure=measure, model=model, diameter=diameter,
        labels=labels, assignments=assignments, runner=runner, address=address, actors=actors, endpoint=endpoint,
        anonymous=anonymous, max_failed=max_failed, strict=strict,
        settings={"run.plate_format": plate_format, "run.platemap": platemap, **task_settings(
            um_per_px=um_per_px, thresholds=threshold, controls=control, min_diameter=min_diameter, max_diameter=max_diameter,
            min_circularity=min_circularity, chamber=chamber, depth_um=depth, dilution=dilution, per=per, objects=objects, crop_px=crop,
        )},
    )  # fmt: skip
    raise typer.Exit((counting.update if update else counting.count)(job, progress))


def retry(
    out: Out,
    reason: Annotated[
        list[str] | None,
        typer.Option("--reason", metavar="CODE", help="Only fields that failed for this reason. Repeatable."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="INPUT", help="Where the images are now, if the run knew them elsewhere."
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of execution or storage, e.g. execution.shard_timeout_s=3600. Repeatable.",
        ),
    ] = None,
    runner: Runner = None,
    address: Address = None,
    actors: Actors = None,
    endpoint: Endpoint = None,
    progress: Progress = Display.AUTO,
) -> None:
    """Try the fields of a finished run that failed or were missing again, with the run's own model and settings.

    What is counted already is neither read nor changed. A file that was replaced since the run was planned stays failed.

    Examples:

      cellcount retry ./out

      cellcount retry ./out --reason out_of_memory --actors 1
    """
    from cellcount_core.cli import counting

    raise typer.Exit(
        counting.retry(
            out, source=source, reasons=reason or [], assignments=assignments or [], runner=runner, address=address,
            actors=actors, endpoint=endpoint, display=progress,
        )
    )  # fmt: skip


def plan(
    source: Input,
    layout: Layout = None,
    plate_format: PlateFormat = None,
    platemap: PlateMap = None,
    channel: Channel = None,
    measure: Measure = None,
    model: Model = None,
    diameter: Diameter = None,
    um_per_px: UmPerPx = None,
    threshold: Threshold = None,
    control: Control = None,
    min_diameter: MinDiameter = None,
    max_diameter: MaxDiameter = None,
    min_circularity: MinCircularity = None,
    chamber: Chamber = None,
    depth: Depth = None,
    dilution: Dilution = None,
    per: Per = None,
    objects: Objects = None,
    crop: Crop = None,
    assignments: Set = None,
    endpoint: Endpoint = None,
    anonymous: Anonymous = False,
    max_failed: MaxFailed = None,
) -> None:
    """Say what a count would do, without doing it: fields, shards, bytes, what did not parse, and the thresholds of viability.

    It takes the options of `count` that decide what is counted.

    Example: cellcount plan ./plate --layout imagexpress --channel w1
    """
    from cellcount_core.cli import counting
    from cellcount_core.cli.arguments import job_from_arguments, task_settings

    job = job_from_arguments(
        source=source, output="(none)", layout=layout, channels=channel, measure=measure, model=model,
        diameter=diameter, assignments=assignments, endpoint=endpoint, anonymous=anonymous, max_failed=max_failed,
        settings={"run.plate_format": plate_format, "run.platemap": platemap, **task_settings(
            um_per_px=um_per_px, thresholds=threshold, controls=control, min_diameter=min_diameter, max_diameter=max_diameter,
            min_circularity=min_circularity, chamber=chamber, depth_um=depth, dilution=dilution, per=per, objects=objects, crop_px=crop,
        )},
    )  # fmt: skip
    raise typer.Exit(counting.show_plan(job))


def nightly(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Nightly configuration (YAML).", show_default=False)
    ],
    assignments: Set = None,
    progress: Progress = Display.AUTO,
) -> None:
    """Count the plates that are complete and new or changed since the last night, and write a digest of the night.

    Example: cellcount nightly conf/nightly.yaml
    """
    from cellcount_core.cli import unattended

    raise typer.Exit(unattended.nightly(config, assignments or [], progress))


def submit(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", help="Configuration (YAML) inside the working directory.", show_default=False
        ),
    ],
    address: Annotated[
        str,
        typer.Option(
            "--address",
            metavar="ADDRESS",
            help="Ray dashboard, e.g. http://127.0.0.1:8265.",
            show_default=False,
        ),
    ],
    working_dir: Annotated[
        Path, typer.Option("--working-dir", metavar="FOLDER", help="Folder sent to the cluster.")
    ] = Path(),
    assignments: Set = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Files of the working directory not to send, as in .gitignore, e.g. /weights/ or *.h5. Repeatable. Images, "
            ".git, .venv and caches are never sent.",
        ),
    ] = None,
    submission_id: Annotated[
        str | None,
        typer.Option("--id", metavar="NAME", help="Name of the job. A name is never run twice."),
    ] = None,
    detach: Annotated[bool, typer.Option("--no-wait", help="Do not follow the logs.")] = False,
) -> None:
    """Submit a count to a Ray cluster, follow its logs and return its exit code.

    Example: cellcount submit conf/count_s3.yaml --address http://127.0.0.1:8265
    """
    from cellcount_core.cli.unattended import Sending, submit_and_follow, submit_only

    send = submit_only if detach else submit_and_follow
    sending = Sending(config, address, working_dir, assignments or [], exclude or [], submission_id)
    raise typer.Exit(send(sending))
