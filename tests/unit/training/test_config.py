"""Training configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.models.families.unet import parse_unet, receptive_radius, stride
from cellcount_core.tasks.instances.learn import InstancesConfig
from cellcount_core.training.config import DataConfig
from cellcount_core.training.learning import train_config
from cellcount_core.training.network import config_digest
from cellcount_core.training.start import started

CONF = Path(__file__).resolve().parents[3] / "conf"
NETWORK = {"outputs": 2, "stem": 2, "filters": [4, 8]}
GOOD: dict[str, object] = {
    "name": "tiny", "data": {"path": "data"}, "network": NETWORK, "steps": 4, "crop_px": 64, "work_dir": "w", "package_dir": "p",
}  # fmt: skip


@pytest.mark.parametrize(
    "name", ["train_nuclei.yaml", "train_seed_unet.yaml", "train_finetune.yaml", "train_histology.yaml"]
)
def test_the_shipped_configurations_are_valid(name: str) -> None:
    config = started(train_config(yaml.safe_load((CONF / name).read_text())))
    assert config.crop_px % stride(config.network) == 0


def test_the_seeds_recipe_is_what_its_notebook_did() -> None:
    config = InstancesConfig.model_validate(yaml.safe_load((CONF / "train_seed_unet.yaml").read_text()))
    network = parse_unet(config.network)
    assert (network.filters, network.skip, network.up, network.stem) == (
        (64, 128, 256, 512, 1024),
        "concat",
        "convolve",
        1,
    )
    assert (network.encoder, network.decoder) == ((2,) * 5, (2,) * 4)
    assert (config.optimiser.kind, config.optimiser.learning_rate) == ("rmsprop", 1e-4)
    assert (config.batch, config.epochs, config.separator, config.maps) == (
        16,
        50,
        "components",
        ("foreground",),
    )
    assert (config.loss.cross_entropy, config.loss.dice) == (1.0, 0.0)


def test_the_shipped_networks_tiles_need_a_modest_overlap() -> None:
    config = train_config(yaml.safe_load((CONF / "train_nuclei.yaml").read_text()))
    assert stride(config.network) == 16
    assert receptive_radius(config.network) <= 96


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stepz": 3}, "stepz"),
        (
            {"epochs": 2},
            "are both set: one of them expected; 0 takes the other back",
        ),
        ({"steps": 0}, "neither steps nor epochs is set"),
        ({"crop_px": 65}, "multiple of the network's stride 4"),
        ({"maps": ["distance", "foreground"]}, "begin with 'foreground'"),
        ({"maps": ["foreground"], "network": {**NETWORK, "outputs": 1}}, "needs the map 'distance'"),
        ({"network": {**NETWORK, "outputs": 3}}, "outputs 2 expected"),
        ({"network": {**NETWORK, "filterz": [4]}}, "did you mean 'filters'"),
        ({"network": {**NETWORK, "decoder": [1, 1]}}, "2 levels need 2 entries"),
        ({"network": {**NETWORK, "stem": 4}}, "1 or 2 expected"),
        ({"optimiser": {"kind": "sgd"}}, "optimiser"),
        ({"network": {}}, "network is needed"),
        ({"data": {"path": "data", "kind": "tables"}}, "data.kind"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        train_config({**GOOD, **changes})


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("instancess", "task: 'instancess' is unknown; did you mean 'instances'"),
        ("", "task: '' is unknown"),
    ],
)
def test_a_task_that_is_none_is_answered_with_those_that_are(task: str, said: str) -> None:
    with pytest.raises(ConfigFault, match=said):
        train_config({**GOOD, "task": task})


def test_a_path_may_name_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLS", "some/where")
    assert DataConfig(path="${CELLS}/set").resolved() == Path("some/where/set")
    monkeypatch.delenv("CELLS")
    with pytest.raises(ConfigFault, match="not set"):
        DataConfig(path="${CELLS}/set").resolved()


def test_a_setting_added_since_leaves_the_digest_of_an_older_configuration_alone() -> None:
    """A run that is going on must find its checkpoint again after an update."""
    pinned = "849a8271cde803a6af241041eb67bcd476c119bb28ab67625b42a09ad62ef8a4"
    assert config_digest(train_config(GOOD)) == pinned


@pytest.mark.parametrize(
    "changes",
    [
        {"work_dir": "elsewhere"}, {"package_dir": "q"}, {"checkpoint_every": 3}, {"validate_every": 7}, {"threads": 2},
        {"data_parallel": "off"}, {"version": "2.0.0"}, {"seed": 0}, {"data": {"path": "data", "kind": "folder"}},
    ],
)  # fmt: skip
def test_what_decides_no_weight_is_no_part_of_the_digest(changes: dict[str, object]) -> None:
    assert config_digest(train_config({**GOOD, **changes})) == config_digest(train_config(GOOD))


@pytest.mark.parametrize("changes", [{"seed": 1}, {"batch": 4}, {"steps": 5}, {"optimiser": {"ema": 0.5}}])
def test_what_decides_the_weights_is_part_of_the_digest(changes: dict[str, object]) -> None:
    assert config_digest(train_config({**GOOD, **changes})) != config_digest(train_config(GOOD))


def test_a_run_that_holds_its_rate_may_be_made_longer() -> None:
    def digest(steps: int, schedule: str) -> str:
        return config_digest(train_config({**GOOD, "steps": steps, "optimiser": {"schedule": schedule}}))

    assert digest(100, "trapezoid") == digest(200, "trapezoid")
    assert digest(100, "cosine") != digest(200, "cosine")
