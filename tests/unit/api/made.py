"""What tests of the public API share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cellcount_core as cc


@contextmanager
def isolated() -> Iterator[None]:
    """Doubts are not told as Python warnings, which pytest would show."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cc.DoubtfulCount)
        yield
