from __future__ import annotations

import io
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.layouts.flat import FlatSettings
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.output.planfile import ShardLimits
from cellcount_core.plan.planner import plan_survey, survey
from tests.often import often
from tests.unit.plan.listings import LIMITS, MODEL, MemoryStore, plan_bytes, plan_of, planned, store_of

IMAGEXPRESS = RunConfig(layout=ImageXpressSettings(), channels={"nuclei": "w1"})
PLATE = [
    f"p/TimePoint_1/p_{row}{column:02d}_s{site}_w{channel}.TIF"
    for row in "AB" for column in (1, 2, 10) for site in (1, 2) for channel in (1, 2)
]  # fmt: skip


@settings(max_examples=often(25), deadline=None)
@given(seed=st.integers(0, 2**32), run_rows=st.integers(2, 40))
def test_the_order_of_the_listing_and_the_memory_used_do_not_change_a_byte_of_the_plan(
    seed: int, run_rows: int
) -> None:
    keys = [*PLATE, "other/p_A01_s1_w1.TIF", "notes.txt"]
    expected = plan_bytes(store_of(keys), IMAGEXPRESS)
    random.Random(seed).shuffle(keys)
    assert plan_bytes(store_of(keys), IMAGEXPRESS, run_rows=run_rows) == expected


def test_the_size_of_shards_does_not_change_the_fingerprint() -> None:
    fingerprints = set()
    for fields in (1, 3, 100):
        with plan_of(store_of(PLATE), IMAGEXPRESS, ShardLimits(fields, 2**40)) as plan:
            fingerprints.add(plan.file.fingerprint)
            assert plan.file.numbers.shards == plan.summary.shards == -(-12 // fields)
    assert len(fingerprints) == 1


def test_a_survey_lets_go_of_its_rows_once_it_is_planned() -> None:
    with survey(store_of(PLATE), IMAGEXPRESS, ("nuclei",)) as seen:
        assert len(list(seen.discovery.rows())) == len(PLATE)
        with plan_survey(seen, MODEL, LIMITS) as plan:
            seen.close()
            assert list(seen.discovery.rows()) == []
            assert sum(len(shard.fields) for shard in plan.shards()) == 12


def test_fields_stand_in_key_order() -> None:
    keys = [field.key for field in planned(PLATE, IMAGEXPRESS)]
    assert keys == sorted(keys)
    assert len(set(keys)) == 12


def test_the_summary_tells_what_would_run() -> None:
    store = store_of([*PLATE, "p/p.log", "p/p_A01_s1_w1_thumb.TIF", "q/q_A01_s1_w2.TIF", "q/.x.tif"])
    with plan_of(store, IMAGEXPRESS) as plan:
        summary = plan.summary
    p, q = summary.plates
    assert (p.plate, p.wells, p.fields) == ("p", 6, 12)
    assert (p.sites_min, p.sites_median, p.sites_max) == (2, 2, 2)
    assert (q.plate, q.fields, q.sites_max) == ("q", 1, 1)
    assert (summary.fields, summary.sources, summary.shards, summary.size) == (13, 12, 4, 72)
    assert (summary.channels_seen, summary.counted) == (("w1", "w2"), ("w1",))
    assert summary.reasons == {"channel_missing": 1}
    assert summary.ignored == {"hidden": 1, "not an image (.log)": 1, "thumbnail": 1}


def test_names_that_do_not_parse_refuse_the_plan_with_the_ways_out() -> None:
    store = store_of([*PLATE, *(f"photo {number}.tif" for number in range(9, 0, -1))])
    with pytest.raises(ConfigFault) as fault:
        plan_of(store, IMAGEXPRESS)
    text = str(fault.value)
    assert "9 image files: 'photo 1.tif', 'photo 2.tif', 'photo 3.tif', …" in text
    assert "run.exclude" in text
    assert "run.unparsed=ignore" in text


def test_names_that_do_not_parse_can_be_ignored_and_are_told() -> None:
    run = IMAGEXPRESS.model_copy(update={"unparsed": "ignore"})
    with plan_of(
        store_of([*PLATE, *(f"photo {number:02d}.tif" for number in range(30, 0, -1))]), run
    ) as plan:
        assert plan.summary.unparsed == 30
        assert plan.summary.unparsed_examples == tuple(f"photo {number:02d}.tif" for number in range(1, 11))
        assert any("30 image files are left out" in text for text in plan.summary.warnings)


def test_a_name_that_is_not_text_refuses_the_plan_with_a_step_that_helps() -> None:
    for run in (RunConfig(), IMAGEXPRESS):
        with pytest.raises(ConfigFault) as fault:
            plan_of(store_of(["20\udcb5m.tif"]), run)
        text = str(fault.value)
        assert (
            r"the name of 1 image file is not UTF-8 text and cannot stand in a table: '20\udcb5m.tif'" in text
        )
        assert "Rename" in text
        assert "flat" not in text
    store = store_of([*PLATE, "20\udcb5m.tif", "photo.tif"])
    with pytest.raises(
        ConfigFault, match=r"(?s)1 image file: 'photo.tif'.*name of 1 image file is not UTF-8"
    ):
        plan_of(store, IMAGEXPRESS)
    with plan_of(store, IMAGEXPRESS.model_copy(update={"unparsed": "ignore"})) as plan:
        assert any("2 image files are left out" in text for text in plan.summary.warnings)


def test_a_role_with_another_channel_than_that_of_its_own_name_is_told() -> None:
    store = store_of([f"Time1_p_A01_s1_w1{name}.tif" for name in ("nuclei", "actin")])
    pattern = RunConfig.model_validate(
        {"layout": {"kind": "pattern", "pattern": r"(?P<well>A01)_s1_w1(?P<channel>[a-z]+)\.tif$"}}
    )
    for channel, told in (("actin", 1), ("nuclei", 0)):
        with plan_of(store, pattern.model_copy(update={"channels": {"nuclei": channel}})) as plan:
            lines = [line for line in plan.summary.warnings if "are they mixed up?" in line]
        assert lines == told * [
            "the role 'nuclei' has the channel 'actin', though there is a channel 'nuclei': are they mixed up?"
        ]


def test_a_channel_that_is_looked_for_within_files_is_said_so() -> None:
    with plan_of(store_of(["a.tif", "b.tif"]), RunConfig(channels={"nuclei": "DAPI"})) as plan:
        assert any("'DAPI' is looked for in each file" in text for text in plan.summary.warnings)
    with plan_of(store_of(["a.tif", "b.tif"]), RunConfig()) as plan:
        assert not any("looked for" in text for text in plan.summary.warnings)


def test_include_and_exclude_choose_files() -> None:
    run = IMAGEXPRESS.model_copy(update={"include": ("p/**",), "exclude": ("*_s2_*", "*_w2*")})
    with plan_of(store_of([*PLATE, "z/z_A01_s1_w1.TIF"]), run) as plan:
        assert plan.summary.fields == 6
        assert plan.summary.ignored == {"in run.exclude": 18, "not in run.include": 1}


def test_plates_of_one_name_in_several_folders_are_kept_apart_and_only_those() -> None:
    keys = [
        "x/1/9987_B02.TIF",
        "x/2/TimePoint_1/9987_B02.TIF",
        "x/2/TimePoint_2/9987_B02.TIF",
        "x/1/single_A01.TIF",
    ]
    run = RunConfig(layout=ImageXpressSettings())
    assert [(field.key.plate, field.key.timepoint) for field in planned(keys, run)] == [
        ("9987@x/1", 1), ("9987@x/2", 1), ("9987@x/2", 2), ("single", 1),
    ]  # fmt: skip
    with plan_of(store_of(keys), run) as plan:
        assert any("'9987'" in text for text in plan.summary.warnings)


def test_the_output_folder_inside_the_input_is_left_out() -> None:
    keys = ["a.png", "out/report/overlay.png"]
    with plan_of(store_of(keys), RunConfig(), own_output="memory://input/out") as plan:
        assert (plan.summary.fields, plan.summary.ignored) == (1, {"output of this run": 1})
    with plan_of(store_of(keys), RunConfig(), own_output="memory://input-2/out") as plan:
        assert plan.summary.fields == 2


def test_a_flat_run_over_an_imagexpress_plate_is_warned() -> None:
    with plan_of(store_of(PLATE), RunConfig(layout=FlatSettings())) as plan:
        assert any("--layout imagexpress" in text for text in plan.summary.warnings)


def test_images_of_a_format_that_is_not_read_are_left_out_with_a_warning() -> None:
    with plan_of(store_of(["a.tif", "b.nd2", "c.ND2", "notes.txt"]), RunConfig()) as plan:
        assert plan.summary.fields == 1
        (warning,) = (text for text in plan.summary.warnings if "left out" in text)
    assert warning.startswith(
        "left out: 2 files, of an image format that is not read (.nd2), such as 'b.nd2'"
    )
    assert "save them as TIFF" in warning


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "there are no files"),
        (
            ["a.czi", "b.czi", ".hidden.tif"],
            "among 3 files: 2 of an image format that is not read (.czi); 1 hidden; to count them, save them as TIFF first",
        ),
        (
            [".zattrs", "B/03/0/.zgroup", "B/03/0/0/zarr.json", "p.zarr/A/1/0/0"],
            "among 4 files: 4 of an OME-Zarr; to count those: --layout ome-zarr",
        ),
    ],
)
def test_an_input_without_an_image_is_refused_with_what_is_there(keys: list[str], message: str) -> None:
    with pytest.raises(ConfigFault) as fault:
        plan_of(store_of(keys), RunConfig(layout=FlatSettings()))
    assert message in str(fault.value)
    assert "memory://input" in str(fault.value)


def test_each_image_of_an_array_file_is_a_field_and_a_broken_one_a_failed_row() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, X=np.zeros((3, 8, 9), np.uint8))
    store = MemoryStore(
        {"X.npz": buffer.getvalue(), "broken.npz": b"PK\x03\x04 and no more", "none.npz": b""}
    )
    with plan_of(store, RunConfig()) as plan:
        fields = [field for shard in plan.shards() for field in shard.fields]
    assert [(each.key.well, each.key.site, each.sources[0].index) for each in fields if each.reason is None] == [
        ("X", 1, 0), ("X", 2, 1), ("X", 3, 2),
    ]  # fmt: skip
    assert [each.key.well for each in fields if each.reason is not None] == ["broken", "none"]
    assert plan.summary.size == len(buffer.getvalue())
