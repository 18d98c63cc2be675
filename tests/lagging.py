"""A store on disk whose listings lag behind its puts, as those of some S3 services do; single files it finds at once."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cellcount_core.stores.base import Listed
from cellcount_core.stores.local import LocalStore


def everything(_: str) -> bool:
    """Hides all."""
    return True


@dataclass(frozen=True, slots=True)
class LaggingStore(LocalStore):
    """`hidden` says which keys no listing shows."""

    hidden: Callable[[str], bool] = everything

    def list(self, prefix: str = "") -> Iterator[builtins.list[Listed]]:
        for batch in LocalStore.list(self, prefix):
            yield [one for one in batch if not self.hidden(one.key)]
