"""The time a nightly goes by, which a test may set."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Dates name nights and measure waiting between nights; `running` measures within one, and no change of the date moves it."""

    def now(self) -> datetime:
        """The date and time, in UTC."""
        ...

    def running(self) -> float:
        """Seconds on a clock that only goes forward."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own."""

    def now(self) -> datetime:
        """See Clock."""
        return datetime.now(UTC)

    def running(self) -> float:
        """See Clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See Clock."""
        time.sleep(seconds)
