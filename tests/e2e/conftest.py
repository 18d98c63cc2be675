"""Fixtures that several suites of whole runs share."""

from tests.viability import judged, stained

__all__ = ["judged", "stained"]
