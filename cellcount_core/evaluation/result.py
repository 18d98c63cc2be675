"""The files an evaluation writes: evaluation.json, images.csv and, for tasks with objects, evaluation.html."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from cellcount_core import __version__
from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import OutputFault
from cellcount_core.evaluation.assess import Evaluation, GroupFigures, ImageRow
from cellcount_core.evaluation.figures import LEVEL, RESAMPLES, SEED, Interval
from cellcount_core.evaluation.page import page
from cellcount_core.tasks.matching import THRESHOLDS, ImageScore

JSON, TABLE, PAGE = "evaluation.json", "images.csv", "evaluation.html"
FORMAT = 2
_DIGITS = 6


def write_result(evaluation: Evaluation, folder: Path) -> Path:
    """Write the files into `folder`, which is created if needed, and return the path of the page, or of the JSON if the task has no
    objects and so no page.

    They hold neither time nor host, so equal evaluations give equal files. Raises OutputFault naming the file that
    cannot be written.
    """
    files = {
        JSON: json.dumps(as_json(evaluation), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        TABLE: images_csv(evaluation),
    }
    if evaluation.scores:
        files[PAGE] = page(evaluation)
    write_files(folder, files)
    return folder / (PAGE if PAGE in files else JSON)


def write_files(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write texts by file name into `folder`, which is created if needed, and return the paths.

    Raises OutputFault naming the file that cannot be written.
    """
    paths = [folder / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise OutputFault(
                f"{path}: cannot be written: {error.strerror}; --out names another folder"
            ) from error
    return paths


def as_json(evaluation: Evaluation) -> dict[str, object]:
    """All figures as plain values, rounded to six digits; null if a figure is not defined. What there is about objects (`totals`, `groups`,
    `size_estimate`, `worst`) is left out for a task without objects."""
    package, data, sizes = evaluation.package, evaluation.data, evaluation.sizes
    objects: dict[str, object] = {
        "totals": _totals(evaluation),
        "groups": {
            table.key: {group.name: _group(group) for group in table.groups} for table in evaluation.tables
        },
        "size_estimate": None if sizes is None else {
            "images": sizes.images, "within_1_25": _rounded(sizes.within_1_25),
            "within_1_5": _rounded(sizes.within_1_5), "not_told": sizes.not_told,
        },
        "worst": [shown.score.id for shown in evaluation.worst],
    }  # fmt: skip
    return {
        "format": FORMAT,
        "cellcount": __version__,
        "task": package.task,
        "package": {
            "name": package.name, "version": package.version, "digest": package.digest,
            "modality": list(package.modality), "diameter_px": package.input.diameter_px,
        },
        "engine": evaluation.engine,
        "diameter": evaluation.diameter,
        "data": {
            "path": data.path, "kind": data.kind, "split": data.split, "modality": list(data.modality),
            "images": len(evaluation.rows), "objects": evaluation.objects,
            **({"left_out": list(data.left_out)} if data.left_out else {}),
        },
        "bootstrap": {"over": "images", "resamples": RESAMPLES, "seed": SEED, "level": LEVEL},
        "figures": _intervals(evaluation.figures),
        **({"words": list(evaluation.words)} if evaluation.words else {}),
        **(objects if evaluation.scores else {}),
        "images": [image_row(row) for row in evaluation.rows],
    }  # fmt: skip


def images_csv(evaluation: Evaluation) -> str:
    """The images as CSV, one row each, in the order of the data."""
    rows = [image_row(row) for row in evaluation.rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def image_row(row: ImageRow) -> dict[str, Value]:
    """The values of one image by column name: what all tasks have, then what follows from its objects, if the task has some, then the
    task's own. `misses` and `extras` are those at IoU 0.5."""
    return {
        "id": row.id,
        "modality": row.modality,
        "width_px": row.width_px,
        "height_px": row.height_px,
        **({} if row.score is None else _of_objects(row.score, row.counted_at_px)),
        **{
            name: round(value, _DIGITS) if isinstance(value, float) else value
            for name, value in row.values.items()
        },
    }


def _of_objects(score: ImageScore, counted_at_px: float | None) -> dict[str, Value]:
    by_threshold: dict[str, float] = {}
    for kind in ("ap", "f1"):
        for threshold, match in zip(THRESHOLDS, score.matches, strict=True):
            value = match.ap if kind == "ap" else match.f1
            by_threshold[f"{kind}_{round(100 * threshold)}"] = round(value, _DIGITS)
    return {
        "true": score.true,
        "counted": score.counted,
        "true_diameter_px": round(score.diameter_px, 3) if score.true else None,
        "counted_at_px": None if counted_at_px is None else round(counted_at_px, 3),
        **by_threshold,
        "pq": round(score.panoptic_quality, _DIGITS),
        "misses": score.matches[0].misses,
        "extras": score.matches[0].extras,
        "splits": score.splits,
        "merges": score.merges,
    }


def _totals(evaluation: Evaluation) -> dict[str, int]:
    scores = evaluation.scores
    return {
        "true": evaluation.objects,
        "counted": evaluation.counted,
        "misses": sum(score.matches[0].misses for score in scores),
        "extras": sum(score.matches[0].extras for score in scores),
        "splits": sum(score.splits for score in scores),
        "merges": sum(score.merges for score in scores),
    }


def _group(group: GroupFigures) -> dict[str, object]:
    return {"images": group.images, "objects": group.objects, "figures": _intervals(group.figures)}


def _intervals(figures: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {
        name: {
            "value": _rounded(interval.value),
            "low": _rounded(interval.low),
            "high": _rounded(interval.high),
        }
        for name, interval in figures.items()
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
