"""`cellcount train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from cellcount_core.cli.settings import assign, explain, read_yaml
from cellcount_core.domain.errors import ConfigFault, ExitCode


def train(config: Path, assignments: Sequence[str]) -> int:
    """Train as `config` says, with `--set` assignments on top; the package's folder is printed last."""
    from cellcount_core.training.config import TrainConfig
    from cellcount_core.training.trainer import train as run_training

    tree = read_yaml(config)
    for assignment in assignments:
        assign(tree, assignment)
    try:
        settings = TrainConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigFault(explain(error, TrainConfig, str(config))) from None
    print(f"package: {run_training(settings)}")
    return int(ExitCode.OK)
