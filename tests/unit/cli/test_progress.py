"""What the live line shows of texts that it did not write: all of them, as they are."""

from __future__ import annotations

import pytest

from cellcount_core.cli.progress import LiveLine
from cellcount_core.domain.errors import Reason
from cellcount_core.domain.fields import Shard
from cellcount_core.runners.pool import Death, Mode, Task

ODD = "x[/dim] of [red]plate [truncated]"


def test_brackets_in_a_path_or_message_are_shown_and_break_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = LiveLine()
    line.stage(ODD)
    line.warn(ODD)
    line.death(Task(Shard(3, ()), Mode.COMMIT, 1.0), Death(Reason.INTERNAL, ODD))
    line.close()
    assert capsys.readouterr().err.count(ODD) == 3
