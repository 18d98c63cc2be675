"""`cellcount train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cellcount_core.cli.settings import assign, explain, read_yaml
from cellcount_core.domain.errors import ConfigFault, ExitCode

if TYPE_CHECKING:
    from cellcount_core.training.config import TrainConfig


def train(config: Path, assignments: Sequence[str]) -> int:
    """Train as `config` says, with `--set` assignments on top; the package's folder is printed last."""
    from cellcount_core.training.trainer import train as run_training

    print(f"package: {run_training(_settings(config, assignments))}")
    return int(ExitCode.OK)


def package_now(config: Path, assignments: Sequence[str]) -> int:
    """Write a package of the newest checkpoint of such a training, which may be going on."""
    from cellcount_core.training.export import package_now as write_package

    print(f"package: {write_package(_settings(config, assignments))}")
    return int(ExitCode.OK)


def _settings(config: Path, assignments: Sequence[str]) -> TrainConfig:
    from cellcount_core.training.config import TrainConfig

    tree = read_yaml(config)
    for assignment in assignments:
        assign(tree, assignment)
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigFault(explain(error, TrainConfig, str(config))) from None
