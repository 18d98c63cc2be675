"""Commands about model packages: `cellcount models`, `evaluate` and `train`."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from cellcount_core.cli.settings import explain, parsed_assignment, read_settings, read_yaml
from cellcount_core.domain.errors import ConfigFault, ExitCode, OutputFault
from cellcount_core.domain.trust import TAUGHT_NOTHING, distrust

if TYPE_CHECKING:
    from cellcount_core.evaluation.assess import Evaluation
    from cellcount_core.evaluation.evaluate import Diameter
    from cellcount_core.evaluation.suites.run import Bars
    from cellcount_core.labelled.boxes import BoxReading
    from cellcount_core.labelled.leaks import Pair
    from cellcount_core.training.config import TrainConfig


Form = Literal["text", "json"]
"""What is printed on standard output."""

_LOG_EVERY_S = 5.0
_LARGEST_PX = 2000.0
_SHOWN = (
    "ap_50", "ap_70", "ap_90", "ap_mean", "f1_50", "pq", "count_mae", "count_mape", "count_bias", "count_r",
    "missed", "extra", "split", "merged",
)  # fmt: skip


def list_models() -> int:
    """Print the shipped packages, and the accuracy that was measured for them."""
    from cellcount_core.models.package import shipped_packages

    for package in shipped_packages():
        scale = f"objects of {package.input.diameter_px:g} px" if package.input.diameter_px else "any scale"
        tells = f"counts {package.object_name} ({scale})" if package.object_name else f"task {package.task}"
        print(f"{package.name} {package.version}  {package.digest[:12]}  {tells}")
        print(
            f"    for {', '.join(package.modality)}; engines: {', '.join(package.engines)}; channels: {', '.join(package.input.channels)}"
        )
        if "f1_50" in package.accuracy:
            print(f"    F1 at IoU 0.5: {package.accuracy['f1_50']:.3f} ({package.accuracy['data']})")
    return int(ExitCode.OK)


def check_box_data(
    data: Path,
    kind: str,
    classes: str | None,
    faulty: Literal["refuse", "skip"],
    form: Form,
    table: Path | None = None,
) -> int:
    """Print the report of a data set of boxes. Returns 2 if one of its faults would have it refused, or no image is left of it; else 0."""
    from cellcount_core.labelled.box_faults import BoxFault, policy_of
    from cellcount_core.labelled.boxes import BoxReading, check_boxes

    wanted = [name.strip() for name in (classes or "").split(",") if name.strip()]
    policy = policy_of({}, list(BoxFault) if faulty == "skip" else ())
    report = check_boxes(data, BoxReading(kind, classes=wanted, policy=policy, table=table)).report
    if form == "json":
        print(json.dumps(report.plain(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(report.lines()))
        if report.refused:
            print(
                "refused: the data is not read while one of these faults is in it; mend them, or leave them out with --skip-faulty"
            )
        elif not report.images:
            print("refused: no image is left; mend the faults, since data without an image is not read")
    return int(ExitCode.CONFIG if report.refused or not report.images else ExitCode.OK)


@dataclass(frozen=True, slots=True)
class ToEvaluate:
    """What `cellcount evaluate` was asked: a package, which images of the data, how they are counted, and how the result is shown.

    `out` is the folder for what is written. `split` None takes "val" if the data has it. `modality` () takes every modality.
    `diameter` is "auto", "model" or a number of px. `limit` keeps so many images, evenly spread; None keeps all.
    `faulty` and `table` say how boxes are read (see labelled/boxes.py).
    """

    package: str
    form: Form
    out: Path
    split: str | None
    modality: Sequence[str]
    diameter: str
    engine: str
    threads: int
    limit: int | None
    faulty: Literal["refuse", "skip"] = "refuse"
    table: Path | None = None


def reading_of(asked: ToEvaluate) -> BoxReading:
    """How the data of an evaluation is read."""
    from cellcount_core.labelled.box_faults import BoxFault, policy_of
    from cellcount_core.labelled.boxes import BoxReading

    policy = policy_of({}, list(BoxFault) if asked.faulty == "skip" else ())
    return BoxReading(policy=policy, table=asked.table)


def evaluate(asked: ToEvaluate, data: Path) -> int:
    """Evaluate a package on images of which the truth is known (`data`) and write the result. Prints a short table and the path of the
    page, or the whole result as JSON.

    Raises ConfigFault or OutputFault if something asked is not valid.
    """
    from cellcount_core.evaluation.assess import assess, list_data
    from cellcount_core.evaluation.result import as_json, write_result
    from cellcount_core.models.package import find_package

    scale = read_diameter(asked.diameter)
    _refuse_file(asked.out)
    package = find_package(asked.package)
    images = list_data(
        package,
        data,
        split=asked.split,
        modality=asked.modality,
        limit=asked.limit,
        reading=reading_of(asked),
    )
    line = ProgressLine()
    evaluation = assess(
        package, images, engine=asked.engine, threads=asked.threads, diameter=scale, progress=line.show
    )
    page = write_result(evaluation, asked.out)
    if asked.form == "json":
        print(json.dumps(as_json(evaluation), indent=1, ensure_ascii=False, allow_nan=False))
        return int(ExitCode.OK)
    print("\n".join(report_lines(evaluation)))
    print(f"{'page, JSON and CSV' if evaluation.scores else 'JSON and CSV'} are in {page.parent.absolute()}/")
    print(page)
    return int(ExitCode.OK)


def evaluate_suites(
    asked: ToEvaluate,
    data: Path | None,
    suites: Sequence[str],
    *,
    beside: Sequence[str],
    unlike: Sequence[str],
    bars: Bars,
) -> int:
    """Run suites of measurements on a package; write the JSON and Markdown of each, and print them. Some suites need no `data`.

    Raises ConfigFault or OutputFault if something asked is not valid.
    """
    from cellcount_core.evaluation.assess import list_data
    from cellcount_core.evaluation.suites import run
    from cellcount_core.models.package import find_package

    chosen = run.chosen_suites(suites)
    run.refuse_idle_options(chosen, beside=beside, unlike=unlike, engine=asked.engine)
    scale = read_diameter(asked.diameter)
    _refuse_file(asked.out)
    if data is None and (asked.faulty == "skip" or asked.table is not None):
        raise ConfigFault("--skip-faulty and --table say how DATA is read; give DATA with them")
    packages = [find_package(name) for name in (asked.package, *beside)]
    chosen = run.judging(chosen, suites, packages)
    for left_out in sorted(set(run.SUITES) - {suite.name for suite in chosen}) if run.ALL in suites else ():
        print(f"{left_out} is left out: {run.SUITES[left_out].why_not(packages[0])}", file=sys.stderr)
    images = (
        None
        if data is None
        else list_data(
            packages[0],
            data,
            split=asked.split,
            modality=asked.modality,
            limit=asked.limit,
            reading=reading_of(asked),
        )
    )
    for line in () if images is None else images.left_out:
        print(line, file=sys.stderr)
    told = []
    for measured in run.run_suites(
        chosen, packages, images, engine=asked.engine, threads=asked.threads, diameter=scale, unlike=unlike, limit=asked.limit,
        bars=bars, progress=lambda name: ProgressLine(f"{name}: ").show,
    ):  # fmt: skip
        written = run.write_measured(measured, asked.out)
        told.append(run.as_json(measured))
        if asked.form == "text":
            print("\n".join([*run.aligned(measured), "", *map(str, written), ""]), flush=True)
    if asked.form == "json":
        print(json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False))
    return int(ExitCode.OK)


def read_diameter(text: str) -> Diameter:
    """The setting that `--diameter TEXT` means. Raises ConfigFault, which says what was expected, if the text is not valid."""
    if text == "auto":
        return "auto"
    if text == "model":
        return "model"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= _LARGEST_PX:
        raise ConfigFault(
            f"--diameter {text!r}: expected 'auto', 'model', or px above 0 and up to {_LARGEST_PX:g}"
        )
    return value


def _refuse_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise OutputFault(f"--out {out}: is a file; expected a folder (it is created if needed)")


def report_lines(evaluation: Evaluation) -> list[str]:
    """What the console shows: the package, the data, the main figures with their intervals, and F1 and counts by group."""
    from cellcount_core.evaluation.figures import FIGURES, meaning, shown, shown_with_interval
    from cellcount_core.evaluation.page import data_words, diameter_words, notices

    package = evaluation.package
    shown_names = [name for name in _SHOWN if name in evaluation.figures]
    shown_names += [name for name in evaluation.figures if name not in FIGURES]
    titles = {name: meaning(name).title for name in shown_names}
    width = max([16, *map(len, titles.values())]) + 2
    with_intervals = any(evaluation.figures[name].low is not None for name in shown_names)
    lines = [
        f"{package.name} {package.version} ({package.digest[:12]}), engine {evaluation.engine}; {diameter_words(evaluation)}",
        data_words(evaluation),
        *(f"note: {notice}" for notice in notices(evaluation)),
        "",
        f"{'':<{width}}value{' (95 % interval)' if with_intervals else ''}",
    ]
    lines += [
        f"{titles[name]:<{width}}{shown_with_interval(name, evaluation.figures[name])}"
        for name in shown_names
    ]
    columns = ("f1_50", "ap_mean", "count_mape", "count_bias")
    for table in evaluation.tables:
        heads = "".join(f"{meaning(name).title:>17}" for name in columns)
        lines += ["", f"{table.title:<30}{'images':>8}{'objects':>9}{heads}"]
        for group in table.groups:
            cells = "".join(f"{shown(name, group.figures[name].value):>17}" for name in columns)
            lines.append(f"{group.name:<30}{group.images:>8,}{group.objects:>9,}{cells}")
    return [*lines, *evaluation.words, ""]


class ProgressLine:
    """Shows on standard error how many images are done, and how many per second: one changing line on a
    terminal, a line every few seconds elsewhere.
    """

    def __init__(self, of: str = "") -> None:
        self._of = of
        self._since = time.monotonic()
        self._told = self._since

    def show(self, done: int, total: int) -> None:
        """Show that `done` of `total` images are counted."""
        now = time.monotonic()
        last = done == total
        live = sys.stderr.isatty()
        if not live and not last and now - self._told < _LOG_EVERY_S:
            return
        self._told = now
        rate = done / max(1e-9, now - self._since)
        text = f"{self._of}evaluated {done} of {total} images, {rate:.1f} a second"
        print(
            f"\r{text}\x1b[K" if live else text,
            end="\n" if last or not live else "",
            file=sys.stderr,
            flush=True,
        )


def check_class_data(data: Path, groups: Path | None, write_groups: Path | None) -> int:
    """Print what is in class folders and which images show the same; write the groups that follow. Returns 3 if images that show the same are in
    different groups, or an image has two classes. Of groups that it writes, it is those that count."""
    from cellcount_core.labelled import class_folders, leaks
    from cellcount_core.labelled.image import channels_of
    from cellcount_core.labelled.whole import unreadable

    found = class_folders.list_class_folders(data, groups=groups)
    for line in found.lines():
        print(line)
    roles = channels_of(found.entries[0].files)
    faults = unreadable(found.entries, roles)
    for fault in faults.values():
        print(f"cannot be read: {fault}")
    entries = [entry for entry in found.entries if entry.id not in faults]
    looks = [leaks.look_at(entry.id, list(entry.load(roles).planes.values())) for entry in entries]
    pairs = leaks.find_pairs(looks, print)
    group = {entry.id: entry.group or entry.id for entry in entries}
    apart = leaks.across(pairs, group)
    print(
        f"images that show the same: {len(pairs)} pairs{f' ({leaks.kinds(pairs)})' if pairs else ''}; {len(apart)} are in different groups"
    )
    _print_pairs(apart)
    wrong = leaks.of_two_classes(pairs, {entry.id: entry.values[class_folders.CLASS] for entry in entries})
    if wrong:
        print(
            f"the same image has two classes: {len(wrong)} pairs; one of the two is wrong, and groups do not mend that: remove it"
        )
        _print_pairs(wrong)
    if write_groups is not None:
        own = leaks.found_groups([entry.id for entry in entries], pairs)
        lines = ["file,group", *(f"{_cell(name)},{_cell(of)}" for name, of in own.items()), ""]
        write_groups.write_text("\n".join(lines), encoding="utf-8")
        print(f"{len(set(own.values()))} groups: {write_groups}")
        apart = []  # What is written holds every pair together.
    return int(ExitCode.FAILURES if apart or wrong or faults else ExitCode.OK)


def _print_pairs(pairs: Sequence[Pair]) -> None:
    for pair in pairs[:_SHOWN_PAIRS]:
        print(f"  {pair}")
    if len(pairs) > _SHOWN_PAIRS:
        print(f"  and {len(pairs) - _SHOWN_PAIRS} more")


_SHOWN_PAIRS = 20


def _cell(text: str) -> str:
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if any(mark in text for mark in ',"') else text


def train(config: Path, assignments: Sequence[str]) -> int:
    """Train as `config` says, with `--set` assignments on top. The last line printed is the package's folder."""
    from cellcount_core.training.trainer import train as run_training

    _print_package(run_training(_settings(config, assignments)))
    return int(ExitCode.OK)


def _print_package(folder: Path) -> None:
    """The last lines of a training: whether counts of the package are to be trusted, and its folder."""
    if doubt := _doubt_of(folder):
        print(f"warning: {doubt}")
    print(f"package: {folder}")


def _doubt_of(folder: Path) -> str:
    """Why counts of a package are not to be trusted, in words; "" if nothing is known against it."""
    from cellcount_core.models.package import load_package

    package = load_package(folder)
    return distrust(package.name, package.accuracy)


def train_seeds(
    config: Path, assignments: Sequence[str], seeds: str, runner: str | None, address: str | None
) -> int:
    """Train once for each seed of a list such as "0,1,2", and print the figures and write them as a table. Returns 3 if a seed failed."""
    from cellcount_core.config import ExecutionConfig
    from cellcount_core.training import seeds as trials

    try:
        execution = ExecutionConfig.model_validate({"runner": runner or "ray", "address": address})
    except ValidationError as error:
        raise ConfigFault(explain(error, ExecutionConfig, "--runner")) from None
    settings = _settings(config, assignments)
    results = trials.train_seeds(settings, _numbers(seeds), execution)
    print(trials.seeds_table(results))
    print(f"table: {trials.write_seeds(settings, results)}")
    if picture := trials.draw_seeds(settings, results):
        print(f"picture: {picture}")
    for result in results:
        if result.package and (doubt := _doubt_of(Path(result.package))):
            print(f"warning: seed {result.seed}: {doubt}")
    return int(ExitCode.FAILURES if any(result.fault for result in results) else ExitCode.OK)


def train_folds(
    config: Path, assignments: Sequence[str], folds: str, runner: str | None, address: str | None
) -> int:
    """Train once for each of so many folds ("groups": one for each group), print their figures and write them. Returns 3 if one failed."""
    from cellcount_core.config import ExecutionConfig
    from cellcount_core.training import folds as trials

    if folds != "groups" and not folds.isdecimal():
        raise ConfigFault(
            f"--folds {folds!r}: a whole number expected, or 'groups' to leave out one group at a time"
        )
    try:
        execution = ExecutionConfig.model_validate({"runner": runner or "ray", "address": address})
    except ValidationError as error:
        raise ConfigFault(explain(error, ExecutionConfig, "--runner")) from None
    settings = _settings(config, assignments)
    result = trials.cross_validate(settings, None if folds == "groups" else int(folds), execution)
    print(trials.folds_table(result))
    for path in trials.write_folds(settings, result):
        print(path)
    if picture := trials.draw_folds(settings, result):
        print(picture)
    known = {TAUGHT_NOTHING: settings.taught_nothing()} if settings.taught_nothing() else {}
    if doubt := distrust(settings.package_name(), {**result.pooled, **known}):
        print(f"warning: {doubt}")
    return int(ExitCode.FAILURES if any(fold.fault for fold in result.folds) else ExitCode.OK)


def package_now(config: Path, assignments: Sequence[str]) -> int:
    """Write a package from the newest checkpoint of a training, which may still be running."""
    from cellcount_core.training.export import package_now as write_package

    _print_package(write_package(_settings(config, assignments)))
    return int(ExitCode.OK)


def refit(config: Path, assignments: Sequence[str], folder: Path) -> int:
    """Measure again what a package states about its counts, with the present code, and give it the version of the configuration."""
    from cellcount_core.pipeline.context import prepare_process
    from cellcount_core.training.export import refit_package
    from cellcount_core.training.start import load_lesson

    prepare_process()
    settings = _settings(config, assignments)
    refit_package(settings, load_lesson(settings, report=print), folder)
    _print_package(folder)
    return int(ExitCode.OK)


def _numbers(seeds: str) -> list[int]:
    parts = [part.strip() for part in seeds.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigFault(
            f"--seeds {seeds!r}: whole numbers with commas between them expected, for example 0,1,2"
        )
    return [int(part) for part in parts]


def _settings(config: Path, assignments: Sequence[str]) -> TrainConfig:
    from cellcount_core.training.learning import settings_model

    given = read_yaml(config)
    for assignment in assignments:
        # The task decides which other keys there are.
        if parsed_assignment(assignment)[0] == ["task"]:
            given["task"] = parsed_assignment(assignment)[1]
    return read_settings(config, assignments, settings_model(given))
