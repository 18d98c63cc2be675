"""cellcount: counts cells in microscope images at plate scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellcount_core.tables.open import open_output as open  # noqa: A004

__all__ = ["__version__", "open"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # `import cellcount_core` stays fast: pyarrow is imported when an output is opened.
    if name == "open":
        from cellcount_core.tables.open import open_output

        return open_output
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
