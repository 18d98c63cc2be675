"""What the live line shows of texts that it did not write: all of them, as they are."""

from __future__ import annotations

import json

import pytest

from cellcount_core.cli.progress import JsonLines, LiveLine
from cellcount_core.domain.errors import Reason
from cellcount_core.domain.fields import FieldKey, PlannedField, Shard
from cellcount_core.runners.pool import Death, Mode, ShardTask

ODD = "x[/dim] of [red]plate [truncated]"


def test_brackets_in_a_path_or_message_are_shown_and_break_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = LiveLine()
    line.stage(ODD)
    line.warn(ODD)
    line.death(ShardTask(Shard(3, ()), Mode.COMMIT, 1.0), Death(Reason.INTERNAL, ODD))
    line.close()
    assert capsys.readouterr().err.count(ODD) == 3


def test_every_line_from_the_beginning_on_names_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    lines = JsonLines()
    lines.stage("listing")
    lines.begin(4, 0, "0123456789abcdef" * 4)
    lines.warn("odd")
    told = [json.loads(line).get("run") for line in capsys.readouterr().err.splitlines()]
    assert told == [None, "0123456789ab", "0123456789ab"]


def test_a_line_about_a_shard_names_its_plates(capsys: pytest.CaptureFixture[str]) -> None:
    fields = tuple(
        PlannedField(FieldKey(plate, "A01", site, 1), ()) for plate in ("P1", "P2") for site in (1, 2)
    )
    task, death = ShardTask(Shard(3, fields), Mode.COMMIT, 1.0), Death(Reason.WORKER_DIED, "gone")
    JsonLines().death(task, death)
    told = json.loads(capsys.readouterr().err)
    assert (told["shard"], told["plates"]) == (3, ["P1", "P2"])
    line = LiveLine()
    line.death(task, death)
    line.close()
    assert capsys.readouterr().err == "shard 3 (plate P1 and 1 more, 4 fields): gone\n"
