"""The cluster launcher's file passes Ray's own checks without a call to AWS, and the policy allows what cellcount does."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.unit.deploy.schemas import ROOT

FOLDER = ROOT / "deploy" / "aws"


def launcher() -> dict[str, Any]:
    config = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
    assert isinstance(config, dict)
    return config


def statements() -> dict[str, dict[str, Any]]:
    return {item["Sid"]: item for item in json.loads((FOLDER / "s3-policy.json").read_text())["Statement"]}


def test_ray_prepares_and_accepts_the_file() -> None:
    prepared = prepare_config(launcher())
    validate_config(prepared)

    assert prepared["available_node_types"]["worker"]["max_workers"] == 16
    assert prepared["head_node_type"] in prepared["available_node_types"]


def test_ray_would_refuse_a_misspelt_key() -> None:
    config = copy.deepcopy(launcher())
    config["idle_timeout_minuts"] = 5

    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuts"):
        validate_config(prepare_config(config))


def test_what_is_sent_to_the_nodes_is_there_and_is_enough_to_install() -> None:
    mounts = {Path(target).name: source for target, source in launcher()["file_mounts"].items()}
    sent = {name for name, source in mounts.items() if source.startswith("./")}

    assert [name for name in sent if not (ROOT / name).exists()] == []
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "THIRD_PARTY.md",
        "cellcount_core",
        "jobs",
        "models",
    } <= sent
    assert {"core.txt", "bootstrap.txt"} <= {path.name for path in (ROOT / "requirements").iterdir()}
    assert all(
        "--require-hashes" in command
        for command in launcher()["setup_commands"]
        if " install " in command and "--no-deps" not in command
    )


def test_every_node_gets_the_token_and_starts_with_it() -> None:
    config = launcher()

    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]


def test_workers_are_spot_machines_that_come_when_needed_with_a_role_instead_of_keys() -> None:
    worker = launcher()["available_node_types"]["worker"]

    assert worker["min_workers"] == 0
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "IamInstanceProfile" in worker["node_config"]
    assert "AKIA" not in (FOLDER / "cluster.yaml").read_text()


def test_the_policy_lets_nobody_change_the_images() -> None:
    reading = statements()["ReadPlates"]
    changing = {
        resource
        for item in statements().values()
        for action in ([item["Action"]] if isinstance(item["Action"], str) else item["Action"])
        if action.startswith(("s3:Put", "s3:Delete"))
        for resource in ([item["Resource"]] if isinstance(item["Resource"], str) else item["Resource"])
    }

    assert reading["Action"] == "s3:GetObject"
    assert changing == {"arn:aws:s3:::microscopy/counts/*"}
    assert "s3:*" not in (FOLDER / "s3-policy.json").read_text()


def test_the_lifecycle_rule_ends_uploads_and_deletes_no_table() -> None:
    (rule,) = json.loads((FOLDER / "s3-lifecycle.json").read_text())["Rules"]

    assert rule["Status"] == "Enabled"
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] >= 1
    assert set(rule) == {"ID", "Status", "Filter", "AbortIncompleteMultipartUpload"}
