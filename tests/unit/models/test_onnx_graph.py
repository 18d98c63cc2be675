"""The ONNX graph of a network gives the maps of the network in Keras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.engines.onnx import keep_onnxruntime_silent
from cellcount_core.models.families import Growing
from cellcount_core.models.families.onnx_graph import layer_weights, onnx_graph, write_onnx
from cellcount_core.models.families.unet import build_unet, fold_batch_norm, stride

keras = pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
pytestmark = pytest.mark.slow

COMPACT: dict[str, object] = {
    "outputs": 3, "stem": 2, "filters": [3, 4, 5], "encoder": [1, 2, 2], "decoder": [1, 1], "skip": "add", "up": "project",
    "batch_norm": True,
}  # fmt: skip
CONFIGS: dict[str, dict[str, object]] = {
    "compact": COMPACT,
    "compact, joined by concatenation": {**COMPACT, "skip": "concat"},
    "full resolution, project": {**COMPACT, "stem": 1, "outputs": 1},
    "half resolution, convolve": {**COMPACT, "up": "convolve", "decoder": [2, 1]},
    "the seed's": {"outputs": 1, "filters": [2, 3, 4, 5, 6]},
    "one level": {"outputs": 2, "stem": 2, "filters": [3]},
    "two channels": {"inputs": 2, "outputs": 1, "filters": [4, 6], "batch_norm": True},
}


def random_network(config: dict[str, object]) -> keras.Model:
    """A network whose every weight, norms included, is drawn."""
    network = build_unet(config)
    rng = np.random.default_rng(5)
    for layer in network.layers:
        drawn = []
        for weight in layer.get_weights():
            spread = 1.5 / np.sqrt(max(1.0, weight.size / weight.shape[-1]))
            drawn.append(
                rng.normal(0, spread, weight.shape)
                if weight.ndim == 4
                else rng.uniform(0.2, 1.2, weight.shape)
            )
        layer.set_weights([value.astype(np.float32) for value in drawn])
    return network


def run(path: Path, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    keep_onnxruntime_silent()
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["maps"], {"image": tiles})[0])


@pytest.mark.parametrize("growing", ["resize", "gather"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_graph_gives_the_maps_of_keras_at_any_size_and_batch(
    tmp_path: Path, config: dict[str, object], growing: Growing
) -> None:
    network = random_network(config)
    folded_config, folded = fold_batch_norm(config, network)
    write_onnx(folded_config, layer_weights(folded), tmp_path / "network.onnx", growing=growing)
    step = stride(config)
    rng = np.random.default_rng(1)
    for batch, rows, columns in ((1, 3, 5), (3, 2, 1), (2, 7, 4)):
        shape = (batch, rows * step, columns * step, network.input_shape[-1])
        tiles = rng.normal(0.3, 0.5, shape).astype(np.float32)
        expected = np.asarray(network.predict_on_batch(tiles))
        assert expected.std() > 0.01
        np.testing.assert_allclose(run(tmp_path / "network.onnx", tiles), expected, atol=1e-4)


def test_a_network_that_still_has_its_norms_is_refused() -> None:
    with pytest.raises(ModelFault, match="fold it into the convolutions"):
        onnx_graph(COMPACT, {})


def test_weights_without_a_layer_of_the_network_are_refused_by_its_name() -> None:
    config = {**COMPACT, "batch_norm": False}
    weights = dict(layer_weights(build_unet(config)))
    del weights["down1_0"]
    with pytest.raises(ModelFault, match="no layer 'down1_0'"):
        onnx_graph(config, weights)
