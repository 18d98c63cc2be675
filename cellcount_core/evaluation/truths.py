"""Evaluation against a table of true answers, for tasks whose answer about an image is a class, labels or numbers and
not a label image.

Images are examined by `examine`, the function that counts the fields of a run. The task says what is compared, and
what figures follow from it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cellcount_core import __version__
from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import ConfigFault, FieldFault, OutputFault
from cellcount_core.evaluation.assess import ProgressCallback
from cellcount_core.evaluation.evaluate import in_turn, pixels_of_channels
from cellcount_core.labelled.folders import TableRow, read_truths
from cellcount_core.labelled.image import read_pixels
from cellcount_core.models.engines import check_golden, load_engine, resolve_engine
from cellcount_core.models.package import Package
from cellcount_core.pipeline.context import prepare_process
from cellcount_core.pipeline.field import PlanesKit, examine, planes_kit
from cellcount_core.tasks.task import Scoring

JSON, TABLE = "evaluation.json", "images.csv"
FORMAT = 1
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Compared:
    """What an evaluation against a table found: one row per image, and the figures of all of them."""

    package: Package
    engine: str
    path: Path
    rows: tuple[Mapping[str, Value], ...]
    figures: Mapping[str, Value]


def compare(
    package: Package,
    scoring: Scoring,
    path: Path,
    *,
    engine: str,
    threads: int,
    split: str | None,
    limit: int | None,
    progress: ProgressCallback,
) -> Compared:
    """Examine every image of the table at `path` (or of the `index.csv` in that folder), and compare it with its row.

    `split` and `limit` choose rows as they choose label images in `list_data`. Raises ConfigFault naming table, row
    and column, or the image that cannot be examined, and ModelFault if the package fails its golden tensors.
    """
    prepare_process()
    name = resolve_engine(package, engine, gpus=0)
    truths = read_truths(path, scoring.columns, split)
    if limit is not None and limit < len(truths):
        truths = [truths[at * len(truths) // limit] for at in range(limit)]
    loaded = load_engine(package, name, threads)
    check_golden(package, loaded)
    rows: list[Mapping[str, Value]] = []
    with closing(planes_kit(package, loaded, RunConfig())) as kit:
        for done, row in enumerate(in_turn(partial(_compared, kit, scoring), truths), 1):
            rows.append(row)
            progress(done, len(truths))
    return Compared(package, name, path, tuple(rows), scoring.figures(rows))


def _compared(kit: PlanesKit, scoring: Scoring, truth: tuple[Path, TableRow]) -> Mapping[str, Value]:
    file, row = truth
    try:
        seen = examine(kit, pixels_of_channels(kit, file.name, read_pixels(file)))
    except FieldFault as fault:
        raise ConfigFault(f"{file}: {fault.detail}") from fault
    try:
        return {"id": row.get("id") or file.stem, **scoring.score(row, seen.found)}
    except ConfigFault as fault:
        raise ConfigFault(f"{file}: {fault}") from fault


def write_compared(compared: Compared, folder: Path) -> list[Path]:
    """Write evaluation.json and images.csv into `folder`, which is created if needed, and return their paths.

    They hold neither time nor host. Raises OutputFault naming the file that cannot be written.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, list(compared.rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(compared.rows)
    texts = {
        JSON: json.dumps(as_plain(compared), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        TABLE: table.getvalue(),
    }
    for name, text in texts.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise OutputFault(
                f"{folder / name}: cannot be written: {error.strerror}; --out names another folder"
            ) from error
    return [folder / name for name in texts]


def as_plain(compared: Compared) -> dict[str, object]:
    """The whole result as plain values, rounded to six digits."""
    package = compared.package
    return {
        "format": FORMAT,
        "cellcount": __version__,
        "task": package.task,
        "package": {"name": package.name, "version": package.version, "digest": package.digest},
        "engine": compared.engine,
        "data": {"path": str(compared.path), "images": len(compared.rows)},
        "figures": {name: _rounded(value) for name, value in compared.figures.items()},
        "images": [{name: _rounded(value) for name, value in row.items()} for row in compared.rows],
    }


def told(compared: Compared) -> list[str]:
    """The lines that the console shows."""
    package = compared.package
    lines = [f"{package.name} {package.version} ({package.digest[:12]}), engine {compared.engine}", ""]
    for name, value in compared.figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)
        lines.append(f"{name.replace('_', ' '):<24}{shown}")
    return [*lines, ""]


def _rounded(value: Value) -> Value:
    return round(value, _DIGITS) if isinstance(value, float) else value
