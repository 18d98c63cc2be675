"""The Dockerfile is clean, copies only what is there, installs by hash and does not run as root."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
        [hadolint, str(DOCKERFILE)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (found.returncode, found.stdout) == (0, "")


def test_what_is_copied_is_there_and_is_sent_to_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert copied()
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert [source for source in copied() if source not in sent] == []


def test_the_requirements_are_installed_by_hash_and_compiled() -> None:
    commands = " ".join(rest for word, rest in instructions() if word == "RUN")

    assert "--compile --require-hashes -r requirements/core.txt" in commands


def test_the_image_runs_as_a_user_by_number_and_starts_the_command() -> None:
    last_stage = instructions()[
        max(index for index, (word, _) in enumerate(instructions()) if word == "FROM") :
    ]

    assert ("USER", "10001:10001") in last_stage
    assert ("ENTRYPOINT", '["cellcount"]') in last_stage
