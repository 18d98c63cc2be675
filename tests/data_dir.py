"""Where the public sample data lies, which some tests measure against: env CELLCOUNT_DATA, else beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def data_dir() -> Path | None:
    """The folder of the sample data, None where it is not on this machine."""
    named = os.environ.get("CELLCOUNT_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


def needs_data(sub: str) -> pytest.MarkDecorator:
    """Skips a test where `sub` is not among the sample data, and says so."""
    folder = data_dir()
    return pytest.mark.skipif(
        folder is None or not (folder / sub).exists(),
        reason=f"sample data {sub} is not here (set CELLCOUNT_DATA)",
    )
