"""The measured bars of white blood cells in class folders: what is learnt, what chance reaches, and what copies on both sides of a split add.

    python -m benchmarks.class_bars DATA/wbc_class_folders WORK --seeds 5 --steps 600 --page docs/explanation/classes.md

The recipe `conf/train_classes_blood_cells.yaml` is trained and measured in folds, so that every image is held out once, in three series:

- grouped: all copies of a photo, and of a field that was photographed twice, are on one side of every split;
- shuffled: the same split, but the classes of what trains are dealt out anew to its groups;
- random: every image is a group of its own, so copies of one photo lie on both sides.

The first seed of each series comes first, then the further seeds of `grouped`. What is done is kept in WORK, fold by fold, so the same command goes
on where it was stopped. One row a series is printed, and written between the two marks of the page. The command ends with an error where two
runs cannot be compared: other images held out, or other settings than those by which series differ.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from cellcount_core.cli.settings import read_yaml, settings_of
from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.class_folders import list_class_folders
from cellcount_core.tasks.classes.learn import ClassesConfig
from cellcount_core.training.folds import CrossValidation, cross_validate, of_fold
from cellcount_core.training.watching import read_curve

RECIPE = Path("conf/train_classes_blood_cells.yaml")
BEGIN, END = "<!-- bars: written by benchmarks/class_bars.py -->", "<!-- end of bars -->"

Series = Literal["grouped", "shuffled", "random"]

OF_SERIES: Mapping[Series, Mapping[str, object]] = {
    "grouped": {},
    "shuffled": {"baseline": "shuffled"},
    "random": {"data.groups": "", "data.allow_leaks": True},
}
"""By which settings a series differs from the recipe. The table of single images is written to WORK."""

_SINGLES = "singles.csv"

_MANY_STEPS = 100


@dataclass(frozen=True, slots=True)
class Run:
    """One seed of a series: for each fold the balanced accuracy of what it held out and the accuracy on what trained, the ids of what was held
    out, the balanced and the plain accuracy over all of them, and the seconds of the trainings."""

    series: Series
    seed: int
    settings: Mapping[str, object]
    balanced: tuple[float, ...]
    trained: tuple[float, ...]
    held_out: tuple[tuple[str, ...], ...]
    pooled_balanced: float
    pooled_accuracy: float
    seconds: float


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("data", type=Path)
    made.add_argument("work", type=Path)
    made.add_argument("--seeds", type=int, default=5, help="seeds of the series grouped")
    made.add_argument("--baseline-seeds", type=int, default=1, help="seeds of the other two series")
    made.add_argument("--steps", type=int, default=600)
    made.add_argument(
        "--shuffled-steps", type=int, help="steps of the series shuffled (as many as of the others)"
    )
    made.add_argument("--folds", type=int, default=5)
    made.add_argument("--only", choices=get_args(Series), action="append", help="leave out the other series")
    made.add_argument("--page", type=Path, help="a Markdown page that has the two marks")
    asked = made.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    _write_singles(asked.data, asked.work / _SINGLES)
    chosen: Sequence[Series] = asked.only or get_args(Series)
    order = [
        (series, seed)
        for seed in range(max(asked.seeds, asked.baseline_seeds))
        for series in chosen
        if seed < (asked.seeds if series == "grouped" else asked.baseline_seeds)
    ]
    runs = []
    for series, seed in order:
        steps = asked.shuffled_steps if series == "shuffled" and asked.shuffled_steps else asked.steps
        run = measured(config_of(asked.data, asked.work, series, seed, steps), series, asked.folds)
        print(f"{series}, seed {seed}: {' '.join(f'{value:.3f}' for value in run.balanced)}", file=sys.stderr)
        runs.append(run)
    check_comparable(runs)
    table = table_of(runs)
    print(table)
    if asked.page:
        write_between(asked.page, table)


def _write_singles(data: Path, path: Path) -> None:
    """Write a table in which every image is a group of its own."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["file", "group"])
        for entry in list_class_folders(data).entries:
            rows.writerow([entry.id, entry.id])


def config_of(data: Path, work: Path, series: Series, seed: int, steps: int) -> ClassesConfig:
    """The recipe as a series trains it, in folders of its own."""
    tree = read_yaml(RECIPE)
    base = work / f"{series}-{steps}-seed{seed}"
    given = {
        "data.path": str(data), "seed": seed, "steps": steps, "validate_every": steps, "checkpoint_every": min(_MANY_STEPS, steps),
        "int8": "off", "work_dir": str(base), "package_dir": f"{base}-package", **OF_SERIES[series],
    }  # fmt: skip
    if series == "random":
        given["data.groups"] = str(work / _SINGLES)
    assignments = [f"{name}={json.dumps(value)}" for name, value in given.items()]
    return settings_of(tree, assignments, ClassesConfig, str(RECIPE))


def measured(config: ClassesConfig, series: Series, folds: int) -> Run:
    """Train and measure the folds of a run, or take what was kept of it. Raises ConfigFault naming a fold that failed."""
    kept = Path(f"{config.work_dir}-{folds}folds.json")
    settings = config.model_dump(mode="json")
    if kept.is_file():
        told = json.loads(kept.read_text(encoding="utf-8"))
        if told["settings"] == settings:
            lists = {name: tuple(told[name]) for name in ("balanced", "trained")}
            held_out = tuple(map(tuple, told["held_out"]))
            return Run(**{**told, **lists, "held_out": held_out})
    result = cross_validate(
        config, folds, ExecutionConfig(runner="serial"), report=lambda line: print(line, file=sys.stderr)
    )
    run = _run_of(config, series, settings, result)
    kept.write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
    return run


def _run_of(
    config: ClassesConfig, series: Series, settings: Mapping[str, object], result: CrossValidation
) -> Run:
    for fold in result.folds:
        if fold.held_out is None:
            raise ConfigFault(f"{series}, seed {config.seed}, fold {fold.fold}: {fold.fault}")
    work = [
        Path(of_fold(config, fold.fold, len(result.folds)).work_dir).expanduser() for fold in result.folds
    ]
    held = [fold.held_out for fold in result.folds if fold.held_out is not None]
    return Run(
        series,
        config.seed,
        settings,
        tuple(float(str(fold.figures["balanced_accuracy"])) for fold in result.folds),
        tuple(read_curve(folder)[-1].accuracy for folder in work),
        tuple(tuple(name for name, _ in one.images) for one in held),
        float(str(result.pooled["balanced_accuracy"])),
        float(str(result.pooled["accuracy"])),
        sum(one.seconds for one in held),
    )


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise ConfigFault if two runs do not measure the same images with the same recipe, or two of one split do not hold out the same ones.

    Series may differ in the settings of `OF_SERIES`, runs in their seed and folders, and what is shuffled in its steps; in nothing else.
    """
    first = next((run for run in runs if run.series != "shuffled"), runs[0])
    for run in runs:
        named = f"{run.series}, seed {run.seed}"
        for name, value in _shared(run.settings).items():
            if name == "steps" and run.series == "shuffled":
                continue
            if value != (expected := _shared(first.settings).get(name)):
                raise ConfigFault(
                    f"{named}: {name} is {value!r}, and {expected!r} for {first.series}, seed {first.seed}: not comparable"
                )
        every = sorted(name for fold in run.held_out for name in fold)
        if every != sorted(name for fold in first.held_out for name in fold) or len(every) != len(set(every)):
            raise ConfigFault(f"{named}: other images are held out than of {first.series}, or one twice")
        if len(run.held_out) != len(first.held_out):
            raise ConfigFault(
                f"{named}: {len(run.held_out)} folds, and {len(first.held_out)} of {first.series}"
            )
    splits: dict[str, tuple[tuple[str, ...], ...]] = {}
    for run in runs:
        split = "random" if run.series == "random" else "by group"
        if splits.setdefault(split, run.held_out) != run.held_out:
            raise ConfigFault(
                f"{run.series}, seed {run.seed}: its folds hold out other images than those of the same split"
            )


def _shared(settings: Mapping[str, object]) -> dict[str, object]:
    """What all runs must have in common, by name."""
    own = {"seed", "work_dir", "package_dir", "validate_every", "checkpoint_every"} | {
        name for each in OF_SERIES.values() for name in each
    }
    flat: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            flat[name] = value
    return {name: value for name, value in flat.items() if name not in own}


def table_of(runs: Sequence[Run]) -> str:
    """One row a series, as Markdown: balanced accuracy over all folds of all seeds, and what trained."""
    lines = [
        "| series | seeds x folds | steps | mean | sd over folds | range of folds | each seed, all images | right of what trained |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for series in get_args(Series):
        own = [run for run in runs if run.series == series]
        if not own:
            continue
        folds = [value for run in own for value in run.balanced]
        trained = [value for run in own for value in run.trained]
        spread = statistics.stdev(folds) if len(folds) > 1 else 0.0
        lines.append(
            f"| {series} | {len(own)} x {len(own[0].balanced)} | {own[0].settings['steps']} | {statistics.fmean(folds):.3f} | {spread:.3f} "
            f"| {min(folds):.3f} to {max(folds):.3f} | {', '.join(f'{run.pooled_balanced:.3f}' for run in own)} | {statistics.fmean(trained):.3f} |"
        )
    return "\n".join(lines)


def write_between(page: Path, table: str) -> None:
    """Put the table between the two marks of a page. Raises ConfigFault if they are not there."""
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text.partition(BEGIN)[2]:
        raise ConfigFault(f"{page}: the marks {BEGIN!r} and {END!r}, in this order, expected")
    before, _, rest = text.partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
