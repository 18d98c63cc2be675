"""The units start the nightly command once a night, catch up on a night missed, and try again only what may succeed."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cellcount_core.cli.main import app
from cellcount_core.domain.errors import ExitCode
from tests.unit.deploy.schemas import ROOT

UNITS = ROOT / "deploy" / "systemd"
SERVICE, TIMER = UNITS / "cellcount-nightly.service", UNITS / "cellcount-nightly.timer"


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (Debian: package systemd)")
    # It looks whether the program is there; the one of this environment stands for that of /opt/cellcount.
    program = Path(sys.executable).parent / "cellcount"
    for path in (SERVICE, TIMER):
        (tmp_path / path.name).write_text(
            path.read_text().replace("/opt/cellcount/bin/cellcount", str(program))
        )
    found = subprocess.run(
        [analyze, "verify", "--man=no", *(str(tmp_path / path.name) for path in (SERVICE, TIMER))],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert (found.returncode, [line for line in found.stderr.splitlines() if "cellcount" in line]) == (0, [])


def test_the_service_runs_a_command_that_there_is_with_a_configuration_of_the_machines_own() -> None:
    program, command, config = unit(SERVICE)["Service"]["ExecStart"].split()

    assert program == "/opt/cellcount/bin/cellcount"
    assert command in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert config == "/etc/cellcount/nightly.yaml"


def test_the_timer_starts_the_service_and_catches_up_on_a_night_that_was_missed() -> None:
    timer = unit(TIMER)

    assert TIMER.stem == SERVICE.stem
    assert "Unit" not in timer["Timer"]
    assert timer["Timer"]["Persistent"] == "true"
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert not unit(SERVICE).has_section("Install")


def test_only_an_unreachable_store_and_an_interruption_are_tried_again() -> None:
    service = unit(SERVICE)["Service"]
    final = {int(code) for code in service["RestartPreventExitStatus"].split()}

    assert service["Restart"] == "on-failure"
    assert {code for code in ExitCode if code not in final} == {
        ExitCode.OK,
        ExitCode.STORAGE,
        ExitCode.INTERRUPTED,
    }


def test_the_driver_is_asked_first_and_has_time_to_finish_what_is_in_hand() -> None:
    service = unit(SERVICE)["Service"]

    assert service["KillMode"] == "mixed"
    assert "TimeoutStopSec" in service


def test_the_service_is_not_root_and_its_secrets_stand_in_a_file_of_their_own() -> None:
    service = unit(SERVICE)["Service"]

    assert service["User"] not in ("", "root")
    assert service["NoNewPrivileges"] == "yes"
    assert service["EnvironmentFile"] == "-/etc/cellcount/environment"
    assert not any(word in SERVICE.read_text() for word in ("AWS_SECRET", "AWS_ACCESS", "TOKEN="))
