"""The house: one name for one thing, modules that say what they hold, no circle of imports, and a drawing that is true."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = "cellcount_core"
ARCHITECTURE = ROOT / "docs/explanation/architecture.md"
LINE = re.compile(r"^(\w+) \(([\w.]+)\) +→ ([\w.]+) \(([\w.]+)\) +→ (\w+) \(([\w.]+)\)(?: |$)")


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package, parsed, by its name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text()
        )
        for path in sorted((ROOT / PACKAGE).rglob("*.py"))
    }


def drawing() -> list[str]:
    """The lines of the drawing of the forms that data takes."""
    section = ARCHITECTURE.read_text().split("## From a listing to a row")[1]
    return section.split("```text\n")[1].split("```")[0].splitlines()


def parsed(line: str) -> tuple[str, ...]:
    """Type, its module, function, its module, type, its module."""
    found = LINE.match(line)
    assert found, f"not `Type (module) → function (module) → Type (module)`: {line}"
    return found.groups()


def classes(tree: ast.Module) -> set[str]:
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def function(module: str, name: str) -> ast.FunctionDef | None:
    """A function, or a method as `Class.method`."""
    owner, _, own = name.rpartition(".")
    body = modules()[module].body
    if owner:
        body = next((node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner), [])
    return next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == own), None)


def mentioned(found: ast.FunctionDef) -> set[str]:
    """Names in the annotations of a function."""
    arguments = [*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs]
    annotations = [argument.annotation for argument in arguments] + [found.returns]
    return {
        node.id
        for each in annotations
        if each is not None
        for node in ast.walk(each)
        if isinstance(node, ast.Name)
    }


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports when it is imported itself."""
    return {target for node in at_import(modules()[module]) for target in targets(node)} - {module}


def at_import(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when a module is imported: not those in functions, nor those for type checkers alone."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules())
    elif node.module in modules():
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in modules() else node.module


def test_no_class_name_has_two_definitions() -> None:
    times = Counter(name for tree in modules().values() for name in classes(tree))
    assert {name for name, number in times.items() if number > 1} == set()


def test_every_module_that_holds_something_says_what() -> None:
    assert [module for module, tree in modules().items() if tree.body and not ast.get_docstring(tree)] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({module: imported(module) for module in modules()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_search_for_circles_sees_the_imports() -> None:
    assert f"{PACKAGE}.output.schema" in imported(f"{PACKAGE}.output.rows")
    assert f"{PACKAGE}.runners.job" not in imported(f"{PACKAGE}.cli.counting")


@pytest.mark.parametrize("line", drawing())
def test_each_line_of_the_drawing_is_in_the_code(line: str) -> None:
    before, its_module, name, module, after, other_module = parsed(line)
    assert before in classes(modules()[f"{PACKAGE}.{its_module}"])
    assert after in classes(modules()[f"{PACKAGE}.{other_module}"])
    found = function(f"{PACKAGE}.{module}", name)
    assert found is not None, f"{name} is no function of {module}"
    assert {before, after} <= mentioned(found) | {name.rpartition(".")[0]}


def test_the_drawing_goes_from_a_listing_to_the_summary() -> None:
    steps = [parsed(line) for line in drawing()]
    assert (steps[0][0], steps[-1][4]) == ("Listed", "Summary")
