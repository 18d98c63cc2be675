"""The documentation is true where a machine can tell: generated pages, links, commands, options and files."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from cellcount_core.cli.main import app

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
_SPEC = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
assert _SPEC is not None
assert _SPEC.loader is not None
generate = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(generate)

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"(?:^|[`\s/])cellcount ((?!core)[a-z]+(?:-[a-z]+)*)([^`\n#]*)")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Command and its arguments wherever code (not prose) calls `cellcount`."""
    joined = text.replace("\\\n", " ")
    code = [
        *re.findall(r"(?m)^    (.*)$", joined),
        *re.findall(r"`([^`\n]+)`", joined),
        *re.findall(r"(?s)```\w*\n(.*?)```", joined),
    ]
    for piece in code:
        yield from _COMMAND.findall(piece)


@pytest.mark.parametrize("path", sorted(generate.PAGES))
def test_a_generated_page_is_up_to_date(path: str) -> None:
    assert (DOCS / path).read_text(encoding="utf-8") == generate.PAGES[path](), "run: python docs/generate.py"


def test_every_relative_link_leads_to_a_file() -> None:
    targets = [
        (page, target.partition("#")[0])
        for page in PAGES
        for target in _LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target
    ]

    assert [(name(page), to) for page, to in targets if to and not (page.parent / to).exists()] == []


def test_every_command_and_option_in_the_text_exists() -> None:
    group = typer.main.get_command(app)
    told = [(page, *each) for page in PAGES for each in commands(page.read_text(encoding="utf-8"))]
    for page, command, arguments in told:
        assert command in group.commands, f"{name(page)}: cellcount {command}"
        meant = group.commands[command]
        if inner := getattr(meant, "commands", None):
            second = arguments.split()[0]
            assert second in inner, f"{name(page)}: cellcount {command} {second}"
            meant = inner[second]
        known = {option for parameter in meant.params for option in (*parameter.opts, "--help")}
        used = {word.partition("=")[0] for word in shlex.split(arguments) if word.startswith("--")}
        assert used <= known, f"{name(page)}: cellcount {command} {sorted(used - known)}"


def test_the_check_of_commands_sees_those_of_the_first_tutorial() -> None:
    seen = {
        command for command, _ in commands((DOCS / "tutorial" / "first-plate.md").read_text(encoding="utf-8"))
    }

    assert {"verify", "count", "plan"} <= seen


def test_every_make_target_in_the_text_exists() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    for page in PAGES:
        used = set(re.findall(r"(?:`|^    )make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))

        assert used <= targets, name(page)


def test_every_file_of_the_library_that_is_named_exists() -> None:
    for page in PAGES:
        named = re.findall(
            r"`((?:cellcount_core|tests|conf|deploy|docs|benchmarks|requirements|jobs)/[\w./-]+)`",
            page.read_text(encoding="utf-8"),
        )

        assert [path for path in named if not (ROOT / path).exists()] == [], name(page)


def test_every_page_below_docs_can_be_reached_from_the_index() -> None:
    links = _LINK.findall((DOCS / "README.md").read_text(encoding="utf-8"))
    reached = {(DOCS / target.partition("#")[0]).resolve() for target in links}
    pages = [page for page in DOCS.rglob("*.md") if page != DOCS / "README.md"]

    assert [name(page) for page in pages if page.resolve() not in reached] == []


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [
        *project["project"]["dependencies"],
        *(item for extra in project["project"]["optional-dependencies"].values() for item in extra),
    ]
    names = {re.split(r"[><=!~]", item)[0].strip() for item in [*asked, *project["dependency-groups"]["dev"]]}
    text = (DOCS / "explanation" / "dependencies.md").read_text(encoding="utf-8")
    unnamed = {
        item
        for item in names
        if item not in text and not item.startswith("types-") and not item.endswith("-stubs")
    }

    assert unnamed == set()


def test_nothing_in_the_text_names_a_folder_of_one_machine() -> None:
    found = [
        name(page)
        for page in PAGES
        if re.search(r"(?<![\w.])/(?:work|root|home/(?!cellcount))\b", page.read_text(encoding="utf-8"))
    ]

    assert found == []


@pytest.mark.slow
def test_the_generator_prints_what_is_committed_when_run_as_a_script(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    (tmp_path / "docs" / "reference" / "reasons.md").unlink()
    subprocess.run(
        [sys.executable, str(tmp_path / "docs" / "generate.py")], check=True, timeout=600, cwd=ROOT
    )

    assert (tmp_path / "docs" / "reference" / "reasons.md").read_bytes() == (
        DOCS / "reference" / "reasons.md"
    ).read_bytes()
