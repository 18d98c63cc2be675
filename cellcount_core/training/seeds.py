"""Train one recipe with several seeds, to see how far its figures spread by chance alone."""

from __future__ import annotations

import csv
import json
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.models.package import load_package
from cellcount_core.runners.trials import Trial, run_trials
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.learning import train_config
from cellcount_core.training.spread import Spread, draw_spread, headline_of

FIGURES: Mapping[str, str] = {
    "f1_50": "F1", "ap_50": "AP", "ap_mean": "mean AP", "count_mape": "MAPE", "count_bias": "bias",
    "map_50": "mAP50", "balanced_accuracy": "balanced", "accuracy": "accuracy", "log_loss": "log loss", "macro_f1": "macro F1",
}  # fmt: skip
"""The figures of a package's accuracy that are compared, with their headings. What no package states is not shown."""

LOG = "progress.log"
_BY_SIZE = "at_estimated_diameter"
_VARIABLE = re.compile(r"\$\{?(\w+)")


@dataclass(frozen=True, slots=True)
class SeedTask:
    """What the process that trains one seed is told: the configuration as JSON, and the environment variables it
    depends on."""

    config: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SeedResult:
    """The result of one seed: its package's folder and figures (keys of `FIGURES`), or `fault`, which says what went
    wrong."""

    seed: int
    package: str
    figures: Mapping[str, float]
    fault: str = ""


def train_seeds(
    config: TrainConfig,
    seeds: Sequence[int],
    execution: ExecutionConfig,
    *,
    report: Callable[[str], None] = print,
) -> list[SeedResult]:
    """Train the recipe once for each seed, in a work folder and a package folder whose names end in `-seed<n>`.

    A seed that fails has a fault and no figures. Calling this again continues failed seeds and takes finished ones as
    they are. Raises ConfigFault if no seed is given, or one is given twice.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigFault(f"seeds {list(seeds)}: one or more different whole numbers expected")
    tasks = [_task(of_seed(config, seed)) for seed in seeds]
    for seed in seeds:
        report(f"seed {seed}: follow {Path(of_seed(config, seed).work_dir).expanduser() / LOG}")
    trials = [Trial(f"seed {seed}", task) for seed, task in zip(seeds, tasks, strict=True)]
    ended = run_trials(train_one, trials, execution, threads=config.threads, report=report)
    return [
        SeedResult(seed, *end.value) if end.value else SeedResult(seed, "", {}, end.fault)
        for seed, end in zip(seeds, ended, strict=True)
    ]


def of_seed(config: TrainConfig, seed: int) -> TrainConfig:
    """The configuration of one seed, with its own work and package folders."""
    folders = {
        name: f"{getattr(config, name).rstrip('/')}-seed{seed}" for name in ("work_dir", "package_dir")
    }
    return config.model_copy(update={"seed": seed, **folders})


def _task(config: TrainConfig) -> SeedTask:
    return SeedTask(config.model_dump_json(exclude_unset=True), environment_of(config))


def environment_of(config: TrainConfig) -> dict[str, str]:
    """The environment variables that a training depends on, as they are set here."""
    names = ("KERAS_BACKEND", *_VARIABLE.findall(config.model_dump_json(include={"data", "beside"})))
    return {name: os.environ[name] for name in names if name in os.environ}


def train_one(task: SeedTask, threads: int) -> tuple[str, dict[str, float]]:
    """Train one seed in this process, which must not have loaded Keras yet. Returns its package's folder and its
    figures."""
    os.environ.update(task.environment)
    from cellcount_core.training.trainer import train

    config = train_config(json.loads(task.config)).model_copy(update={"threads": threads})
    work_dir = Path(config.work_dir).expanduser()
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / LOG).open("a", encoding="utf-8") as log:

        def report(line: str) -> None:
            print(line, file=log, flush=True)

        folder = train(config, report=report)
    return str(folder), figures_of(folder)


def figures_of(folder: Path) -> dict[str, float]:
    """The figures that a package states of its validation images: at each image's own estimated size if it states
    those."""
    accuracy = load_package(folder).accuracy
    by_size = accuracy.get(_BY_SIZE)
    stated = by_size if isinstance(by_size, Mapping) else accuracy
    return {name: float(str(stated[name])) for name in FIGURES if stated.get(name) is not None}


def mean_and_spread(results: Sequence[SeedResult], figure: str) -> tuple[float, float]:
    """Mean and sample standard deviation of a figure over the seeds that succeeded. The deviation of a single seed is
    0."""
    values = [result.figures[figure] for result in results if figure in result.figures]
    if not values:
        return float("nan"), float("nan")
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _stated(results: Sequence[SeedResult]) -> list[str]:
    return [name for name in FIGURES if any(name in result.figures for result in results)]


def seeds_table(results: Sequence[SeedResult]) -> str:
    """The results as text: one line per seed, then mean and standard deviation."""
    shown = _stated(results)
    lines = ["  ".join(["seed".rjust(5), *(FIGURES[name].rjust(8) for name in shown)])]
    for result in results:
        cells = [f"{result.figures[name]:8.4f}" if name in result.figures else " " * 8 for name in shown]
        lines.append("  ".join([f"{result.seed:5d}", *cells]) + (f"  {result.fault}" if result.fault else ""))
    both = [mean_and_spread(results, name) for name in shown]
    for row, label in enumerate(("mean", "sd")):
        lines.append("  ".join([label.rjust(5), *(f"{pair[row]:8.4f}" for pair in both)]))
    return "\n".join(lines)


def write_seeds(config: TrainConfig, results: Sequence[SeedResult]) -> Path:
    """Write the results as CSV beside the work folders, to `<work_dir>-seeds.csv`, and return that path."""
    path = Path(config.work_dir.rstrip("/") + "-seeds.csv").expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = _stated(results)
    both = [mean_and_spread(results, name) for name in shown]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["seed", *shown, "package", "fault"])
        writer.writerows(
            [result.seed, *(result.figures.get(name, "") for name in shown), result.package, result.fault]
            for result in results
        )
        writer.writerows(
            [label, *(f"{pair[row]:.6g}" for pair in both), "", ""]
            for row, label in enumerate(("mean", "sd"))
        )
    return path


def draw_seeds(config: TrainConfig, results: Sequence[SeedResult]) -> Path | None:
    """Draw how far the task's headline figure spreads, to `<work_dir>-seeds.png`, and return that path; None if no seed has the figure."""
    packages = [result.package for result in results if result.package]
    figure = headline_of(packages[0]) if packages else ""
    values = {f"seed {result.seed}": result.figures[figure] for result in results if figure in result.figures}
    if not values:
        return None
    path = Path(config.work_dir.rstrip("/") + "-seeds.png").expanduser()
    draw_spread(path, Spread(config.name, figure, values))
    return path
