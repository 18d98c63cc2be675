"""The RayJob is one that KubeRay knows in every key, that counts what its own config says, and that holds no secret."""

from __future__ import annotations

import copy
import re

import yaml

from cellcount_core.cli.settings import build_job
from tests.unit.deploy.schemas import ROOT, fulfils, kuberay_schema, unknown_keys

MANIFEST = ROOT / "deploy" / "kuberay" / "rayjob-count.yaml"


def documents() -> dict[str, dict]:
    return {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text())}


def pods() -> dict[str, dict]:
    cluster = documents()["RayJob"]["spec"]["rayClusterSpec"]
    groups = {
        "head": cluster["headGroupSpec"],
        **{group["groupName"]: group for group in cluster["workerGroupSpecs"]},
    }
    return {name: group["template"]["spec"] for name, group in groups.items()}


def test_the_rayjob_fulfils_kuberays_schema() -> None:
    fulfils(documents()["RayJob"], kuberay_schema("RayJob"))


def test_kuberay_knows_every_key_of_the_rayjob() -> None:
    schema = kuberay_schema("RayJob")
    job = {key: value for key, value in documents()["RayJob"].items() if key != "metadata"}

    assert list(unknown_keys(job, schema)) == []


def test_a_misspelt_key_would_be_found() -> None:
    job = copy.deepcopy(documents()["RayJob"])
    job["spec"]["shutdownAfterJobFinish"] = True
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["envFroms"] = []
    found = list(unknown_keys({"spec": job["spec"]}, kuberay_schema("RayJob")))

    assert found == [
        "spec.rayClusterSpec.headGroupSpec.template.spec.containers[0].envFroms",
        "spec.shutdownAfterJobFinish",
    ]


def test_the_config_that_is_mounted_is_the_one_that_the_entrypoint_counts() -> None:
    (container,) = pods()["head"]["containers"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "conf"]
    (volume,) = [volume for volume in pods()["head"]["volumes"] if volume["name"] == "conf"]
    config = documents()["ConfigMap"]
    path = documents()["RayJob"]["spec"]["entrypoint"].removeprefix("python -m jobs.count ")

    assert volume["configMap"]["name"] == config["metadata"]["name"]
    assert path.removeprefix(f"{mount['mountPath']}/") in config["data"]


def test_the_mounted_config_is_valid_and_asks_for_no_more_actors_than_the_workers_have_cores() -> None:
    job = build_job(yaml.safe_load(documents()["ConfigMap"]["data"]["count.yaml"]), "count.yaml")
    (group,) = documents()["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    cores = int(pods()["cpu"]["containers"][0]["resources"]["limits"]["cpu"]) * group["replicas"]
    actors, threads = job.execution.actors, job.execution.threads

    assert isinstance(actors, int)
    assert isinstance(threads, int)
    assert actors * threads <= cores


def test_the_cluster_runs_the_ray_that_the_requirements_pin() -> None:
    pinned = re.search(
        r"^ray(?:\[.*\])?==([0-9.]+)", (ROOT / "requirements" / "core.txt").read_text(), re.MULTILINE
    )

    assert pinned is not None
    assert documents()["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


def test_credentials_come_from_a_secret_or_a_role_and_stand_in_no_manifest() -> None:
    for pod in pods().values():
        for container in pod["containers"]:
            assert "env" not in container
            assert container["envFrom"] == [{"secretRef": {"name": "cellcount-s3", "optional": True}}]
        assert pod["serviceAccountName"] == documents()["ServiceAccount"]["metadata"]["name"]
    assert "Secret" not in documents()


def test_the_cluster_goes_away_when_the_job_is_done_and_a_failed_try_is_repeated() -> None:
    spec = documents()["RayJob"]["spec"]

    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] >= 1


def test_no_container_may_run_as_root() -> None:
    for pod in pods().values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert all(c["securityContext"]["allowPrivilegeEscalation"] is False for c in pod["containers"])
