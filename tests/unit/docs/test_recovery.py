"""The page about recovery has a section for every exit code that there is, by its number and name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cellcount_core.domain.errors import ExitCode

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "recover-from-an-exit-code.md"
SECTIONS = dict(re.findall(r"(?ms)^## (\d+: \w+)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("code", ExitCode, ids=lambda code: code.name)
def test_every_exit_code_has_a_section_that_says_something(code: ExitCode) -> None:
    assert len(SECTIONS.get(f"{code.value}: {code.name.lower()}", "").split()) > 5


def test_there_is_no_section_for_a_code_that_there_is_not() -> None:
    assert len(SECTIONS) == len(ExitCode)
