"""How the library behind an engine says that its device has no memory left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NoMemory:
    """An exception of `kinds` with one of `words` in its message; where there are no words, any exception of `kinds`."""

    kinds: tuple[type[Exception], ...]
    words: tuple[str, ...] = ()

    def said_by(self, error: Exception) -> bool:
        """Whether this exception, one of `kinds`, says so."""
        if isinstance(error, MemoryError) or not self.words:
            return True
        text = str(error)
        return any(word in text for word in self.words)


def no_room(shape: Sequence[int]) -> MemoryError:
    """What an engine raises where the device has no memory for a single one of tiles (B, h, w, C)."""
    height, width = shape[1:3]
    return MemoryError(f"the device has no memory for a tile of {height} x {width} px")
