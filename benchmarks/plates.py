"""Count, or refuse with the reason, every folder of plates as instruments wrote them, with `--layout auto`: found beside stated.

    python -m benchmarks.plates FOLDER [--model NAME] [--only NAME …] [--record]

FOLDER holds a folder for each plate. What a folder's README or SOURCE.txt states stands in `STATED`, or is taken from the line "Expect:" of
its SOURCE.txt. Where a count needs what names do not tell, `ANSWERS` holds what a user would answer: the channel, and the plate's shape. A folder that is refused is
refused in the table; where it holds several folders, each of these is then tried. `--record` writes docs/explanation/plates.md.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.record import PLATES, record
from cellcount_core.cli.progress import Quiet
from cellcount_core.config import JobConfig, RunConfig
from cellcount_core.domain.errors import RunFault
from cellcount_core.images.decode import open_image
from cellcount_core.models.package import find_package
from cellcount_core.plan.check import Checked, checked
from cellcount_core.plan.inspect import PlateNames, inspected
from cellcount_core.runners.job import JobResult, run_job
from cellcount_core.stores.local import open_local

NUCLEI = re.compile(r"dapi|hoechst|\bdna\b|draq|nuc|^405$", re.IGNORECASE)
"""Names under which instruments have a channel of nuclei."""


@dataclass(frozen=True)
class Stated:
    """What README or SOURCE.txt of a folder states; what it does not is None. `objects` are those of its masks, by well or for all."""

    layout: str
    fields: int | None = None
    wells: int | None = None
    planes: int | None = None
    times: int | None = None
    um_per_px: float | None = None
    objects: int | Mapping[str, int] | None = None
    more: str = ""


STATED = {
    "almf_mitocheck_movie": Stated("almf", 30, 1, 1, 30, more="well number 2; the plate's shape is not known"),
    "bbbc013_sbs": Stated("sbs", 96, 96, 1, 1),
    "cellomics_arrayscan": Stated("cellomics", more="two plates; .C01 is a format of its own"),
    "cellvoyager_cv7000_example_meta": Stated("cellvoyager", more="no pixels: 1,984 records of 4 wells"),
    "cellvoyager_cv7000_maxproj_meta": Stated("cellvoyager", more="no pixels: 135 records of 5 wells"),
    "cellvoyager_cv8000": Stated("cellvoyager", 12, 3, 4, 1, 0.325, 0, "every pixel is 0"),
    "cytation_nf1": Stated("cytation", 1, 1, 1, 1, objects={"D06": 27}),
    "cytation_nf1_more": Stated("cytation", 4, 4, 1, 1, objects={"B07": 28, "D07": 29, "F07": 25, "H12": 23}),
    "evos_ndev": Stated("evos", um_per_px=0.2634, more="label maps under EVOS names, to be refused or flagged, never counted"),
    "harmony_operetta_v5": Stated("harmony", 2, 1, 1, 1, 1.1960),
    "imagexpress_htd_export": Stated("imagexpress", 10, None, None, None, 1.3672, more="three plates; two lack sites of the HTD"),
    "imagexpress_projection_mix": Stated("imagexpress", 2, 2, None, 1, 1.3668, more="thumbnails; E08 has w1 alone"),
    "imagexpress_zmix_t": Stated("imagexpress", 2, 1, None, 2, 13.5504, more="background, no countable cells"),
    "leica_leicaautomator": Stated("leica", 12, 1, 1, 1, more="tissue, no countable nuclei"),
    "leica_matrix_screener": Stated("leica", 2, 1, 1, 1, 0.2405, more="tissue, not separate cells"),
    "metadata_only": Stated("", more="no pixels but one image"),
    "micromanager_tests": Stated("micromanager", 1, 1, 1, 1, more="one image of 16 x 16 px; stacks are .gz"),
    "mixed_bbbc007_batch": Stated("", more="six files of three conventions: to be refused"),
    "olympus_scanr": Stated("scanr", 1, 1, 1, 1, more="well number 1; 12-bit data with an offset"),
    "omexml_spw_meta": Stated("", more="no pixels"),
    "omezarr_v04_cardio_B03": Stated("ome-zarr", 1, 1, 1, 1, 1.3, 3006),
    "omezarr_v04_plate_ones": Stated("ome-zarr", 2, 2, more="synthetic: every pixel is 1; two plates"),
    "omezarr_v05_idr6001240": Stated("ome-zarr", 1, 1, 236, 1, 1.4416, 61, "planes 110 to 129 alone are kept"),
    "phenix_jump_BR00117006": Stated("harmony", 1, 1, 1, 1, objects=188, more="camera pixel size only"),
    "vitra_bbbc014": Stated("sbs", 2, 2, 1, 1),
    "zeiss_almf_fis_demoplate": Stated("", more="the same images under two conventions: to be refused"),
}  # fmt: skip

ANSWERS: Mapping[str, dict[str, object]] = {
    "almf_mitocheck_movie": {"plate_format": 384},
    "bbbc013_sbs": {"channels": {"nuclei": "2"}},
    "cellomics_arrayscan/AS_09125": {"channels": {"nuclei": "d0"}},
    "olympus_scanr": {"plate_format": 384},
    "zeiss_almf_fis_demoplate/03-images_renamed": {"plate_format": 96},
}
"""What a user answers to a refusal, or knows of the channels."""


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    name: str
    layout: str
    cells: Sequence[str] = ("",) * 9


@dataclass
class Tally:
    """What came of all folders."""

    lines: list[Line] = field(default_factory=list)
    counted: int = 0
    refused: int = 0
    differing: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--only", nargs="*", default=[], help="folders to count; all by default")
    parser.add_argument("--record", action="store_true", help="write the table to docs/explanation/plates.md")
    asked = parser.parse_args()
    tally = Tally()
    began = time.perf_counter()
    for folder in sorted(path for path in asked.folder.iterdir() if path.is_dir()):
        if not asked.only or folder.name in asked.only:
            _try(folder, folder.name, asked.model, tally)
    summary = (
        f"{tally.counted + tally.refused} inputs: {tally.counted} counted, {tally.refused} refused with a reason, in"
        f" {time.perf_counter() - began:.0f} s. "
        + (
            f"Other than stated: {'; '.join(tally.differing)}."
            if tally.differing
            else "Nothing differs from what is stated."
        )
    )
    print(summary)
    record("plates", [summary, "", *_table(tally.lines)], PLATES)


def _table(lines: Sequence[Line]) -> list[str]:
    head = (
        "plate",
        "layout found",
        "fields",
        "wells",
        "channels (**counted**)",
        "z",
        "t",
        "µm/px",
        "objects",
        "left out",
        "stated",
    )
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(_row(line) for line in lines)]


def _row(line: Line) -> str:
    cells = (line.name, line.layout, *line.cells)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _try(
    folder: Path, name: str, model: str, tally: Tally, answer: Mapping[str, object] | None = None
) -> None:
    """Count a folder, or say why it is refused; then with a user's answer, or its folders one by one."""
    try:
        line = _counted(folder, name, model, answer or {}, tally)
        tally.counted += 1
    except RunFault as fault:
        line = Line(
            name,
            f"refused: {_short(str(fault).replace(str(folder), folder.name))}",
            ("",) * 8 + (_stated(folder, name),),
        )
        tally.refused += 1
        tally.lines.append(line)
        print(_row(line), flush=True)
        if answer is None and "plate_format" in ANSWERS.get(name, {}):
            _try(folder, name, model, tally, ANSWERS[name])
        elif answer is None and name.count("/") == 0:
            inner = [path for path in sorted(folder.iterdir()) if path.is_dir()]
            for each in inner if len(inner) > 1 else ():
                _try(each, f"{name}/{each.name}", model, tally)
        return
    tally.lines.append(line)
    print(_row(line), flush=True)


def _short(text: str) -> str:
    return re.sub(r"\s+", " ", text)[:420] + ("…" if len(text) > 420 else "")


def _stated(folder: Path, name: str) -> str:
    if name in STATED:
        known = STATED[name]
        words = [known.layout, *(f"{number} {what}" for what, number in _numbers(known)), known.more]
        if known.objects is not None:
            by_well = known.objects if isinstance(known.objects, Mapping) else {}
            words.append(
                ", ".join(f"{well} {n}" for well, n in by_well.items()) or f"{known.objects} objects"
            )
        return "; ".join(filter(None, words))
    source = folder / "SOURCE.txt"
    found = re.search(r"Expect[^:]*:(.*)", source.read_text(errors="replace")) if source.exists() else None
    return "" if found is None else _short(found[1].strip())


def _numbers(known: Stated) -> Iterator[tuple[str, float]]:
    for what in ("fields", "wells", "planes", "times"):
        if (number := getattr(known, what)) is not None:
            yield what if what != "planes" else "z", number
    if known.um_per_px is not None:
        yield "µm/px", known.um_per_px


def _counted(folder: Path, name: str, model: str, answer: Mapping[str, object], tally: Tally) -> Line:
    store = open_local(folder)
    asked = {
        key: value
        for key, value in {**ANSWERS.get(name, {}), **answer}.items()
        if answer or key != "plate_format"
    }
    run = RunConfig.model_validate({"model": {"package": model}, **asked})
    roles = find_package(model).input.channels
    with inspected(store, run) as seen:
        told = checked(store, seen, roles)
        if told.choice is None and told.plates and not run.channels:
            run = run.model_copy(update={"channels": {roles[0]: _nuclei(told.plates)}})
            told = checked(store, seen, roles)
    with tempfile.TemporaryDirectory() as scratch:
        job = JobConfig.model_validate(
            {
                "input": str(folder),
                "output": f"{scratch}/out",
                "run": run.model_dump(mode="json"),
                "execution": {"runner": "serial"},
            }
        )
        began = time.perf_counter()
        done = run_job(job, Quiet())
        spent = time.perf_counter() - began
        fields = pa.concat_tables(
            [
                pq.read_table(part).replace_schema_metadata(None)
                for part in sorted(Path(scratch, "out", "fields").glob("*.parquet"))
            ]
        )
    cells = _cells(name, told, done, fields, seen_layout := seen.run.layout.kind, spent)
    differs = _differs(name, seen_layout, told, fields)
    tally.differing += [f"{name}: {each}" for each in differs]
    given = "".join(f", {key}={value}" for key, value in asked.items() if key == "plate_format")
    return Line(name, f"{seen.layout}{given}", (*cells, _stated(folder, name) + _masks(folder, fields)))


def _nuclei(plates: Sequence[PlateNames]) -> str:
    """The channel that seems to be that of nuclei by its name, otherwise the first."""
    channels = sorted({channel for plate in plates for channel in plate.channels})
    named = {channel: called for plate in plates if plate.facts for channel, called in plate.facts.channels}
    return next((one for one in channels if NUCLEI.search(named.get(one, one))), channels[0])


def _cells(
    name: str, told: Checked, done: JobResult, fields: pa.Table, layout: str, spent: float
) -> list[str]:
    summary = done.summary
    statuses = ", ".join(f"{number} {status}" for status, number in summary.statuses.items() if number)
    wells = {(plate.plate, well) for plate in told.plates for well in plate.wells}
    counted = set(done.run.channels.values())
    channels = sorted({channel for plate in told.plates for channel in plate.channels})
    times = set().union(*(plate.timepoints for plate in told.plates))
    sizes = sorted({round(size, 4) for size in fields["um_per_px"].to_pylist() if size is not None})
    reasons = ", ".join(f"{number} {code}" for code, number in summary.reasons.items())
    doubts = ", ".join(sorted({one.doubt.value for one in summary.doubts}))
    empty = sum(bool(one) for one in fields["empty"].to_pylist())
    warned = ", ".join(f"{code} {number}" for code, number in sorted(summary.warnings.items()))
    objects = f"{summary.totals['count']:,}" if summary.totals["count"] is not None else "none counted"
    told_of = "; ".join(
        filter(
            None,
            (
                reasons,
                f"{empty} empty" if empty else "",
                f"in doubt: {doubts}" if doubts else "",
                f"warns: {warned}" if warned else "",
            ),
        )
    )
    left = ", ".join(f"{number} {why}" for why, number in sorted(done.run.numbers.ignored.items()))
    return [
        statuses,
        str(len(wells)),
        ", ".join(
            f"**{channel or 'the only one'}**" if channel in counted or not channel else channel
            for channel in channels
        ),
        str(_planes(told, fields)),
        str(len(times)),
        ", ".join(f"{size:g}" for size in sizes) or "unknown",
        f"{objects}{f' ({told_of})' if told_of else ''}; {spent:.0f} s",
        left or "nothing",
    ]


def _planes(told: Checked, fields: pa.Table) -> int:
    """The most planes of a field: by names, or joined from one file or array."""
    joined = [planes for planes in fields["planes"].to_pylist() if planes is not None]
    return max([len(plate.planes) for plate in told.plates] + joined, default=0)


def _differs(name: str, layout: str, told: Checked, fields: pa.Table) -> Iterator[str]:
    """Where what was found is not what is stated."""
    known = STATED.get(name)
    if known is None:
        return
    plates = told.plates
    found = {
        "fields": sum(plate.fields for plate in plates),
        "wells": len({(plate.plate, well) for plate in plates for well in plate.wells}),
        "z": _planes(told, fields),
        "times": max((len(plate.timepoints) for plate in plates), default=0),
    }
    sizes = [size for size in fields["um_per_px"].to_pylist() if size is not None]
    if known.layout and layout != known.layout:
        yield f"layout {layout}, stated {known.layout}"
    for what, number in _numbers(known):
        if what == "µm/px":
            if not sizes or abs(sizes[0] - number) > 0.001 * number:
                yield f"{sizes[0] if sizes else 'unknown'} µm/px, stated {number:g}"
        elif found[what] != number:
            yield f"{found[what]} {what}, stated {number:g}"


def _masks(folder: Path, fields: pa.Table) -> str:
    """Counts beside the pieces of mask files that lie in the folder, by well: a file whose name goes on from that of an image and says mask."""
    masks = [path for path in folder.rglob("*") if re.search(r"mask", path.name, re.IGNORECASE)]
    told = []
    for well, sources, count in zip(
        *(fields[name].to_pylist() for name in ("Metadata_Well", "source", "count")), strict=True
    ):
        stem = Path(sources[0]).stem if sources else "-"
        mine = [path for path in masks if path.name.startswith(stem)]
        if len(mine) == 1 and count is not None:
            image = open_image(mine[0].read_bytes(), mine[0].name, max_pixels=10**9)
            plane = image.read(image.channels[0], 0)
            told.append(
                f"{well} {count} of {cv2.connectedComponents((np.asarray(plane) > 0).astype(np.uint8), connectivity=8)[0] - 1}"
            )
    return f"; counted of mask: {', '.join(told)}" if told else ""


if __name__ == "__main__":
    main()
