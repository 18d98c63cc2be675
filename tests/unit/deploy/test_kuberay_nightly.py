"""The cluster and the nightly jobs are known to KubeRay in every key, grow from nothing, and never ask for what cannot come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cellcount_core.nightly.config import NightlyConfig
from tests.unit.deploy.schemas import ROOT, fulfils, kuberay_schema, unknown_keys

FOLDER = ROOT / "deploy" / "kuberay"
CLUSTER, RAY_CRON, CRON = "raycluster.yaml", "raycronjob-nightly.yaml", "cronjob-nightly.yaml"
RAY_KINDS = [(CLUSTER, "RayCluster"), (RAY_CRON, "RayCronJob"), ("rayjob-count.yaml", "RayJob")]

# Of batch/v1 as served by Kubernetes 1.27 and newer; the pod below them is the one in KubeRay's schemas.
_CRON_SPEC = {
    "schedule", "timeZone", "startingDeadlineSeconds", "concurrencyPolicy", "suspend", "jobTemplate",
    "successfulJobsHistoryLimit", "failedJobsHistoryLimit",
}  # fmt: skip
_JOB_SPEC = {"template", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"}


def documents(name: str) -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all((FOLDER / name).read_text())}


def cluster(name: str) -> dict[str, Any]:
    found = documents(name)
    if "RayCronJob" in found:
        return found["RayCronJob"]["spec"]["jobTemplate"]["rayClusterSpec"]
    return found["RayCluster"]["spec"]


def pods(name: str) -> Iterator[dict[str, Any]]:
    spec = cluster(name)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        yield group["template"]["spec"]


def nightly(name: str) -> NightlyConfig:
    return NightlyConfig.model_validate(yaml.safe_load(documents(name)["ConfigMap"]["data"]["nightly.yaml"]))


@pytest.mark.parametrize(("name", "kind"), RAY_KINDS)
def test_a_manifest_fulfils_kuberays_schema_and_has_no_key_that_it_would_drop(name: str, kind: str) -> None:
    schema, document = kuberay_schema(kind), documents(name)[kind]

    fulfils(document, schema)
    assert (
        list(unknown_keys({key: value for key, value in document.items() if key != "metadata"}, schema)) == []
    )


def test_kuberays_cron_job_knows_no_policy_for_overlaps_so_that_none_may_be_relied_on() -> None:
    known = kuberay_schema("RayCronJob")["properties"]["spec"]["properties"]  # type: ignore[index]
    spec = documents(RAY_CRON)["RayCronJob"]["spec"]

    assert "concurrencyPolicy" not in known
    assert "concurrencyPolicy" not in spec
    assert spec["jobTemplate"]["activeDeadlineSeconds"] < 24 * 3600


def test_the_plain_cron_job_has_only_keys_that_kubernetes_knows() -> None:
    spec = documents(CRON)["CronJob"]["spec"]
    job = spec["jobTemplate"]["spec"]
    template = kuberay_schema("RayJob")["properties"]["spec"]["properties"]["submitterPodTemplate"]  # type: ignore[index]

    assert set(spec) <= _CRON_SPEC
    assert set(job) <= _JOB_SPEC
    assert list(unknown_keys(job["template"], template)) == []
    fulfils(job["template"], template)


def test_the_plain_cron_job_neither_overlaps_nor_piles_up_nights() -> None:
    spec = documents(CRON)["CronJob"]["spec"]

    assert spec["concurrencyPolicy"] == "Forbid"
    assert 0 < spec["startingDeadlineSeconds"] < 24 * 3600
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 24 * 3600


def test_the_plain_cron_job_submits_to_the_standing_cluster_with_its_token() -> None:
    (container,) = documents(CRON)["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    name = documents(CLUSTER)["RayCluster"]["metadata"]["name"]
    token = {item["name"]: item for item in container["env"]}["RAY_AUTH_TOKEN"]

    assert f"http://{name}-head-svc:8265" in container["command"]
    assert token["valueFrom"]["secretKeyRef"] == {"name": name, "key": "auth_token"}


@pytest.mark.parametrize("name", [CLUSTER, RAY_CRON])
def test_the_night_that_is_counted_is_the_one_that_is_mounted(name: str) -> None:
    head = next(pods(name))
    (mount,) = [mount for mount in head["containers"][0]["volumeMounts"] if mount["name"] == "conf"]
    (volume,) = [volume for volume in head["volumes"] if volume["name"] == "conf"]

    assert mount["mountPath"] == "/conf"
    assert volume["configMap"]["name"] == documents(name)["ConfigMap"]["metadata"]["name"]
    assert documents(RAY_CRON)["RayCronJob"]["spec"]["jobTemplate"]["entrypoint"].endswith(
        "/conf/nightly.yaml"
    )


def test_nights_are_named_the_same_wherever_they_run() -> None:
    entrypoint = documents(RAY_CRON)["RayCronJob"]["spec"]["jobTemplate"]["entrypoint"]
    (container,) = documents(CRON)["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]

    assert container["args"] == entrypoint.split()
    assert (ROOT / "jobs" / "nightly.py").is_file()


@pytest.mark.parametrize("name", [CLUSTER, RAY_CRON])
def test_workers_grow_from_none_to_as_many_as_the_night_has_actors_for(name: str) -> None:
    spec, execution = cluster(name), nightly(name).execution
    gpus = bool(execution.gpus_per_actor != "auto" and execution.gpus_per_actor)
    (group,) = [group for group in spec["workerGroupSpecs"] if (group["groupName"] == "gpu") == gpus]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    per_node = int(limits["nvidia.com/gpu"] if gpus else limits["cpu"])

    assert spec["enableInTreeAutoscaling"] is True
    assert {g["minReplicas"] for g in spec["workerGroupSpecs"]} == {0}
    assert execution.actors == group["maxReplicas"] * per_node


@pytest.mark.parametrize("name", [CLUSTER, RAY_CRON])
def test_gpu_workers_are_let_onto_gpu_and_spot_machines(name: str) -> None:
    (group,) = [group for group in cluster(name)["workerGroupSpecs"] if group["groupName"] == "gpu"]
    tolerated = {toleration["key"] for toleration in group["template"]["spec"]["tolerations"]}

    assert {
        "nvidia.com/gpu",
        "cloud.google.com/gke-spot",
        "kubernetes.azure.com/scalesetpriority",
    } <= tolerated
    assert group["template"]["spec"]["containers"][0]["image"].endswith("-gpu")


@pytest.mark.parametrize("name", [CLUSTER, RAY_CRON])
def test_the_cluster_asks_for_a_token_and_runs_no_container_as_root(name: str) -> None:
    spec = cluster(name)

    assert spec["authOptions"] == {"mode": "token"}
    for pod in pods(name):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["serviceAccountName"] == documents(name)["ServiceAccount"]["metadata"]["name"]
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["envFrom"] == [{"secretRef": {"name": "cellcount-s3", "optional": True}}]
            assert "env" not in container


@pytest.mark.parametrize("name", [CLUSTER, RAY_CRON])
def test_only_the_head_whose_autoscaler_asks_for_pods_holds_an_account_token(name: str) -> None:
    head, *workers = pods(name)

    assert documents(name)["ServiceAccount"]["automountServiceAccountToken"] is False
    assert head["automountServiceAccountToken"] is True
    assert all("automountServiceAccountToken" not in pod for pod in workers)


@pytest.mark.parametrize("name", [CLUSTER, RAY_CRON, CRON])
def test_every_part_runs_the_version_that_the_rayjob_runs(name: str) -> None:
    text = (FOLDER / name).read_text()
    job = documents("rayjob-count.yaml")["RayJob"]["spec"]["rayClusterSpec"]
    image = job["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]

    assert image in text
    if name != CRON:
        assert cluster(name)["rayVersion"] == job["rayVersion"]


def test_no_manifest_holds_a_secret() -> None:
    for path in FOLDER.glob("*.yaml"):
        kinds = {document["kind"] for document in yaml.safe_load_all(path.read_text())}
        assert "Secret" not in kinds
        assert "AKIA" not in json.dumps(list(yaml.safe_load_all(path.read_text())))
