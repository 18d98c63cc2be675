"""Every counting configuration in conf/ is valid as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellcount_core.cli.settings import build_job, read_yaml
from cellcount_core.cli.unattended import nightly_config
from cellcount_core.demo.plate import PLATE
from cellcount_core.models.package import shipped_folder
from tests.unit.deploy.schemas import ROOT

CONFIGS = [
    path
    for path in sorted((ROOT / "conf").glob("*.yaml"))
    if not path.name.startswith("train_") and path.name != "nightly.yaml"
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_configuration_is_valid_and_explains_itself(path: Path) -> None:
    job = build_job(read_yaml(path), path.name)

    assert job.input != job.output
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_a_configuration_names_a_shipped_model(path: Path) -> None:
    package = build_job(read_yaml(path), path.name).run.model.package
    if package == "nuclei" and not (shipped_folder() / package).is_dir():
        pytest.skip("the nuclei package is not in this checkout")

    assert (shipped_folder() / package / "package.json").is_file()


def test_there_is_a_configuration_for_local_disk_for_s3_for_viability_and_for_the_demo() -> None:
    assert [path.name for path in CONFIGS] == [
        "count.yaml",
        "count_s3.yaml",
        "count_viability.yaml",
        "demo.yaml",
    ]


def test_the_configuration_of_nights_is_valid_and_counts_as_the_one_of_a_plate_does() -> None:
    path = ROOT / "conf" / "nightly.yaml"
    nights = nightly_config(path, [])

    assert nights.output not in nights.roots
    assert nights.run.model == build_job(read_yaml(ROOT / "conf" / "count.yaml"), "count.yaml").run.model
    assert path.read_text().startswith("# ")


def test_the_demos_configuration_counts_the_plate_that_the_demo_renders() -> None:
    assert build_job(read_yaml(ROOT / "conf" / "demo.yaml"), "demo.yaml").input == f"demo/{PLATE}"
