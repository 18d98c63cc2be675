"""Commands that the docs quote for a figure are there, and what is there to measure with is quoted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cellcount_core.evaluation.suites.run import SUITES

ROOT = Path(__file__).parents[3]
PAGES = sorted(path for path in ROOT.rglob("*.md") if ".venv" not in path.parts)
_SCRIPT = re.compile(r"python (?:-m (benchmarks(?:\.\w+)+|benchmarks)|(benchmarks/[\w/]+\.py))")
_NOT_RUN = {"__init__", "record"}


def scripts_of(text: str) -> set[Path]:
    """The files that commands quoted in a text run."""
    found = set()
    for module, script in _SCRIPT.findall(text):
        path = ROOT / (script or module.replace(".", "/"))
        found.add(path if script else path / "__main__.py" if path.is_dir() else path.with_suffix(".py"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_script_that_a_page_quotes_is_there(page: Path) -> None:
    missing = [str(path) for path in scripts_of(page.read_text(encoding="utf-8")) if not path.is_file()]
    assert missing == []


def test_every_benchmark_and_every_suite_is_in_the_index_of_performance() -> None:
    text = (ROOT / "docs" / "explanation" / "performance.md").read_text(encoding="utf-8")
    text += (ROOT / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")
    text += (ROOT / "docs" / "how-to" / "train-a-model.md").read_text(encoding="utf-8")
    text += (ROOT / "docs" / "explanation" / "engines.md").read_text(encoding="utf-8")
    text += (ROOT / "docs" / "explanation" / "viability.md").read_text(encoding="utf-8")
    text += (ROOT / "docs" / "explanation" / "boxes.md").read_text(encoding="utf-8")
    text += (ROOT / "docs" / "explanation" / "patterns.md").read_text(encoding="utf-8")
    text += (ROOT / "docs" / "explanation" / "classes.md").read_text(encoding="utf-8")
    quoted = scripts_of(text)
    there = [path for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in _NOT_RUN]
    assert [path.name for path in there if "def main(" in path.read_text() and path not in quoted] == []
    assert {name for name in SUITES if f"--suite {name}" in text} == set(SUITES)


def test_no_figure_comes_from_what_was_not_kept() -> None:
    told = [
        f"{page.relative_to(ROOT)}: {line.strip()}"
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if re.search(r"script that was not kept", line)
    ]
    assert told == []
