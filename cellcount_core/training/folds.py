"""k-fold: train once for each part of the data with that part held out, and measure what was held out.

Every group of images (a photo, unless the data names groups) is held out exactly once. Folds run as seeds do (runners/trials.py): as Ray
tasks, or one after the other. The package of a fold that was trained is kept, so the same command goes on where it was stopped; only what it
held out is looked at again.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.evaluation.evaluate import Diameter, count_image, counting_of, in_turn, score_found
from cellcount_core.evaluation.figures import measure
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import load_package
from cellcount_core.pipeline.field import planes_kit
from cellcount_core.runners.trials import Trial, run_trials
from cellcount_core.tasks.task import Compared, task_of
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.learning import data_digest, train_config
from cellcount_core.training.seeds import LOG, environment_of
from cellcount_core.training.spread import Spread, draw_spread, headline_of
from cellcount_core.training.start import CHECKPOINT, check_same_data, load_lesson

FEWEST = 2

_KEPT = "fold.json"
"""In the work folder of a fold that was trained: its configuration, the folder of its package, and the seconds that it took."""
_HEADED = {
    "map_50": "mAP50", "map_50_95": "mAP50-95", "f1_50": "F1", "ap_50": "AP", "count_mae": "MAE", "count_mae_share": "MAE/mean", "count_mape": "MAPE",
    "count_bias": "bias", "count_near": "in 10 %", "accuracy": "accuracy",
    "balanced_accuracy": "balanced", "log_loss": "log loss", "macro_f1": "macro F1",
}  # fmt: skip
"""The figures that the printed table shows where the task has them, with their headings; the files hold all."""


@dataclass(frozen=True, slots=True)
class FoldTask:
    """What the process of one fold is told: its configuration as JSON, and the environment variables it depends on."""

    config: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a fold gave: the folder of its package, the images that were held out, each scored, and the seconds of its training."""

    package: str
    images: tuple[tuple[str, Compared], ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One fold, from 1: what it gave, and the figures of what it held out; or `fault`, which says what went wrong."""

    fold: int
    held_out: HeldOut | None = None
    figures: Mapping[str, Value] = field(default_factory=dict)
    fault: str = ""


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """All folds, and the figures of all images together, each scored by the package that had not seen it."""

    folds: tuple[FoldResult, ...]
    pooled: Mapping[str, Value]

    def spread(self, name: str) -> tuple[float, float] | None:
        """Mean and sample standard deviation of a figure over folds (0 for a single one); None if no fold has it."""
        values = [
            float(value) for fold in self.folds if isinstance(value := fold.figures.get(name), int | float)
        ]
        if not values:
            return None
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def cross_validate(
    config: TrainConfig,
    folds: int | None,
    execution: ExecutionConfig,
    *,
    report: Callable[[str], None] = print,
) -> CrossValidation:
    """Train and measure each of `folds` folds; None leaves out one group at a time.

    Work folders and package folders end in `-fold<n>`. A fold that fails has a fault and no figures; calling this again goes on with it.
    Raises ConfigFault if the data has fewer groups than folds.
    """
    groups = _groups(config)
    number = groups if folds is None else folds
    if not FEWEST <= number <= groups:
        raise ConfigFault(
            f"--folds {number}: {FEWEST} to {groups} expected, the number of groups of images (photos, unless the data names groups)"
        )
    each = [of_fold(config, fold, number) for fold in range(1, number + 1)]
    for fold, own in enumerate(each, 1):
        report(f"fold {fold} of {number}: follow {Path(own.work_dir).expanduser() / LOG}")
    trials = [Trial(f"fold {fold}", _task(own)) for fold, own in enumerate(each, 1)]
    say = _with_time_left(report, number)
    ended = run_trials(train_fold, trials, execution, threads=config.threads, report=say)
    results = [
        FoldResult(fold, end.value, _figures(end.value.package, end.value.images))
        if end.value is not None
        else FoldResult(fold, fault=end.fault)
        for fold, end in enumerate(ended, 1)
    ]
    done = [result.held_out for result in results if result.held_out is not None]
    pooled = _figures(done[0].package, [one for held in done for one in held.images]) if done else {}
    return CrossValidation(tuple(results), pooled)


def _groups(config: TrainConfig) -> int:
    """How many groups of images can be held out."""
    lesson = load_lesson(of_fold(config, 1, FEWEST))
    parts = (lesson.train, lesson.fit, lesson.watched, lesson.validation)
    return len({image.group for part in parts for image in part})


def _with_time_left(report: Callable[[str], None], number: int) -> Callable[[str], None]:
    """A report that says after each fold how long the others will take."""
    since, ended = time.monotonic(), 0

    def say(line: str) -> None:
        nonlocal ended
        if line.startswith("fold ") and not line.endswith("begins"):
            ended += 1
            left = (time.monotonic() - since) / ended * (number - ended)
            line = f"{line}; {ended} of {number} folds, {math.ceil(left / 60)} min left"
        report(line)

    return say


def of_fold(config: TrainConfig, fold: int, folds: int) -> TrainConfig:
    """The configuration of a fold (from 1), with its own work and package folders."""
    folders = {
        name: f"{getattr(config, name).rstrip('/')}-fold{fold}" for name in ("work_dir", "package_dir")
    }
    return config.model_copy(update={**config.in_fold(fold, folds), **folders})


def _task(config: TrainConfig) -> FoldTask:
    return FoldTask(config.model_dump_json(exclude_unset=True), environment_of(config))


def train_fold(task: FoldTask, threads: int) -> HeldOut:
    """Train one fold in this process, which must not have loaded Keras yet, and score the images that it held out."""
    os.environ.update(task.environment)
    from cellcount_core.training.trainer import train

    config = train_config(json.loads(task.config)).model_copy(update={"threads": threads})
    work_dir = Path(config.work_dir).expanduser()
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / LOG).open("a", encoding="utf-8") as log:

        def report(line: str) -> None:
            print(line, file=log, flush=True)

        if (kept := _kept(work_dir / _KEPT, task)) is None:
            since = time.monotonic()
            kept = train(config, report=report), time.monotonic() - since
            _keep(work_dir / _KEPT, task, *kept)
        folder, seconds = kept
        package = load_package(folder)
        lesson = load_lesson(config, report=report)
        check_same_data(work_dir, data_digest(lesson, config.partial()))
        counting = counting_of(usual_diameter(lesson.diameters()))
        engine = load_engine(package, resolve_engine(package, "auto", gpus=0), max(1, threads))
        with closing(planes_kit(package, engine, counting)) as kit:
            scores = in_turn(
                lambda image: score_found(kit, image, count_image(kit, image)), lesson.validation
            )
            images = tuple(
                (image.id, scored) for image, scored in zip(lesson.validation, scores, strict=True)
            )
    return HeldOut(str(folder), images, seconds)


def usual_diameter(known: Sequence[Diameter]) -> Diameter:
    """How images are brought to a package's scale by who counts them: by the size that is stated for them, or else by each image's own
    estimate, or else not at all.
    """
    stated = [one for one in known if isinstance(one, float | int)]
    return stated[0] if stated else "auto" if "auto" in known else "model"


def _keep(path: Path, task: FoldTask, package: Path, seconds: float) -> None:
    temporary = path.with_suffix(".tmp")
    told = {"config": task.config, "package": str(package.absolute()), "seconds": seconds}
    temporary.write_text(json.dumps(told) + "\n", encoding="utf-8")
    temporary.replace(path)


def _kept(path: Path, task: FoldTask) -> tuple[Path, float] | None:
    """The package's folder and the seconds of a fold that was trained by the same configuration; None if there is none, or if its checkpoint,
    which knows the images it was trained on, is gone."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        config, package, seconds = told["config"], Path(told["package"]), float(told["seconds"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    whole = package.is_dir() and path.with_name(CHECKPOINT).is_file()
    return (package, seconds) if config == task.config and whole else None


def _figures(folder: str, images: Sequence[tuple[str, Compared]]) -> dict[str, Value]:
    """The figures of scored images: those that all tasks with objects share, and the task's own."""
    package = load_package(Path(folder))
    scored = [one for _, one in images]
    objects = [one.objects for one in scored if one.objects is not None]
    shared = {name: interval.value for name, interval in measure(objects).items()} if objects else {}
    return shared | task_of(package).scoring(package).figures(scored)


def folds_table(result: CrossValidation) -> str:
    """The folds as text: one line each, then mean, standard deviation, and the figures of all held-out images together."""
    shown = {name: head for name, head in _HEADED.items() if result.spread(name) is not None}
    lines = ["  ".join(["fold".rjust(6), "images".rjust(6), *(head.rjust(9) for head in shown.values())])]
    for fold in result.folds:
        number = "" if fold.held_out is None else str(len(fold.held_out.images))
        cells = [_cell(fold.figures.get(name)) for name in shown]
        lines.append(
            "  ".join([f"{fold.fold:6d}", number.rjust(6), *cells])
            + (f"  {fold.fault}" if fold.fault else "")
        )
    both = [result.spread(name) or (math.nan, math.nan) for name in shown]
    for row, label in enumerate(("mean", "sd")):
        lines.append("  ".join([label.rjust(6), " " * 6, *(_cell(pair[row]) for pair in both)]))
    total = sum(len(fold.held_out.images) for fold in result.folds if fold.held_out is not None)
    lines.append(
        "  ".join(["pooled", str(total).rjust(6), *(_cell(result.pooled.get(name)) for name in shown)])
    )
    return "\n".join(lines)


def _cell(value: Value) -> str:
    return f"{value:9.4f}" if isinstance(value, int | float) and not math.isnan(value) else " " * 9


def write_folds(config: TrainConfig, result: CrossValidation) -> tuple[Path, Path]:
    """Write all figures as JSON to `<work_dir>-folds.json`, and a row per held-out image to `<work_dir>-folds.csv`; returns both paths."""
    base = Path(config.work_dir.rstrip("/")).expanduser()
    told, table = base.with_name(base.name + "-folds.json"), base.with_name(base.name + "-folds.csv")
    base.parent.mkdir(parents=True, exist_ok=True)
    names = sorted({name for fold in result.folds for name in fold.figures})
    spreads = {name: result.spread(name) for name in names}
    data = {
        "name": config.package_name(),
        "folds": [
            {
                "fold": fold.fold, "fault": fold.fault or None, "package": fold.held_out.package if fold.held_out else None,
                "seconds": round(fold.held_out.seconds, 1) if fold.held_out else None,
                "images": [name for name, _ in fold.held_out.images] if fold.held_out else [], "figures": dict(fold.figures),
            }
            for fold in result.folds
        ],
        "mean": {name: pair[0] for name, pair in spreads.items() if pair is not None},
        "sd": {name: pair[1] for name, pair in spreads.items() if pair is not None},
        "pooled": dict(result.pooled),
    }  # fmt: skip
    told.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows: list[dict[str, Value]] = []
    for fold in result.folds:
        for name, scored in fold.held_out.images if fold.held_out else ():
            objects = scored.objects
            counts: dict[str, Value] = (
                {} if objects is None else {"true": objects.true, "counted": objects.counted}
            )
            rows.append({"fold": fold.fold, "image": name, **counts, **scored.values})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["fold", "image"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    table.write_text(text.getvalue(), encoding="utf-8", newline="")
    return told, table


def draw_folds(config: TrainConfig, result: CrossValidation) -> Path | None:
    """Draw how far the task's headline figure spreads over folds, to `<work_dir>-folds.png`, and return that path; None if no fold has it."""
    packages = [fold.held_out.package for fold in result.folds if fold.held_out is not None]
    figure = headline_of(packages[0]) if packages else ""
    values = {
        f"fold {fold.fold}": float(value)
        for fold in result.folds
        if isinstance(value := fold.figures.get(figure), int | float) and not math.isnan(value)
    }
    if not values:
        return None
    base = Path(config.work_dir.rstrip("/")).expanduser()
    path = base.with_name(base.name + "-folds.png")
    draw_spread(path, Spread(config.name, figure, values))
    return path
