"""How often a statement that holds for any input is tried."""

from __future__ import annotations

import os


def often(number: int) -> int:
    """`number` times; a fifth of that where `make fast` asks for a quick answer (CELLCOUNT_TESTS=fast)."""
    return max(1, number // 5) if os.environ.get("CELLCOUNT_TESTS") == "fast" else number
