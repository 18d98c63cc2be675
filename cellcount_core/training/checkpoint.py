"""Checkpoints: weights, optimiser and step in one file, replaced whole, so that a killed run goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cellcount_core.domain.errors import ConfigFault

if TYPE_CHECKING:
    import keras

FILE = "checkpoint.npz"


def save_checkpoint(
    work_dir: Path, step: int, network: keras.Model, optimiser: keras.optimizers.Optimizer, digest: str
) -> None:
    """Write the state after `step` steps; a reader sees the old file or the new one, never a part."""
    from keras import ops

    arrays = {f"w{i:04d}": ops.convert_to_numpy(v) for i, v in enumerate(network.weights)}
    arrays |= {f"o{i:04d}": ops.convert_to_numpy(v) for i, v in enumerate(optimiser.variables)}
    arrays |= {"step": np.int64(step), "digest": np.array(digest)}
    temporary = work_dir / "checkpoint.tmp.npz"
    np.savez(temporary, allow_pickle=False, **arrays)
    temporary.replace(work_dir / FILE)


def load_checkpoint(
    work_dir: Path, network: keras.Model, optimiser: keras.optimizers.Optimizer, digest: str
) -> int:
    """Put the newest state back and return its step; 0 where there is none.

    Raises ConfigFault where the checkpoint belongs to another configuration.
    """
    path = work_dir / FILE
    if not path.is_file():
        return 0
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["digest"]) != digest:
            raise ConfigFault(
                f"{path}: the checkpoint of another configuration; give another work_dir or remove it"
            )
        for prefix, variables in (("w", network.weights), ("o", optimiser.variables)):
            for index, variable in enumerate(variables):
                variable.assign(stored[f"{prefix}{index:04d}"])
        return int(stored["step"])
