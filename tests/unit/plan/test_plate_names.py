"""A plate is named by its own folder, however the path to it is spelled, and two plates of one name are told apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellcount_core.config import RunConfig
from cellcount_core.plan.planner import make_plan
from cellcount_core.stores.local import open_local
from cellcount_core.stores.open import name_of
from tests.unit.plan.listings import LIMITS, MODEL, store_of

WELL = {"kind": "pattern", "pattern": r"(?P<well>[A-H]\d\d)"}


def names(store: object, **run: object) -> tuple[list[tuple[str, str]], str]:
    """(plate, well) of the fields, and the fingerprint."""
    with make_plan(store, RunConfig.model_validate(run), MODEL, LIMITS) as plan:  # type: ignore[arg-type]
        fields = [field.key for shard in plan.shards() for field in shard.fields]
        return [(key.plate, key.well) for key in fields], plan.file.fingerprint


def test_images_in_the_input_itself_are_of_the_plate_of_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plate = tmp_path / "2026" / "MyPlate"
    plate.mkdir(parents=True)
    (plate / "A01.tif").write_bytes(b"x")
    os.utime(plate / "A01.tif", (0, 0))
    (tmp_path / "link").symlink_to(plate)
    monkeypatch.chdir(plate)
    spellings = [
        plate,
        f"{plate}/",
        f"{plate}/.",
        f"{plate}/../MyPlate",
        ".",
        "../MyPlate",
        "../../link",
        tmp_path / "link",
    ]
    for layout in ({"kind": "flat"}, WELL, {"kind": "imagexpress"}):
        seen = [names(open_local(spelling), layout=layout) for spelling in spellings]
        assert seen[0][0] == [("MyPlate", "A01")]
        assert seen == [seen[0]] * len(seen)
    before = names(open_local(plate))
    monkeypatch.chdir(tmp_path)
    plate.rename(tmp_path / "MyPlate")
    assert names(open_local("MyPlate")) == before
    assert names(open_local("MyPlate"), plate="P7")[0] == [("P7", "A01")]


def test_places_have_names_whatever_they_are() -> None:
    places = ("s3://bucket", "s3://bucket/day 1/PX", "memory://input/", "/", "/data/PX/", "gs://b/PX//")
    assert [name_of(place) for place in places] == ["bucket", "PX", "input", "root", "PX", "PX"]


def test_a_folder_named_as_the_input_is_another_plate() -> None:
    store = store_of(["A01.tif", "PX/A01.tif", "PY/A01.tif"], "s3://bucket/PX")
    for layout in ({"kind": "flat"}, WELL):
        assert names(store, layout=layout)[0] == [("PX", "A01"), ("PX@PX", "A01"), ("PY", "A01")]


def test_a_file_that_a_link_leads_to_again_is_counted_once_and_named(tmp_path: Path) -> None:
    plate = tmp_path / "PX"
    for folder in ("a", "b"):
        (plate / folder).mkdir(parents=True)
        (plate / folder / "A01.tif").write_bytes(folder.encode())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "A09.tif").write_bytes(b"x")
    (plate / "again").symlink_to(plate / "a")
    (plate / "A02.tif").symlink_to("b/A01.tif")
    (plate / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(plate)

    for spelling in (plate, tmp_path / "link"):
        found, _ = names(open_local(spelling))
        assert found == [("a", "A01"), ("b", "A01"), ("out", "A09")]
    with make_plan(open_local(plate), RunConfig(), MODEL, LIMITS) as plan:
        assert "left out: 2 files, link to a file that is counted, such as 'A02.tif'" in plan.summary.warnings
    # Where the file itself is not counted, the link is.
    assert names(open_local(plate), exclude=["/a", "/b"])[0] == [
        ("PX", "A02"),
        ("again", "A01"),
        ("out", "A09"),
    ]


def test_keys_that_a_bucket_cannot_be_asked_for_are_left_out_and_named() -> None:
    for url, number in (("s3://bucket/PX", 1), ("/data/PX", 2)):
        store = store_of(["A01.tif", "new\nline.tif"], url)
        with make_plan(store, RunConfig(), MODEL, LIMITS) as plan:
            assert sum(len(shard.fields) for shard in plan.shards()) == number
            assert any("'new\\nline.tif'" in warning for warning in plan.summary.warnings) is (number == 1)


def test_plates_of_one_name_that_a_pattern_reads_from_folders_are_told_apart() -> None:
    grouped = {"kind": "pattern", "pattern": r"(?P<plate>P\w)(?:/[^/]+)?/i_(?P<well>[A-H]\d\d)"}
    store = store_of(["a/PX/i_A01.tif", "b/PX/i_A01.tif", "b/PY/i_A01.tif"])
    assert names(store, layout=grouped)[0] == [("PX@a/PX", "A01"), ("PX@b/PX", "A01"), ("PY", "A01")]
    # Folders below the plate are no plates, nor are those above it which tell something else, nor those of names that tell the plate.
    for keys, pattern in (
        (["a/PX/d1/i_A01.tif", "a/PX/d2/i_A02.tif"], grouped["pattern"]),
        (["T1/PX/i_A01.tif", "T2/PX/i_A02.tif"], r"T(?P<timepoint>\d)/(?P<plate>PX)/i_(?P<well>\w\d\d)"),
        (["w1/PX_A01.tif", "w2/PX_A02.tif"], r"(?P<plate>PX)_(?P<well>\w\d\d)"),
    ):
        found, _ = names(store_of(keys), layout={"kind": "pattern", "pattern": pattern})
        assert [plate for plate, _ in found] == ["PX", "PX"]
