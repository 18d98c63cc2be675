"""Nothing about a run leaves the machine, and nothing is kept of it in the user's home."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile

from tests.plates import discs
from tests.unit.deploy.schemas import ROOT

_REPORTER = "onnxruntime"
_SILENCER = "keep_onnxruntime_silent"
SOURCES = sorted(
    path
    for name in ("cellcount_core", "jobs", "benchmarks", "models")
    for path in (ROOT / name).rglob("*.py")
)

_COUNT = """
import sys
from cellcount_core.cli.main import main
sys.exit(main(["count", *sys.argv[1:4], "--model", "nuclei", "--diameter", "13", "--progress", "quiet", "--actors", "1"]))
"""


def unsilenced(tree: ast.Module) -> Iterator[int]:
    """Lines that import ONNX Runtime where nothing before them in the same function keeps it silent."""
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.FunctionDef | ast.Module):
            continue
        silenced = False
        for statement in scope.body:
            calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
            silenced = silenced or any(
                isinstance(call.func, ast.Name) and call.func.id == _SILENCER for call in calls
            )
            if isinstance(statement, ast.Import):
                names = [alias.name for alias in statement.names]
            else:
                names = [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
            if not silenced and any(name.split(".")[0] == _REPORTER for name in names):
                yield statement.lineno


def test_onnxruntime_is_kept_silent_before_every_import_of_it() -> None:
    told = "def f():\n    keep_onnxruntime_silent()\n    import onnxruntime as ort\n"
    assert list(unsilenced(ast.parse(told))) == []
    assert list(unsilenced(ast.parse("from onnxruntime.quantization import x\n"))) == [1]
    assert list(
        unsilenced(ast.parse("def f():\n    import onnxruntime\n    keep_onnxruntime_silent()\n"))
    ) == [2]
    texts = {path: path.read_text(encoding="utf-8") for path in SOURCES}
    found = {path: list(unsilenced(ast.parse(text))) for path, text in texts.items() if _REPORTER in text}
    assert found
    assert {str(path): lines for path, lines in found.items() if lines} == {}


def counted_at_home(folder: Path, runner: str, *, under: tuple[str, ...] = ()) -> list[str]:
    """What a count of one image by `nuclei` leaves in a home that was empty; `under` is what the command is run by."""
    home, source = folder / "home", folder / "in"
    home.mkdir()
    source.mkdir()
    tifffile.imwrite(source / "a.tif", discs(4, 96, 0))
    command = [*under, sys.executable, "-c", _COUNT, str(source), str(folder / "out"), f"--runner={runner}"]
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_", "RAY_"))
    }
    done = subprocess.run(
        command, env={**kept, "HOME": str(home)}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_count_leaves_nothing_in_the_home_and_asks_nobody(tmp_path: Path) -> None:
    strace, trace = shutil.which("strace"), tmp_path / "trace"
    under = () if strace is None else (strace, "-f", "-qq", "-e", "trace=network", "-o", str(trace))
    # Unless it is kept silent, ONNX Runtime asks for its server ten seconds after its import: here its files would tell of that.
    assert counted_at_home(tmp_path, "serial", under=under) == []
    if strace is None:
        pytest.skip("no strace here: whether the process opened a socket is not seen; its home stayed empty")
    assert [line for line in trace.read_text().splitlines() if "AF_INET" in line] == []


@pytest.mark.slow
def test_workers_on_ray_leave_nothing_in_the_home_but_rays_own_token(tmp_path: Path) -> None:
    assert counted_at_home(tmp_path, "ray") == [".ray/auth_token"]
