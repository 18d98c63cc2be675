"""The `cellcount` command: parses, calls, prints. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from cellcount_core import __version__
from cellcount_core.cli.options import (
    Actors,
    Address,
    Anonymous,
    Chamber,
    Channel,
    Control,
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
    Out,
    Output,
    Progress,
    Runner,
    Set,
    Strict,
    Threshold,
    UmPerPx,
    Update,
)
from cellcount_core.cli.progress import Display
from cellcount_core.domain.errors import ExitCode, RunFault

app = typer.Typer(
    name="cellcount",
    help="Counts cells in microscope images at plate scale.\n\n"
    "Example: cellcount count ./plate ./out --layout imagexpress --channel w1",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def count(
    source: Input,
    output: Output = None,
    layout: Layout = None,
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

      cellcount count ./plate ./out --update

      cellcount count ./plate ./out --layout imagexpress --model viability-fluorescence --channel all=w1 --channel dead=w2 --min-diameter 7um

      cellcount count ./chamber ./out --model viability-live-dead --channel live=green --channel dead=red --um-per-px 0.65 --chamber improved_neubauer --dilution 2
    """
    from cellcount_core.cli import counting
    from cellcount_core.cli.arguments import ToUpdate, job_from_arguments, run_to_update, viability_settings

    known = ToUpdate(source, output, None)
    if update:
        known = run_to_update(source, output, endpoint=endpoint, anonymous=anonymous, assignments=assignments)
    job = job_from_arguments(
        source=known.source, output=known.output, run=known.run, layout=layout, channels=channel, measure=measure, model=model, diameter=diameter,
        labels=labels, assignments=assignments, runner=runner, address=address, actors=actors, endpoint=endpoint,
        anonymous=anonymous, max_failed=max_failed, strict=strict,
        settings=viability_settings(
            um_per_px=um_per_px, thresholds=threshold, controls=control, min_diameter=min_diameter, max_diameter=max_diameter,
            min_circularity=min_circularity, chamber=chamber, depth_um=depth, dilution=dilution,
        ),
    )  # fmt: skip
    raise typer.Exit((counting.update if update else counting.count)(job, progress))


@app.command(short_help="Try the failed fields of a finished run again.")
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


@app.command(short_help="Say what a count would do, without doing it.")
def plan(
    source: Input,
    layout: Layout = None,
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
    from cellcount_core.cli.arguments import job_from_arguments, viability_settings

    job = job_from_arguments(
        source=source, output="(none)", layout=layout, channels=channel, measure=measure, model=model,
        diameter=diameter, assignments=assignments, endpoint=endpoint, anonymous=anonymous, max_failed=max_failed,
        settings=viability_settings(
            um_per_px=um_per_px, thresholds=threshold, controls=control, min_diameter=min_diameter, max_diameter=max_diameter,
            min_circularity=min_circularity, chamber=chamber, depth_um=depth, dilution=dilution,
        ),
    )  # fmt: skip
    raise typer.Exit(counting.show_plan(job))


@app.command()
def reduce(out: Out, endpoint: Endpoint = None) -> None:
    """Build wells, plates and summary again from the parts of a run.

    Example: cellcount reduce ./out
    """
    from cellcount_core.cli import outputs

    raise typer.Exit(outputs.reduce_again(out, endpoint))


@app.command(short_help="Prove the ledger of a finished run.")
def verify(out: Out, endpoint: Endpoint = None) -> None:
    """Prove the ledger: every expected field once, digests, row counts, objects a field.

    Example: cellcount verify ./out
    """
    from cellcount_core.cli import outputs

    raise typer.Exit(outputs.verify_output(out, endpoint))


@app.command(short_help="Write the counts as a plain CSV, or boxes for other tools.")
def export(
    out: Out,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="File to write (CSV, or JSON with --to asm); with --to coco, voc or yolo the folder of what is written.",
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
    """Write the plain table `index,count`, a row a field in key order; or a file as cell counters write it; or the boxes of all objects.

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


@app.command(short_help="Tell how well counts follow a dilution series.")
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


@app.command("check-boxes", short_help="Tell every fault of a data set of boxes.")
def check_boxes(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="Folder of Pascal VOC or YOLO files, or of a COCO JSON.", show_default=False
        ),
    ],
    kind: Annotated[
        str, typer.Option("--kind", metavar="auto|voc|coco|yolo", help="Format of the boxes.")
    ] = "auto",
    classes: Annotated[
        str | None,
        typer.Option("--classes", metavar="NAME,NAME", help="The classes that may occur; others are faults."),
    ] = None,
    skip_faulty: Annotated[
        bool, typer.Option("--skip-faulty", help="Leave out what is faulty instead of refusing the data.")
    ] = False,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table", metavar="CSV", help="A table with the split, group or modality of each `image`."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check images with boxes before anything is trained on them: every fault in one report. Exit code 2 if the data would be refused.

    Faults are boxes out of their image, without area, of an unknown class or there twice; boxes without an image and images without
    boxes; sizes that disagree; files that cannot be read.

    Example: cellcount check-boxes ./photos --classes RBC,WBC,Platelets
    """
    from cellcount_core.cli import packages

    raise typer.Exit(
        packages.check_box_data(
            data, kind, classes, "skip" if skip_faulty else "refuse", "json" if as_json else "text", table
        )
    )


@app.command(short_help="Draw the plate map and a few fields with outlines.")
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


@app.command()
def models() -> None:
    """List the model packages that travel with cellcount.

    Example: cellcount models
    """
    from cellcount_core.cli import packages

    raise typer.Exit(packages.list_models())


@app.command()
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


@app.command()
def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="Training configuration (YAML).", show_default=False)
    ],
    assignments: Set = None,
    now: Annotated[
        bool, typer.Option("--package-now", help="Do not train: write a package of the newest checkpoint.")
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="N,N", help="Train once for each seed, side by side, and compare."),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            "--folds",
            metavar="K|groups",
            help="Train K times, each time without another part of the photos, and measure on those; 'groups' leaves out one at a time.",
        ),
    ] = None,
    refit: Annotated[
        Path | None,
        typer.Option(
            "--refit",
            metavar="FOLDER",
            help="Do not train: measure interval, domain and accuracy of this package again, and give it the version set.",
        ),
    ] = None,
    runner: Runner = None,
    address: Address = None,
) -> None:
    """Train a network and write a model package. A training that was stopped goes on from its last checkpoint.

    With --seeds or --folds each training is a Ray task (--runner serial: one after the other) with folders of its own.

    Examples:

      cellcount train conf/train_nuclei.yaml --set steps=200

      cellcount train conf/train_nuclei.yaml --seeds 0,1,2

      cellcount train conf/train_nuclei.yaml --folds 5

      cellcount train conf/train_nuclei.yaml --refit models/nuclei --set version=1.2.1
    """
    from cellcount_core.cli import packages

    if seeds is not None and now:
        raise typer.BadParameter("--package-now writes the package of one run; give no --seeds with it")
    if folds is not None and (now or seeds is not None):
        raise typer.BadParameter(
            "--folds trains several packages; give neither --package-now nor --seeds with it"
        )
    if refit is not None and (now or seeds is not None or folds is not None):
        raise typer.BadParameter(
            "--refit trains nothing; give neither --package-now, --seeds nor --folds with it"
        )
    if refit is not None:
        raise typer.Exit(packages.refit(config, assignments or [], refit))
    if folds is not None:
        raise typer.Exit(packages.train_folds(config, assignments or [], folds, runner, address))
    if seeds is not None:
        raise typer.Exit(packages.train_seeds(config, assignments or [], seeds, runner, address))
    act = packages.package_now if now else packages.train
    raise typer.Exit(act(config, assignments or []))


@app.command(short_help="Measure a model package on images of which the truth is known.")
def evaluate(
    package: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE", help="Model package: a shipped name or a folder.", show_default=False
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="Images and what is true of them, as the package's task asks: label images, boxes, or a table.",
            show_default=False,
        ),
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            help="Measure this instead of the page: accuracy, scale, robustness, uncertainty, empty, made-up, or all. Repeatable.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Folder for what is written (page, JSON, CSV, Markdown), by default in the current folder.",
        ),
    ] = Path("evaluation"),
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="NAME", help="Split to measure; 'all' for every image. Default: val, if any."
        ),
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option("--modality", metavar="NAME", help="Only images of this modality. Repeatable."),
    ] = None,
    diameter: Annotated[
        str,
        typer.Option(
            "--diameter",
            metavar="auto|model|PX",
            help="Object size: each image's own estimate, images as they are, or px.",
        ),
    ] = "auto",
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="ENGINE",
            help="Engine of the package; with --suite also several, as auto,onnxruntime.",
        ),
    ] = "auto",
    threads: Annotated[int, typer.Option("--threads", metavar="N", help="Threads of the engine.", min=1)] = 1,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", help="Only this many images, evenly spread.", min=1),
    ] = None,
    skip_faulty: Annotated[
        bool,
        typer.Option("--skip-faulty", help="Boxes: leave out what is faulty instead of refusing the data."),
    ] = False,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table", metavar="CSV", help="Boxes: a table with the split, group or modality of each `image`."
        ),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside", metavar="PACKAGE", help="Suite accuracy: a column for this package too. Repeatable."
        ),
    ] = None,
    unlike: Annotated[
        list[str] | None,
        typer.Option(
            "--unlike",
            metavar="FOLDER|PATTERN",
            help="Suite uncertainty: images that the package is not made for, without labels. Repeatable.",
        ),
    ] = None,
    bars: Annotated[
        bool,
        typer.Option("--bars", help="Suites: also show the limits that shipped packages must meet."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure a model package on labelled images: objects and counts, with intervals, by modality, size and density.

    With --suite it answers a question of its own (what bad images or other magnifications cost, whether empty fields count 0) and writes
    SUITE.json and SUITE.md. The suites empty and made-up need no DATA.

    Examples:

      cellcount evaluate nuclei ./dsb2018_nuclei --split val --modality fluorescence --out ./evaluation

      cellcount evaluate ./my-package ./labelled --suite accuracy --beside nuclei

      cellcount evaluate ./my-package ./labelled --suite all --limit 20

      cellcount evaluate nuclei --suite empty --json
    """
    from cellcount_core.cli import packages

    asked = packages.ToEvaluate(
        package, "json" if as_json else "text", out, split, modality or (), diameter, engine, threads, limit,
        "skip" if skip_faulty else "refuse", table,
    )  # fmt: skip
    if suite:
        raise typer.Exit(
            packages.evaluate_suites(
                asked,
                data,
                suite,
                beside=beside or (),
                unlike=unlike or (),
                bars="always" if bars else "shipped",
            )
        )
    if beside or unlike or bars:
        raise typer.BadParameter("--beside, --unlike and --bars are of suites; give --suite with them")
    if data is None:
        raise typer.BadParameter(
            "DATA is missing: a folder of labelled images, or an .npz with X and y", param_hint="DATA"
        )
    raise typer.Exit(packages.evaluate(asked, data))


@app.command(short_help="Count what came since the last night.")
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


@app.command(short_help="Submit a count to a Ray cluster and follow it.")
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


def _version(value: bool) -> None:
    if value:
        print(f"cellcount {__version__}")
        raise typer.Exit(0)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Counts cells in microscope images at plate scale."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every fault of a run is one message, not a traceback."""
    try:
        arguments = sys.argv[1:] if argv is None else argv
        result = app(args=arguments or ["--help"], standalone_mode=False, prog_name="cellcount")
    except RunFault as fault:
        print(f"cellcount: {fault}", file=sys.stderr)
        return int(fault.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("cellcount: stopped; the same command goes on where this one stopped", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except (OSError, MemoryError) as error:
        print(f"cellcount: {_of_the_system(error)}", file=sys.stderr)
        return int(ExitCode.STORAGE)
    except RuntimeError as error:
        if not any(words in str(error) for words in ("can't start new thread", "home directory")):
            raise
        print(f"cellcount: {_of_the_system(error)}", file=sys.stderr)
        return int(ExitCode.STORAGE)
    except typer.Exit as leaving:
        return int(leaving.exit_code)
    except TyperException as error:
        print(
            f"cellcount: {error.format_message()} ({_command_of(error)} --help tells what there is)",
            file=sys.stderr,
        )
        return int(ExitCode.CONFIG)
    return int(result or 0)


def _of_the_system(error: OSError | MemoryError | RuntimeError) -> str:
    """What the operating system refused, in one line with a way out; no library's words about it are a message of ours."""
    import errno
    import tempfile

    if isinstance(error, MemoryError):
        return "out of memory; give the process more (ulimit -v, the job's limit), or fewer at once (--actors 1, execution.threads=1)"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "a path begins with ~ and the home folder is not known; set HOME, or write the path out"
    if isinstance(error, RuntimeError):
        return "no thread can be started; allow more processes (ulimit -u, the container's limit on pids)"
    where = f"{error.filename}: " if error.filename else ""
    said = f"{where}{error.strerror or error}"
    if "No usable temporary directory" in said:
        return "no temporary folder can be written; set TMPDIR to one that can"
    temporary = (
        ""
        if tempfile.tempdir is None
        else f" (temporary files are in {tempfile.tempdir}; TMPDIR names another place)"
    )
    ways = {
        errno.ENOSPC: f"make room{temporary}",
        errno.EDQUOT: f"the quota is used up{temporary}",
        errno.EMFILE: "allow more open files (ulimit -n)",
        errno.ENFILE: "the system's open files are used up",
        errno.EACCES: f"check who may read and write there{temporary}",
        errno.EPERM: f"check who may read and write there{temporary}",
        errno.EROFS: f"it cannot be written{temporary}",
    }
    way = ways.get(error.errno or 0)
    return said + (f"; {way}" if way else "")


def _command_of(error: TyperException) -> str:
    """The command that was misused ("cellcount count"), as far as it was understood."""
    context: object = getattr(error, "ctx", None)
    return str(getattr(context, "command_path", "cellcount"))


def script() -> None:
    """Entry point of the installed `cellcount` command."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that cannot show "µ" shows something else for it.
        sys.stdout.reconfigure(errors="replace")
    sys.exit(main())
