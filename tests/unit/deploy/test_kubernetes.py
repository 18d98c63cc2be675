"""What Kubernetes itself reads of the manifests is valid in every key, by its own schemas."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.deploy.schemas import ROOT

MANIFESTS = sorted((ROOT / "deploy" / "kuberay").glob("*.yaml"))


def validated(path: Path) -> tuple[int, str]:
    program = Path(sys.executable).parent / "kubernetes-validate"
    if not program.exists():
        pytest.skip("kubernetes-validate is not installed")
    done = subprocess.run(
        [program, "--strict", path], capture_output=True, text=True, check=False, timeout=600
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("path", MANIFESTS, ids=[path.name for path in MANIFESTS])
def test_kubernetes_own_kinds_are_valid_and_only_rays_kinds_are_unknown(path: Path) -> None:
    code, told = validated(path)
    assert code == 0, told
    assert len(re.findall(r"passed for resource (?:serviceaccount|configmap|cronjob|job)/", told)) >= 1, told
    assert set(re.findall(r"Couldn't find schema for kind (\w+)", told)) <= {
        "RayCluster",
        "RayJob",
        "RayCronJob",
    }, told


def test_a_key_that_kubernetes_does_not_know_is_found(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "kuberay" / "cronjob-nightly.yaml").read_text()
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace("concurrencyPolicy:", "concurencyPolicy:"))
    code, told = validated(wrong)
    assert code != 0
    assert "concurencyPolicy" in told
