"""`cellcount train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cellcount_core.cli.settings import explain, read_settings
from cellcount_core.domain.errors import ConfigFault, ExitCode

if TYPE_CHECKING:
    from cellcount_core.training.config import TrainConfig


def train(config: Path, assignments: Sequence[str]) -> int:
    """Train as `config` says, with `--set` assignments on top; the package's folder is printed last."""
    from cellcount_core.training.trainer import train as run_training

    print(f"package: {run_training(_settings(config, assignments))}")
    return int(ExitCode.OK)


def train_seeds(
    config: Path, assignments: Sequence[str], seeds: str, runner: str | None, address: str | None
) -> int:
    """Train once for each seed of "0,1,2"; their figures are printed and written as a table. Exit 3 where a seed failed."""
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
    return int(ExitCode.FAILURES if any(result.fault for result in results) else ExitCode.OK)


def package_now(config: Path, assignments: Sequence[str]) -> int:
    """Write a package of the newest checkpoint of such a training, which may be going on."""
    from cellcount_core.training.export import package_now as write_package

    print(f"package: {write_package(_settings(config, assignments))}")
    return int(ExitCode.OK)


def refit(config: Path, assignments: Sequence[str], folder: Path) -> int:
    """Measure anew what a package states of its counts, as it counts now, and give it the configuration's version."""
    from cellcount_core.pipeline.context import prepare_process
    from cellcount_core.training.export import refit_package
    from cellcount_core.training.images import load_images

    prepare_process()
    settings = _settings(config, assignments)
    refit_package(settings, load_images(settings, report=print), folder)
    print(f"package: {folder}")
    return int(ExitCode.OK)


def _numbers(seeds: str) -> list[int]:
    parts = [part.strip() for part in seeds.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigFault(
            f"--seeds {seeds!r}: whole numbers with commas between them expected, for example 0,1,2"
        )
    return [int(part) for part in parts]


def _settings(config: Path, assignments: Sequence[str]) -> TrainConfig:
    from cellcount_core.training.config import TrainConfig

    return read_settings(config, assignments, TrainConfig)
