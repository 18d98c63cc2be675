"""Which layout reads an input: found out from the first names of its listing (`--layout auto`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from cellcount_core.config import RunConfig
from cellcount_core.layouts.auto import AutoSettings, proposed
from cellcount_core.layouts.base import Ignored, image_like
from cellcount_core.plan.discover import key_filter
from cellcount_core.plan.findings import NOT_INCLUDED
from cellcount_core.stores.base import Listed, Store

SAMPLE = 10_000
"""How many files of a listing are looked at to find out the layout."""

_MOST_LOOKED_AT = 200_000


@dataclass(frozen=True, slots=True)
class Settled:
    """Settings in which the layout is not "auto", in a line which layout it is and why, and the listing of the input, begun or not."""

    run: RunConfig
    told: str
    listing: Iterator[list[Listed]]


def settle(store: Store, run: RunConfig, own_output: str = "") -> Settled:
    """Find out the layout of the input if it is "auto", from the first files that are listed; other settings come back as they are.

    Files are looked at until there are `SAMPLE` of them and an image is among them. Their part of the listing is kept, so the input is
    listed once. `own_output` is as in `discover`. Raises ConfigFault if the layout is not plain.
    """
    listing = store.list()
    if not isinstance(run.layout, AutoSettings):
        return Settled(run, run.layout.kind, listing)
    begun, keys = _begun(listing, run, own_output)
    looked_at = sum(map(len, begun))
    proposal = proposed(keys)
    some = f" (by the first {looked_at:,} files listed)" if _enough(looked_at, keys) else ""
    told = f"{proposal.layout.kind}: {proposal.evidence}{some}"
    return Settled(run.model_copy(update={"layout": proposal.layout}), told, chain(begun, listing))


def first_keys(store: Store, run: RunConfig) -> list[str]:
    """The keys from which the layout of an input is found out."""
    return _begun(store.list(), run, "")[1]


def _begun(
    listing: Iterator[list[Listed]], run: RunConfig, own_output: str
) -> tuple[list[list[Listed]], list[str]]:
    """The first batches of a listing, and the keys in them by which a layout is found out."""
    begun: list[list[Listed]] = []
    keys: list[str] = []
    for batch in listing:
        begun.append(batch)
        keys += sample((listed.key for listed in batch), run, own_output)
        if _enough(sum(map(len, begun)), keys):
            break
    return begun, keys


def _enough(looked_at: int, keys: Iterable[str]) -> bool:
    return looked_at >= _MOST_LOOKED_AT or (looked_at >= SAMPLE and any(map(image_like, keys)))


def sample(keys: Iterable[str], run: RunConfig, own_output: str = "") -> list[str]:
    """Those of `keys` by which a layout is found out: what the run does not leave out, and metadata files that it does not name."""
    left_out = key_filter(run, own_output)
    return [key for key in keys if _counts(left_out(key), key)]


def _counts(why: Ignored | None, key: str) -> bool:
    return why is None or (why.why == NOT_INCLUDED and not image_like(key))
