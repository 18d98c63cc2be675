"""How a batch is shared among GPUs, and that every backend gives the same maps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.training.network import choose_spread

ROOT = Path(__file__).resolve().parents[3]
NETWORK = {
    "outputs": 3, "stem": 2, "filters": [4, 6, 8], "encoder": [1, 2, 2], "decoder": [1, 1], "skip": "add", "up": "project",
    "batch_norm": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "backend", "gpus", "expected"),
    [
        ("auto", "tensorflow", 0, "one"),
        ("auto", "jax", 1, "one"),
        ("auto", "tensorflow", 2, "tensorflow"),
        ("auto", "jax", 4, "jax"),
        ("off", "jax", 4, "one"),
        ("auto", "torch", 4, "one"),
    ],
)
def test_batches_are_shared_only_where_several_gpus_are_seen(
    asked: str, backend: str, gpus: int, expected: str
) -> None:
    assert choose_spread(asked, backend, gpus, batch=16) == expected


def test_a_batch_that_cannot_be_cut_equally_is_answered_with_one_that_can() -> None:
    with pytest.raises(ConfigFault, match="10 cannot be shared equally among 4 GPUs; 8 or 12 can"):
        choose_spread("auto", "jax", 4, batch=10)
    with pytest.raises(ConfigFault, match="4 or 8 can"):
        choose_spread("auto", "jax", 4, batch=2)


def run(script: str, *arguments: str, **environment: str) -> str:
    """What a Python process of its own prints last."""
    found = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, env={**os.environ, **environment}, check=True, text=True,
        capture_output=True,
    )  # fmt: skip
    return found.stdout.splitlines()[-1]


TWO_DEVICES = """
import json, sys
import numpy as np
from cellcount_core.training.learning import train_config
from cellcount_core.training.network import spread_over
from cellcount_core.training.network import compiled
tree = json.loads(sys.argv[1])
if sys.argv[2] == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    tf.distribute.MirroredStrategy = lambda kind=tf.distribute.MirroredStrategy: kind(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
inputs = rng.random((4, 32, 32, 1)).astype("float32")
targets = (rng.random((4, 32, 32, 4)) > 0.5).astype("float32")
losses = []
for spread in ("one", sys.argv[2]):
    with spread_over(spread):
        _, trainee = compiled(train_config(tree), 3)
        for _ in range(3):
            trainee.reset_metrics()
            losses.append(float(trainee.train_on_batch(inputs, targets)[0]))
print(json.dumps(losses))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_two_devices_learn_what_one_does(backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    # Without batch statistics, which each device takes of its own part, and Dice, which is no mean over a batch.
    tree = {
        "name": "tiny", "data": {"path": "unused"},
        "network": {"outputs": 3, "stem": 2, "filters": [4], "skip": "add", "up": "project"},
        "maps": ["foreground", "distance", "size"], "steps": 3, "batch": 4, "crop_px": 32,
        "loss": {"dice": 0, "distance": 0, "size": 0}, "work_dir": "unused", "package_dir": "unused",
    }  # fmt: skip
    losses = json.loads(
        run(
            TWO_DEVICES, json.dumps(tree), backend, KERAS_BACKEND=backend,
            XLA_FLAGS="--xla_force_host_platform_device_count=2",
        )
    )  # fmt: skip
    np.testing.assert_allclose(losses[3:], losses[:3], rtol=1e-3)
    assert losses[2] < losses[0]


MAPS = """
import json, sys
import numpy as np
from cellcount_core.models.families.unet import build_unet
network = build_unet(json.loads(sys.argv[1]))
weights, rng = sys.argv[2], np.random.default_rng(0)
if sys.argv[3] == "write":
    for variable in network.weights:
        low = 0.5 if variable.path.endswith(("variance", "gamma")) else -0.5
        variable.assign(rng.uniform(low, low + 1, variable.shape).astype("float32"))
    network.save_weights(weights)
network.load_weights(weights)
maps = network.predict_on_batch(np.random.default_rng(1).normal(0, 1, (2, 48, 32, 1)).astype("float32"))
np.save(sys.argv[4], maps)
"""


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_the_same_weights_give_the_same_maps_on_every_backend(tmp_path: Path, backend: str) -> None:
    for name in ("tensorflow", backend):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    network = json.dumps(NETWORK)
    for name, act in (("tensorflow", "write"), (backend, "read")):
        script = MAPS + "print('done')"
        run(
            script,
            network,
            str(tmp_path / "n.weights.h5"),
            act,
            str(tmp_path / f"{name}.npy"),
            KERAS_BACKEND=name,
        )
    one, other = np.load(tmp_path / "tensorflow.npy"), np.load(tmp_path / f"{backend}.npy")
    assert one.std() > 1e-3
    np.testing.assert_allclose(one, other, atol=1e-4)
