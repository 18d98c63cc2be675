"""A plate is named by its own folder, however the path to it is spelled, and two plates of one name are told apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellcount_core.domain.config import RunConfig
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
