"""What every suite shares: the S3 server, where temporary folders lie, and how `-m "not slow"` leaves whole modules out."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.s3_server import s3_server

__all__ = ["s3_server"]

_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30
_ALL_SLOW = re.compile(r"^pytestmark = pytest\.mark\.slow$", re.MULTILINE)


def pytest_configure() -> None:
    """Temporary folders lie in memory where there are 4 GiB of it: on a disk, waiting for what is written takes longer than tests."""
    if os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m "not slow"`, a module whose tests are all slow is not even imported: Keras alone takes ten seconds."""
    if config.getoption("markexpr") != "not slow" or collection_path.suffix != ".py":
        return None
    return True if _ALL_SLOW.search(collection_path.read_text(encoding="utf-8")) else None
