"""The layout "auto" is settled from one bounded look at the listing, before anything is planned."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.layouts.flat import FlatSettings
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.plan.choose import SAMPLE, settle
from cellcount_core.stores.base import LIST_BATCH, Listed
from cellcount_core.stores.wrapped import CountingStore
from tests.unit.plan.listings import MemoryStore, plan_bytes, plan_of, planned, store_of

PLATE = [f"P1_B0{well}_s{site}_w1.tif" for well in (2, 3) for site in (1, 2)]
IMAGES = ["a.png", "b.png", "day/a.png"]


@pytest.mark.parametrize(
    ("keys", "named"), [(PLATE, ImageXpressSettings()), (IMAGES, FlatSettings())], ids=["plate", "images"]
)
def test_auto_and_the_layout_named_make_the_same_run(
    keys: list[str], named: ImageXpressSettings | FlatSettings
) -> None:
    found, given = RunConfig(), RunConfig(layout=named)
    with plan_of(store_of(keys), found) as first, plan_of(store_of(keys[::-1]), given) as second:
        assert first.file.fingerprint == second.file.fingerprint
        assert first.file.run == second.file.run
        assert first.file.run["layout"] == {"kind": named.kind}
    assert plan_bytes(store_of(keys), found) == plan_bytes(store_of(keys), given)


def test_the_plan_says_the_layout_and_why() -> None:
    with plan_of(store_of(PLATE), RunConfig()) as plan:
        assert plan.summary.layout == "imagexpress: 4 of 4 names are of it"
    with plan_of(store_of(PLATE), RunConfig(layout=ImageXpressSettings())) as plan:
        assert plan.summary.layout == "imagexpress"


def test_the_input_is_listed_once() -> None:
    store = CountingStore(store_of(PLATE))
    settled = settle(store, RunConfig())
    assert [listed.key for batch in settled.listing for listed in batch] == PLATE
    assert store.counts.lists == 1


class Endless(MemoryStore):
    """A listing with an end that must not be reached: it counts the batches that were taken from it."""

    taken = 0

    def list(self, prefix: str = "") -> Iterator[list[Listed]]:
        while True:
            self.taken += 1
            yield [Listed(f"P1_B02_s{self.taken}{number:03d}_w1.tif", 1, "t") for number in range(LIST_BATCH)]


@pytest.mark.slow
def test_only_the_first_files_of_a_long_listing_are_looked_at() -> None:
    store = Endless()
    settled = settle(store, RunConfig())
    assert store.taken == SAMPLE // LIST_BATCH
    assert settled.run.layout == ImageXpressSettings()
    assert settled.told.endswith("(by the first 10,000 files listed)")


def test_what_the_run_leaves_out_tells_nothing_of_the_layout() -> None:
    run = RunConfig(exclude=("*.jpg",))
    assert planned([*PLATE, "a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"], run)[0].key.plate == "P1"
    with pytest.raises(ConfigFault, match="several kinds are mixed"):
        planned([*PLATE, "a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"], RunConfig())


def test_metadata_files_tell_it_even_if_only_images_are_included() -> None:
    run = RunConfig(include=("*.TIF",))
    store = store_of(["TimePoint_1/9987_B02.TIF", "9987.HTD"])
    assert settle(store, run).run.layout == ImageXpressSettings()


def test_the_runs_own_output_tells_nothing_of_the_layout() -> None:
    store = store_of([*IMAGES, *(f"out/{name}" for name in PLATE)])
    assert settle(store, RunConfig(), "out").run.layout == FlatSettings()
