"""A finished run, shared by the tests of training."""

from __future__ import annotations

import pytest

from cellcount_core.tasks.instances.learn import InstancesConfig
from tests.unit.training.tiny import compact, quiet, write_archive


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> InstancesConfig:
    """A compact network after 40 steps, with its checkpoint, curves and package."""
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
    from cellcount_core.training.trainer import train

    folder = tmp_path_factory.mktemp("compact")
    write_archive(folder / "X_and_y.npz")
    config = compact(folder)
    train(config, report=quiet)
    return config
