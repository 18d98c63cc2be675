"""Networks of whole images: in Keras and in ONNX they give the same vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.families import family_named
from cellcount_core.models.families.onnx_graph import layer_weights
from cellcount_core.models.families.pooled import (
    FEATURES,
    build_pooled,
    fit_features,
    fold_pooled,
    parse_pooled,
    pooled_graph,
    pooled_stride,
)

CONFIGS: dict[str, dict[str, object]] = {
    "compact": {"outputs": 3, "filters": [3, 4, 5], "convolutions": [2, 2, 1]},
    "compact, with features, three channels": {
        "inputs": 3, "outputs": 4, "output": "sigmoid", "filters": [3, 3], "convolutions": [1, 2], "features": 2, "dense": [6],
    },
    "means alone, five channels": {"inputs": 5, "outputs": 2, "filters": [4], "convolutions": [3], "pool": "average", "stem": 1},
    "two heads": {"outputs": 4, "output": "sigmoid", "filters": [3, 4], "convolutions": [1, 1], "dense": [6], "heads": 2},
    "the seed's": {"preset": "seed", "outputs": 2, "filters": [2, 3, 4], "side": 16, "dense": [7, 5]},
}  # fmt: skip


def test_the_presets_are_those_of_the_source_and_a_small_one() -> None:
    seed = parse_pooled({"preset": "seed", "side": 128, "outputs": 2})
    widths = [
        width for width, count in zip(seed.filters, seed.convolutions, strict=True) for _ in range(count)
    ]
    assert widths == [16, 16, 16, 32, 32, 32, 64, 64, 64]
    assert (seed.pool, seed.dense, seed.output, pooled_stride({"preset": "seed", "side": 128})) == (
        "flatten",
        (512,),
        "softmax",
        8,
    )
    compact = parse_pooled({})
    assert (compact.stem, compact.residual, compact.pool, pooled_stride({})) == (2, True, "both", 16)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"preset": "compct"}, "network.preset: 'compct' is unknown; did you mean 'compact'"),
        ({"filter": [3]}, "network.filter: unknown; did you mean 'filters'"),
        ({"filters": [3, 4]}, "2 levels need as many entries in `convolutions`"),
        ({"preset": "seed"}, "network.side: the side of the images in px, a multiple of 8, is needed"),
        ({"preset": "seed", "side": 20}, "network.side"),
        ({"dropout": 1}, "network.dropout: a number from 0 to below 1"),
        ({"features": -1}, "network.features: a whole number"),
        ({"stem": 4}, "network.stem: 1 or 2"),
        ({"heads": 2}, "network.heads: 2 heads need a hidden layer"),
        (
            {"heads": 3, "outputs": 28, "dense": [6]},
            "network.heads: 28 outputs cannot be shared equally among 3 heads",
        ),
    ],
)
def test_a_configuration_that_is_wrong_is_refused_by_its_key(config: dict[str, object], said: str) -> None:
    with pytest.raises(ModelFault, match=said):
        parse_pooled(config)


def test_a_family_that_is_none_names_the_nearest() -> None:
    with pytest.raises(ModelFault, match=r"'poled'.*did you mean 'pooled'"):
        family_named("poled")


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_graph_gives_the_vector_of_keras(tmp_path: Path, config: dict[str, object]) -> None:
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
    import onnxruntime as ort

    network = build_pooled(config)
    rng = np.random.default_rng(6)  # that of 5 draws a small network of the seed whose every unit is silent
    for layer in network.layers:
        layer.set_weights(
            [
                rng.uniform(0.1, 0.5, weight.shape)
                if weight.ndim == 1
                else rng.normal(0, 1.5 / np.sqrt(weight.size / weight.shape[-1]), weight.shape)
                for weight in layer.get_weights()
            ]
        )
    spec = parse_pooled(config)
    if spec.features:
        fit_features(
            network, rng.normal(size=(20, network.get_layer(FEATURES).weights[0].shape[0])).astype(np.float32)
        )
    folded_config, folded = fold_pooled(config, network)
    onnx.save_model(pooled_graph(folded_config, layer_weights(folded)), tmp_path / "network.onnx")
    session = ort.InferenceSession(str(tmp_path / "network.onnx"), providers=["CPUExecutionProvider"])
    side = spec.side or 2 * pooled_stride(config)
    images = rng.normal(0.3, 0.5, (3, side, side, spec.inputs)).astype(np.float32)
    expected = np.asarray(network.predict_on_batch(images))
    assert expected.shape == (3, spec.outputs + spec.features)
    assert len(np.unique(expected.round(4), axis=0)) > 1
    np.testing.assert_allclose(session.run(None, {"image": images})[0], expected, atol=1e-4)
    told = expected[:, : spec.outputs]
    if spec.output == "softmax":
        np.testing.assert_allclose(told.sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_features_are_uncorrelated_and_alike_in_spread() -> None:
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    network = build_pooled({"outputs": 2, "filters": [4], "convolutions": [1], "features": 3})
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 8)) @ rng.normal(size=(8, 8)) + 5
    fit_features(network, vectors.astype(np.float32))
    kernel, bias = network.get_layer(FEATURES).get_weights()
    told = vectors @ kernel + bias
    np.testing.assert_allclose(told.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(told, rowvar=False), np.eye(3), atol=1e-3)


@pytest.mark.slow
def test_no_head_sees_the_hidden_units_of_another_however_it_is_trained() -> None:
    network = build_pooled(CONFIGS["two heads"])
    network.compile("adam", "mse")
    rng = np.random.default_rng(0)
    network.fit(rng.random((8, 16, 16, 1)), rng.random((8, 4)), epochs=3, verbose=0)
    kernel = network.get_layer("logits").get_weights()[0]
    assert (kernel[:3, 2:] == 0).all()
    assert (kernel[3:, :2] == 0).all()
    assert (kernel[:3, :2] != 0).all()
    first = network.get_layer("dense0").get_weights()[0]
    assert (first != 0).all()
