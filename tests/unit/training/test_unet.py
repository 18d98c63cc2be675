"""The network builder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.families import LOGITS
from cellcount_core.models.families.unet import build_unet, fold_batch_norm, receptive_radius, stride

keras = pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
pytestmark = pytest.mark.slow

SEED: dict[str, object] = {"outputs": 1, "filters": [2, 2, 2, 2, 2]}
COMPACT: dict[str, object] = {
    "outputs": 2, "stem": 2, "filters": [3, 4, 5], "encoder": [1, 2, 2], "decoder": [1, 1], "skip": "add", "up": "project",
    "batch_norm": True,
}  # fmt: skip
SMALL: dict[str, object] = {
    "outputs": 1,
    "stem": 1,
    "filters": [2, 3],
    "encoder": [1, 1],
    "decoder": [1],
    "up": "project",
}


def positive_logits(config: Mapping[str, object]) -> keras.Model:
    """The network up to its logits with weights through which every input pixel is felt."""
    network = build_unet(config)
    for weight in network.trainable_weights:
        weight.assign(np.full(weight.shape, 0.2, np.float32))
    return keras.Model(network.input, network.get_layer(LOGITS).output)


@pytest.mark.parametrize("config", [SMALL, COMPACT, SEED], ids=["small", "compact", "seed"])
def test_a_pixel_is_felt_within_the_receptive_radius_and_exactly_that_far(config: dict[str, object]) -> None:
    radius, step = receptive_radius(config), stride(config)
    network = positive_logits(config)
    middle = -(-radius // step) * step
    size = 2 * middle + step
    images = np.zeros((2 * step + 1, size, size, 1), np.float32)
    for phase in range(step):
        images[1 + phase, middle + phase, middle] = 1000.0
        images[1 + step + phase, middle, middle + phase] = 1000.0
    maps = np.concatenate([np.asarray(network.predict_on_batch(image[None])) for image in images])
    reached = 0
    for number in range(1, 2 * step + 1):
        y, x = np.argwhere(images[number, ..., 0])[0]
        rows, columns = np.nonzero((maps[number] != maps[0]).any(axis=-1))
        reached = max(reached, *np.abs(rows - y), *np.abs(columns - x))
    assert reached == radius


def test_the_seeds_levels_have_two_convolutions_each_and_one_sigmoid_at_the_end() -> None:
    network = build_unet(SEED)
    kernels = [layer.kernel_size for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert kernels.count((3, 3)) == 2 * 5 + 2 * 4
    assert kernels.count((2, 2)) == 4
    assert kernels[-1] == (1, 1)
    assert network.layers[-1].activation.__name__ == "sigmoid"
    assert stride(SEED) == 16


def test_the_shipped_size_of_the_seeds_network_has_31_million_parameters() -> None:
    # Counted by hand: 3x3 kernels of every level, 2x2 kernels of the way up, the 1x1 at the end, and biases.
    filters = [64, 128, 256, 512, 1024]
    down = sum(9 * (a * b + b * b) + 2 * b for a, b in zip([1, *filters], filters, strict=False))
    up = sum(4 * 2 * b * b + b + 9 * (2 * b * b + b * b) + 2 * b for b in filters[:-1])
    assert down + up + 65 == pytest.approx(31.0e6, rel=0.01)
    small = [2, 4, 8, 16, 32]
    down = sum(9 * (a * b + b * b) + 2 * b for a, b in zip([1, *small], small, strict=False))
    up = sum(4 * 2 * b * b + b + 9 * (2 * b * b + b * b) + 2 * b for b in small[:-1])
    assert build_unet({"outputs": 1, "filters": small}).count_params() == down + up + 3


def test_maps_have_the_inputs_size_and_lie_between_0_and_1() -> None:
    maps = np.asarray(
        build_unet(COMPACT).predict_on_batch(np.random.default_rng(0).random((2, 32, 48, 1), np.float32))
    )
    assert (maps.shape, maps.dtype) == ((2, 32, 48, 2), np.float32)
    assert 0 <= maps.min() <= maps.max() <= 1


def test_folding_the_normalisation_changes_no_map() -> None:
    network = build_unet(COMPACT)
    rng = np.random.default_rng(1)
    for layer in network.layers:
        if layer.name.endswith("_norm"):
            layer.set_weights(
                [rng.uniform(0.5, 1.5, weight.shape).astype(np.float32) for weight in layer.get_weights()]
            )
    folded_config, folded = fold_batch_norm(COMPACT, network)
    tiles = rng.random((2, 32, 32, 1), np.float32)
    assert folded_config["batch_norm"] is False
    assert not any(layer.name.endswith("_norm") for layer in folded.layers)
    np.testing.assert_allclose(
        np.asarray(folded(tiles)), np.asarray(network(tiles, training=False)), atol=1e-5
    )


@pytest.mark.parametrize(
    "config", [{"filters": []}, {"filters": [4, 0]}, {"skip": "sum"}, {"inputs": True}, {"filters": "64"}]
)
def test_a_configuration_that_is_none_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ModelFault, match="network"):
        build_unet(config)
