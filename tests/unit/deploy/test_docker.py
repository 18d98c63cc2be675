"""The Dockerfile is clean, copies only what is there, installs by hash and does not run as root."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from tests.unit.deploy.schemas import ROOT

DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(
        r"\\\n",
        " ",
        "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")),
    )
    return [
        (word, rest.strip())
        for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())
    ]


def copied() -> list[str]:
    sources = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    return [source for group in sources for source in group]


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (it is part of the dev group)")
    found = subprocess.run(
        [hadolint, str(DOCKERFILE)], capture_output=True, text=True, timeout=600, check=False
    )

    assert (found.returncode, found.stdout) == (0, "")


def test_what_is_copied_is_there_and_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert copied()
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert [source for source in copied() if source not in sent] == []


@pytest.mark.parametrize("group", ["core", "gpu"])
def test_the_requirements_are_installed_by_hash_and_compiled(group: str) -> None:
    commands = " ".join(rest for word, rest in instructions() if word == "RUN")

    assert f"--compile --require-hashes -r requirements/{group}.txt" in commands


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of each stage that has a name, in the file's order; the first is its FROM."""
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            found[rest.split()[-1]] = []
        found[list(found)[-1]].append((word, rest))
    return found


def test_a_build_without_a_target_gives_the_image_for_cpus() -> None:
    assert list(stages())[-2:] == ["gpu", "cpu"]


def test_both_images_run_as_a_user_by_number_and_start_the_command() -> None:
    for target in ("cpu", "gpu"):
        assert stages()[target][0] == ("FROM", f"base AS {target}")
        assert not any(word in ("USER", "ENTRYPOINT") for word, _ in stages()[target])
    assert ("USER", "10001:10001") in stages()["base"]
    assert ("ENTRYPOINT", '["cellcount"]') in stages()["base"]


def test_every_image_it_starts_from_is_one_patch_version() -> None:
    bases = {rest.split()[0] for word, rest in instructions() if word == "FROM"} - set(stages())

    assert bases
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base) for base in bases)


def test_the_image_for_gpus_has_all_that_the_one_for_cpus_has_at_the_same_versions() -> None:
    here = {**default_environment(), "python_version": "3.11", "python_full_version": "3.11.13"}
    here |= {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}

    def pinned(group: str) -> set[str]:
        lines = (ROOT / "requirements" / f"{group}.txt").read_text().splitlines()
        found = [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"[a-z0-9]", line)]
        return {f"{r.name}{r.specifier}" for r in found if r.marker is None or r.marker.evaluate(here)}

    assert pinned("core") - pinned("gpu") == set()
    assert any(line.startswith("tensorflow==") for line in pinned("gpu"))
