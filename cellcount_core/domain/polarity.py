"""Which way objects differ from their background."""

from __future__ import annotations

from typing import Literal

Polarity = Literal["bright", "dark", "auto"]
"""Objects are brighter than the background, or darker; "auto": whichever way the image departs further from it."""
