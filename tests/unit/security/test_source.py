"""Nothing in the library runs code out of data: the source itself is read for the calls that could."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.unit.deploy.schemas import ROOT

SOURCES = sorted([*(ROOT / "cellcount_core").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])
_MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "shelve",
    "joblib",
    "marshal",
    "xml.sax",
    "xml.dom",
    "lxml",
    "jsonpickle",
}
_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
}
_ELSEWHERE = {
    "keras.models.load_model",
    "keras.saving.load_model",
    "tf.keras.models.load_model",
    "load_model",
}
_DOUBTFUL = {"allow_pickle", "safe_mode", "shell"}

# Why it is let through: marshal reads files that the same process wrote and nobody else names.
_LET_THROUGH = {
    ("cellcount_core/plan/rows.py", "marshal"),
}


def dangers(tree: ast.AST) -> Iterator[str]:
    """What in a module could run code out of data, or expand it without bound."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        yield from sorted(
            {bad for name in names for bad in (*_MODULES, "xml.etree") if f"{name}.".startswith(f"{bad}.")}
        )
        if isinstance(node, ast.Call):
            yield from _in_call(node)


def _in_call(call: ast.Call) -> Iterator[str]:
    called = _dotted(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg in _DOUBTFUL}
    if called in _CALLS | _ELSEWHERE:
        yield called
    if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
        yield f"{called} without allow_pickle=False"
    if (
        given.get("allow_pickle") == "True"
        or given.get("safe_mode") == "False"
        or given.get("shell") == "True"
    ):
        yield ast.unparse(call)
    if called.endswith("enable_unsafe_deserialization"):
        yield called


def _dotted(node: ast.expr) -> str:
    """`a.b.c` as it is written; "" for what is not a name of that kind."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_no_module_runs_code_out_of_data() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), danger)
        for path in SOURCES
        for danger in dangers(ast.parse(path.read_text(encoding="utf-8")))
    }

    assert found - _LET_THROUGH == set()


def test_every_exception_is_still_needed() -> None:
    needed = {
        (name, danger)
        for name in {name for name, _ in _LET_THROUGH}
        for danger in dangers(ast.parse((ROOT / name).read_text(encoding="utf-8")))
    }

    assert needed == _LET_THROUGH


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import xml.dom.minidom",
        "from xml.etree import ElementTree",
        "eval(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "keras.models.load_model(path)",
        "read(path, safe_mode=False)",
        "subprocess.run(line, shell=True)",
        "keras.config.enable_unsafe_deserialization()",
    ],
)
def test_each_danger_would_be_found(line: str) -> None:
    assert list(dangers(ast.parse(line)))
