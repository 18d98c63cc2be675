from __future__ import annotations

from cellcount_core.config import ExpectGrid, RunConfig
from cellcount_core.domain.errors import Reason
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.layouts.table import TableSettings
from tests.unit.plan.listings import MemoryStore, plan_of, planned, store_of

KEYS = [
    "p_A01_s1_w1.TIF", "p_A01_s2_w1.TIF", "p_B02_s1_w1.TIF",
    "TimePoint_2/p_A01_s1_w1.TIF", "q_A01_s1_w1.TIF",
]  # fmt: skip


def run(expect: object) -> RunConfig:
    return RunConfig.model_validate({"layout": ImageXpressSettings(), "expect": expect})


def missing(expect: object) -> list[tuple[str, str, int, int]]:
    fields = planned(KEYS, run(expect))
    keys = [field.key for field in fields]
    assert keys == sorted(set(keys))
    absent = [field for field in fields if field.reason is not None]
    assert all(field.reason is Reason.ABSENT and "run.expect" in field.detail for field in absent)
    assert len(fields) - len(absent) == len(KEYS)
    return [(field.key.plate, field.key.well, field.key.site, field.key.timepoint) for field in absent]


def test_only_what_was_seen_is_expected_unless_asked() -> None:
    assert missing("observed") == []


def test_a_rectangle_expects_every_well_site_and_time_point_of_its_plate() -> None:
    assert missing("rectangular") == [
        ("p", "A01", 2, 2), ("p", "B02", 1, 2), ("p", "B02", 2, 1), ("p", "B02", 2, 2),
    ]  # fmt: skip


def test_a_grid_expects_every_well_of_the_plate() -> None:
    found = missing(ExpectGrid(wells=6, sites=(1, 2)))
    assert len(found) == (6 * 2 * 2 - 4) + (6 * 2 - 1)
    assert ("q", "B03", 2, 1) in found


def test_a_field_outside_the_grid_is_counted_and_told() -> None:
    grid = ExpectGrid(wells=6, sites=(1,))
    with plan_of(store_of([*KEYS, "p_C04_s1_w1.TIF"]), run(grid)) as plan:
        assert [text for text in plan.summary.warnings if text.startswith("2 fields lie outside")]


def test_a_file_that_the_manifest_names_and_that_is_not_there_is_missing() -> None:
    manifest = b"key,well,channel\na.tif,A01,w1\nlost.tif,A02,w1\n"
    store = MemoryStore({"m.csv": manifest, "a.tif": b"x", "b.tif": b"x"})
    with plan_of(store, RunConfig(layout=TableSettings(manifest="m.csv"))) as plan:
        first, second = (field for shard in plan.shards() for field in shard.fields)
    assert first.reason is None
    assert (second.reason, second.detail) == (Reason.ABSENT, "lost.tif: is not there")
    assert second.sources[0].key == "lost.tif"
    assert plan.summary.ignored == {"not named by the manifest": 2}


def test_a_file_that_is_only_measured_and_not_there_is_left_out() -> None:
    manifest = b"key,well,channel\na.tif,A01,w1\nlost.tif,A01,w2\n"
    store = MemoryStore({"m.csv": manifest, "a.tif": b"x"})
    run = RunConfig(layout=TableSettings(manifest="m.csv"), channels={"nuclei": "w1"}, measure=("w1", "w2"))
    with plan_of(store, run) as plan:
        (field,) = (field for shard in plan.shards() for field in shard.fields)
    assert (field.reason, [source.key for source in field.sources]) == (None, ["a.tif"])


def test_a_manifest_row_that_stands_there_twice_is_one_file() -> None:
    store = MemoryStore({"m.csv": b"key,well\na.tif,A01\na.tif,A01\n", "a.tif": b"x"})
    with plan_of(store, RunConfig(layout=TableSettings(manifest="m.csv"))) as plan:
        (field,) = (field for shard in plan.shards() for field in shard.fields)
    assert (field.reason, len(field.sources)) == (None, 1)
