"""What the commands about model packages and what they are trained on take: `cellcount models`, `train`, `evaluate`, `check-boxes`,
`check-classes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellcount_core.cli.options import (
    Address,
    Runner,
    Set,
)


def models() -> None:
    """List the model packages that travel with cellcount.

    Example: cellcount models
    """
    from cellcount_core.cli import packages

    raise typer.Exit(packages.list_models())


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
    allow_leaks: Annotated[
        bool,
        typer.Option(
            "--allow-leaks",
            help="Class folders: go on although images that show the same stand on both sides of a split.",
        ),
    ] = False,
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
    if allow_leaks:
        assignments = [*(assignments or []), "data.allow_leaks=true"]
    if refit is not None:
        raise typer.Exit(packages.refit(config, assignments or [], refit))
    if folds is not None:
        raise typer.Exit(packages.train_folds(config, assignments or [], folds, runner, address))
    if seeds is not None:
        raise typer.Exit(packages.train_seeds(config, assignments or [], seeds, runner, address))
    act = packages.package_now if now else packages.train
    raise typer.Exit(act(config, assignments or []))


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
            help="Images and what is true of them, as the package's task asks: label images, boxes, a table, or class folders.",
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
        typer.Option(
            "--skip-faulty",
            help="Boxes and patterns: leave out what is faulty instead of refusing the data, and say so.",
        ),
    ] = False,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            metavar="CSV",
            help="Boxes: a table with the split, group or modality of each `image`. Patterns: the table, if it does not lie beside the images.",
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


def check_classes(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="A folder with a folder of images for each class.", show_default=False
        ),
    ],
    groups: Annotated[
        Path | None,
        typer.Option(
            "--groups",
            metavar="CSV",
            help="Which images come from one photo (columns file, group); groups.csv beside them, unless given.",
        ),
    ] = None,
    write_groups: Annotated[
        Path | None,
        typer.Option(
            "--write-groups",
            metavar="CSV",
            help="Write a table of groups: images that show the same are one group.",
        ),
    ] = None,
) -> None:
    """Say what is in class folders and which images show the same: copies, turned ones, cuts and scales of one photo. Returns 3 if there are any
    that no group holds together (nor those written with --write-groups), if an image cannot be read, or if the same image has two classes; 2 if
    the data is faulty.

    Example: cellcount check-classes ./photos --write-groups ./photos/groups.csv
    """
    from cellcount_core.cli import packages

    raise typer.Exit(packages.check_class_data(data, groups, write_groups))
