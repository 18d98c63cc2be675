"""What every suite shares: the S3 server, where temporary folders lie, and which tests run by themselves, beside others, or in
`make fast`."""

from __future__ import annotations

import gc
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.s3_server import s3_server

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
    """Tests of whole runs are `alone` unless they are marked `beside`."""
    for item in items:
        if any(folder in item.path.parents for folder in _ALONE) and not item.get_closest_marker("beside"):
            item.add_marker("alone")


def pytest_collection_finish() -> None:
    """The garbage collector looks less often through all that was imported: that took a tenth of the time of tests."""
    gc.set_threshold(10_000, 10, 10)
