"""What every suite shares: the S3 server, and how `-m "not slow"` leaves whole modules out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.s3_server import s3_server

__all__ = ["s3_server"]

_ALL_SLOW = re.compile(r"^pytestmark = pytest\.mark\.slow$", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m "not slow"`, a module whose tests are all slow is not even imported: Keras alone takes ten seconds."""
    if config.getoption("markexpr") != "not slow" or collection_path.suffix != ".py":
        return None
    return True if _ALL_SLOW.search(collection_path.read_text(encoding="utf-8")) else None
