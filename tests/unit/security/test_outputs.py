"""Nothing is written outside of OUT, whatever the images are called and whatever lies in OUT."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cellcount_core.domain.errors import ConfigFault, OutputFault
from cellcount_core.domain.fields import Source
from cellcount_core.output.labels import label_key
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.local import open_local
from cellcount_core.stores.open import open_store
from tests.jobs import count, rows
from tests.plates import write_plate


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["../../x.tif", "a/../../../x.tif", "/etc/x.tif"])
@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_label_image_of_a_source_that_climbs_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    root = tmp_path / "a" / "out"
    url = str(root) if kind == "local" else "s3://bucket/out"
    store = open_store(url, StorageOptions(endpoint="http://127.0.0.1:9"))
    before = everything(tmp_path)

    with pytest.raises(ConfigFault, match="below the store's root"):
        store.put(label_key(Source("", 0, name)), b"x")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("write", ["put", "put_new", "delete"])
def test_a_link_in_the_output_that_leads_out_is_not_written_through(write: str, tmp_path: Path) -> None:
    images, root = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    root.mkdir()
    (images / "a.tif").write_bytes(b"pixels")
    (root / "labels").symlink_to(images)
    store = open_local(root)
    before = everything(images)

    with pytest.raises(OutputFault, match="symbolic link leads to"):
        {
            "put": lambda: store.put("labels/a.tif", b"x"),
            "put_new": lambda: store.put_new("labels/new/b.tif", b"x"),
            "delete": lambda: store.delete("labels/a.tif"),
        }[write]()
    assert everything(images) == before
    assert (images / "a.tif").read_bytes() == b"pixels"


def test_a_link_in_place_of_a_file_is_replaced_and_what_it_leads_to_is_not(tmp_path: Path) -> None:
    image, root = tmp_path / "a.tif", tmp_path / "out"
    image.write_bytes(b"pixels")
    root.mkdir()
    (root / "wells.parquet").symlink_to(image)
    open_local(root).put("wells.parquet", b"table")

    assert image.read_bytes() == b"pixels"
    assert (root / "wells.parquet").read_bytes() == b"table"
    assert not (root / "wells.parquet").is_symlink()


def test_an_output_that_is_itself_a_link_and_links_that_stay_inside_are_fine(tmp_path: Path) -> None:
    (tmp_path / "disk" / "b").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "a").symlink_to(tmp_path / "disk" / "b")
    open_local(tmp_path / "out").put("a/x", b"1")

    assert (tmp_path / "disk" / "b" / "x").read_bytes() == b"1"


def test_plates_wells_and_files_with_hostile_names_leave_all_around_the_output_as_it_was(
    tmp_path: Path,
) -> None:
    plate = write_plate(tmp_path / "plate", well_count=1, sites=1)
    image = plate.file("A01", 1)
    hostile = tmp_path / "in" / "plate.." / "$(touch x)"
    hostile.mkdir(parents=True)
    for name in ("x..tif.tif", "<script>alert(1)<.tif", "%2e%2e%2fx.tif", "x\\..\\..\\x.tif", "-rf.tif"):
        shutil.copy(image, hostile / name)
    count(tmp_path / "in", tmp_path / "o" / "out", run={"layout": {"kind": "flat"}, "labels": "tiff"})
    around = everything(tmp_path) - {f"o/out/{path}" for path in everything(tmp_path / "o" / "out")}
    found = rows(tmp_path / "o" / "out", "fields").to_pylist()

    assert [row["status"] for row in found] == ["ok"] * 5
    assert {path.split("/")[0] for path in around} == {"plate", "in", "o"}
    assert {path for path in around if path.startswith("o/")} == {"o/out"}
    assert len(list((tmp_path / "o" / "out" / "labels").rglob("*.labels.tif"))) == 5
