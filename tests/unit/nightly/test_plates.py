"""Which plates a root holds, their content identity, and when they are complete."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from cellcount_core.config import RunConfig
from cellcount_core.nightly.config import Complete, NightlyConfig
from cellcount_core.nightly.plates import PlateFolder, Sight, look, wanting
from cellcount_core.stores.local import open_local
from tests import zarrs
from tests.plates import write_plate

ARRAYS = RunConfig.model_validate({"layout": {"kind": "ome-zarr"}})
IMAGEXPRESS = RunConfig.model_validate({"layout": {"kind": "imagexpress"}})
MARKED = Complete(marker="DONE")


def sight(root: Path, complete: Complete = MARKED, **more: object) -> Sight:
    return look(open_local(root), IMAGEXPRESS, complete, **more)  # type: ignore[arg-type]


def only(root: Path, complete: Complete = MARKED) -> PlateFolder:
    (plate,) = sight(root, complete).plates
    return plate


def test_a_plate_is_a_folder_below_the_root_that_holds_images(tmp_path: Path) -> None:
    write_plate(tmp_path / "P1", well_count=2)
    write_plate(tmp_path / "P2", well_count=1)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("x")
    (tmp_path / "P0_A01_s1.tif").write_bytes(b"beside the plates")

    plates = sight(tmp_path).plates

    assert [(plate.name, plate.files, plate.fields) for plate in plates] == [("P1", 4, 4), ("P2", 2, 2)]
    assert plates[0].source == str(tmp_path / "P1")


def test_plates_may_lie_deeper(tmp_path: Path) -> None:
    write_plate(tmp_path / "2026" / "P1", well_count=1)

    assert [plate.name for plate in sight(tmp_path, depth=2).plates] == ["2026/P1"]


def test_the_content_is_what_the_images_are_and_not_what_lies_beside_them(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "P1", well_count=2)
    before = only(tmp_path)
    (plate.folder / "DONE").touch()
    (plate.folder / "protocol.txt").write_text("x")

    after = only(tmp_path)

    assert (before.marked, after.marked) == (False, True)
    assert after.content == before.content


def test_the_content_is_the_same_wherever_the_plate_lies(tmp_path: Path) -> None:
    write_plate(tmp_path / "a" / "P1", well_count=2)
    before = only(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "P1").rename(tmp_path / "b" / "another name")

    assert only(tmp_path / "b").content == before.content


def test_a_changed_an_added_and_a_removed_image_each_make_another_content(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "P1", well_count=2)
    contents = [only(tmp_path).content]
    file = plate.file("A02", 1)
    file.write_bytes(file.read_bytes() + b"\0")
    contents.append(only(tmp_path).content)
    os.link(file, plate.file("A03", 1))
    contents.append(only(tmp_path).content)
    plate.file("A01", 1).unlink()
    contents.append(only(tmp_path).content)

    assert len(set(contents)) == 4


def test_a_field_that_lacks_a_channel_is_not_whole_yet(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "P1", well_count=2, channels=2)
    plate.file("A02", 2, channel=2).unlink()
    complete = Complete(fields=4)

    found = only(tmp_path, complete)

    assert found.fields == 3
    assert wanting(found, complete) == "3 of 4 fields (complete.fields)"


def test_all_that_is_asked_for_must_hold(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "P1", well_count=2)
    complete = Complete(marker="DONE", fields=4)
    assert wanting(only(tmp_path, complete), complete) == "no file DONE (complete.marker)"
    (plate.folder / "DONE").touch()
    assert wanting(only(tmp_path, complete), complete) == ""


def test_a_folder_whose_name_cannot_stand_in_a_table_is_told(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"P\xff")).mkdir()
    (tmp_path / os.fsdecode(b"P\xff") / "P1_A01_s1.tif").write_bytes(b"x")

    found = sight(tmp_path)

    assert found.plates == ()
    assert len(found.refused) == 1
    assert "not UTF-8" in found.refused[0]


def test_a_metadata_file_is_part_of_the_content_and_no_plate_by_itself(tmp_path: Path) -> None:
    write_plate(tmp_path / "P1", well_count=1)
    before = only(tmp_path)
    (tmp_path / "P1" / "P1.HTD").write_text('"HTSInfoFile", Version 1.0')
    (tmp_path / "P2").mkdir()
    (tmp_path / "P2" / "P2.HTD").write_text('"HTSInfoFile", Version 1.0')
    (tmp_path / "P3.HTD").write_text("beside the plates")
    found = sight(tmp_path)
    (after,) = found.plates
    assert after.content != before.content
    assert (after.name, after.fields, found.beside) == ("P1", before.fields, 0)


@pytest.mark.parametrize("kind", ["ome-zarr", "table"])
def test_a_number_of_fields_is_no_condition_where_names_do_not_tell_fields(kind: str) -> None:
    layout = {"kind": kind, **({"manifest": "m.csv"} if kind == "table" else {})}
    settings = {"roots": ["in"], "output": "out", "run": {"layout": layout}}
    NightlyConfig.model_validate({**settings, "complete": {"marker": "DONE"}})
    with pytest.raises(ValidationError, match=r"complete\.fields cannot be told from names"):
        NightlyConfig.model_validate({**settings, "complete": {"fields": 9}})


def test_a_plate_of_arrays_is_a_folder_with_their_metadata_and_every_chunk_is_part_of_its_content(
    tmp_path: Path,
) -> None:
    pixels = np.zeros((1, 1, 32, 32), np.uint16)
    pixels[..., 4:20, 4:20] = 900
    zarrs.write_plate(tmp_path / "P.zarr", {"B/03": {"0": pixels}})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no plate")
    (tmp_path / "readme.txt").write_text("beside")

    def seen() -> Sight:
        return look(open_local(tmp_path), ARRAYS, MARKED)

    [before], beside = seen().plates, seen().beside
    assert (before.name, before.marked, before.looks_like_several, beside) == ("P.zarr", False, "", 0)
    zarrs.write_plate(tmp_path / "P.zarr", {"B/03": {"0": pixels + 1}})
    (tmp_path / "P.zarr" / "DONE").touch()
    [after] = seen().plates
    assert after.content != before.content
    assert after.marked
    labels = tmp_path / "P.zarr" / "B" / "03" / "0" / "labels"
    labels.mkdir()
    (labels / ".zattrs").write_text("{}")
    assert seen().plates == (after,)


def test_several_plates_of_arrays_in_one_folder_look_like_several(tmp_path: Path) -> None:
    for name in "PQ":
        zarrs.write_plate(
            tmp_path / "day 1" / f"{name}.zarr", {"B/03": {"0": np.ones((1, 1, 32, 32), np.uint16)}}
        )
    [plate] = look(open_local(tmp_path), ARRAYS, MARKED).plates
    assert plate.looks_like_several == "day 1 holds no image itself, but 2 folders of them (P.zarr, Q.zarr)"
