"""What every suite shares: the S3 server, where temporary folders lie, and which tests run by themselves, beside others, or in
`make fast`."""

from __future__ import annotations

import gc
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.s3_server import s3_server

if TYPE_CHECKING:
    from cellcount_core.runners.ray_cluster import Resources

__all__ = ["s3_server"]

_TESTS = Path(__file__).parent
_ALONE = [
    _TESTS / name
    for name in ("contract/readers", "contract/runners", "contract/stores", "contract/tasks", "e2e", "faults")
]
_NEVER_ALONE = [_TESTS / name for name in ("acceptance", "contract/layouts", "unit")]
_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30
_ALL_SLOW = re.compile(r"^pytestmark = pytest\.mark\.slow$", re.MULTILINE)


def pytest_configure() -> None:
    """Temporary folders lie in memory where there are 4 GiB of it: on a disk, waiting for what is written takes longer than tests."""
    if os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Modules of which no test would run are not even imported: Keras alone takes ten seconds."""
    chosen = config.getoption("markexpr")
    if chosen == "alone":
        return True if collection_path in _NEVER_ALONE else None
    if chosen == "not slow" and collection_path.suffix == ".py":
        return True if _ALL_SLOW.search(collection_path.read_text(encoding="utf-8")) else None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of whole runs are `alone` unless they are marked `beside`; of those, tests that start Ray are a row of their own."""
    for item in items:
        if any(folder in item.path.parents for folder in _ALONE) and not item.get_closest_marker("beside"):
            item.add_marker("alone")
        if item.get_closest_marker("alone"):
            item.add_marker(pytest.mark.xdist_group("ray" if item.get_closest_marker("ray") else "alone"))


def pytest_collection_finish() -> None:
    """The garbage collector looks less often through all that was imported: that took a tenth of the time of tests."""
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Resources]:
    """Ray, started once for all tests of a module: runs find themselves connected to it and leave it as it is."""
    from cellcount_core.config import ExecutionConfig
    from cellcount_core.runners.ray_cluster import connected

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with connected(ExecutionConfig()) as resources:
            yield resources
