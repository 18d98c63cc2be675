"""The arguments and options that several commands share: how they are spelled, and what `--help` says of them."""

from __future__ import annotations

from typing import Annotated

import typer

from cellcount_core.cli.progress import Display
from cellcount_core.layouts import registry as layouts

Input = Annotated[
    str,
    typer.Argument(
        metavar="INPUT", help="Folder or s3:// prefix of images, or a CONFIG.yaml.", show_default=False
    ),
]
Output = Annotated[
    str | None,
    typer.Argument(metavar="OUTPUT", help="Folder or s3:// prefix for the tables.", show_default=False),
]
Out = Annotated[
    str, typer.Argument(metavar="OUT", help="Output folder or s3:// prefix of a run.", show_default=False)
]
Layout = Annotated[
    str | None,
    typer.Option("--layout", metavar="LAYOUT", help=f"How names are read: {', '.join(layouts.CHOICES)}."),
]
PlateFormat = Annotated[
    int | None,
    typer.Option(
        "--plate-format",
        metavar="WELLS",
        help="Wells of each plate (6 to 1536), where files do not state it: they draw plates and name wells that are only numbered.",
    ),
]
PlateMap = Annotated[
    str | None,
    typer.Option(
        "--platemap",
        metavar="FILE",
        help="Plate map (CSV, TSV, Parquet, XLSX): its columns are joined to fields and wells, by well and plate.",
    ),
]
Channel = Annotated[
    list[str] | None,
    typer.Option(
        "--channel", metavar="NAME", help="Channel to count, by name (w1), or role=name (nuclei=DAPI)."
    ),
]
Measure = Annotated[
    list[str] | None,
    typer.Option("--measure", metavar="NAME", help="Also measure this channel's intensity. Repeatable."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", help="Model package: a shipped name or a folder. See `cellcount models`."
    ),
]
Diameter = Annotated[
    str | None,
    typer.Option(
        "--diameter",
        metavar="PX",
        help="Median object diameter in px; 'auto' (default) estimates it, 'model' counts images as they are.",
    ),
]
UmPerPx = Annotated[
    float | None,
    typer.Option("--um-per-px", metavar="UM", help="Pixel size in um, where files do not state it."),
]
Threshold = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold",
        metavar="ROLE=VALUE",
        help="Viability: a cell is positive in this role above so much signal over its background, e.g. dead=350. Repeatable.",
    ),
]
Control = Annotated[
    list[str] | None,
    typer.Option(
        "--control",
        metavar="CLASS=WELLS",
        help="Viability: control wells that thresholds are found on, e.g. live=A01,A02 or dead=H11,H12. Repeatable.",
    ),
]
MinDiameter = Annotated[
    str | None,
    typer.Option(
        "--min-diameter", metavar="LENGTH", help="Viability: leave out smaller objects, e.g. 7um or 20px."
    ),
]
MaxDiameter = Annotated[
    str | None,
    typer.Option(
        "--max-diameter", metavar="LENGTH", help="Viability: leave out larger objects, e.g. 30um or 90px."
    ),
]
MinCircularity = Annotated[
    float | None,
    typer.Option(
        "--min-circularity",
        metavar="SHARE",
        help="Viability: leave out less round objects (0 to 1).",
        min=0,
        max=1,
    ),
]
Chamber = Annotated[
    str | None,
    typer.Option(
        "--chamber",
        metavar="NAME",
        help="Viability: improved_neubauer, a counting chamber 0.1 mm deep, for cells/mL.",
    ),
]
Depth = Annotated[
    float | None,
    typer.Option(
        "--depth",
        metavar="UM",
        help="Viability: depth of the sample above the image in um, for cells/mL.",
        min=0,
    ),
]
Dilution = Annotated[
    float | None,
    typer.Option(
        "--dilution",
        metavar="TIMES",
        help="Viability: how many times the sample was diluted; 2 for trypan blue 1:1.",
        min=1,
    ),
]
Per = Annotated[
    str | None,
    typer.Option(
        "--per",
        metavar="image|tile|object",
        help="Classes: what is told a class. Default: tiles where the package looks at tiles, else images.",
    ),
]
Crop = Annotated[
    int | None,
    typer.Option(
        "--crop",
        metavar="PX",
        help="Classes: side in px of what is shown to the network of a tile, or around an object. Default: as it was taught.",
        min=8,
    ),
]
Objects = Annotated[
    str | None,
    typer.Option(
        "--objects",
        metavar="MODEL",
        help="Classes, with --per object: the package that finds the objects. Default: nuclei.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any setting: section.key=value, e.g. run.z=max. Repeatable."
    ),
]
Runner = Annotated[
    str | None,
    typer.Option(
        "--runner",
        metavar="RUNNER",
        help="auto (default): this process for a small job, Ray for others; ray (a local cluster unless an address is set) or serial.",
    ),
]
Address = Annotated[
    str | None, typer.Option("--address", metavar="ADDRESS", help="Address of a running Ray cluster.")
]
Actors = Annotated[int | None, typer.Option("--actors", metavar="N", help="Number of workers.", min=1)]
Endpoint = Annotated[
    str | None, typer.Option("--endpoint", metavar="URL", help="S3 endpoint, e.g. http://127.0.0.1:9000.")
]
Anonymous = Annotated[bool, typer.Option("--anonymous", help="Read a public bucket without credentials.")]
MaxFailed = Annotated[
    str | None,
    typer.Option(
        "--max-failed",
        metavar="N|N%",
        help="Failed or missing fields to accept, a number or a share of all; stop as soon as there are more. "
        "Without it nothing stops early.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="End with exit code 10 where a plate is in doubt: most fields unlike the training images or of absurd size, or "
        "hardly an object where other plates have hundreds.",
    ),
]
Update = Annotated[
    bool,
    typer.Option(
        "--update",
        help="Bring the tables in OUTPUT up to INPUT by the run's own settings: count what is new or changed, keep the rest. INPUT may "
        "be left out.",
    ),
]
Labels = Annotated[bool, typer.Option("--labels", help="Write label images (TIFF) to OUT/labels/.")]
Progress = Annotated[
    Display, typer.Option("--progress", metavar="auto|line|json|quiet", help="How progress is shown.")
]
