"""Labelled images of several channels: in one file, in a file each, in an archive, or as the colours of a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.dataset import list_labelled
from cellcount_core.labelled.image import LabelledImage

ROLES = ("nuclei", "membrane")
SHAPE = (30, 40)


def labels() -> np.ndarray:
    drawn = np.zeros(SHAPE, np.uint16)
    drawn[2:12, 2:12] = 1
    return drawn


def plane(value: int) -> np.ndarray:
    return np.full(SHAPE, value, np.uint16)


def one_file(root: Path) -> None:
    for name in ("images", "labels"):
        (root / name).mkdir()
    both = np.stack([plane(22), plane(11)])
    tifffile.imwrite(
        root / "images" / "a.ome.tif",
        both,
        metadata={"axes": "CYX", "Channel": {"Name": ["Membrane", "Nuclei"]}},
    )
    tifffile.imwrite(root / "labels" / "a.ome.tif", labels())


def folders_of_roles(root: Path) -> None:
    for role, value in zip(ROLES, (11, 22), strict=True):
        (root / "images" / role).mkdir(parents=True)
        tifffile.imwrite(root / "images" / role / "a.tif", plane(value))
    (root / "labels").mkdir()
    tifffile.imwrite(root / "labels" / "a.tif", labels())


def columns_of_roles(root: Path) -> None:
    for role, value in zip(ROLES, (11, 22), strict=True):
        tifffile.imwrite(root / f"{role}.tif", plane(value))
    tifffile.imwrite(root / "true.tif", labels())
    (root / "cells.csv").write_text("label,membrane,nuclei\ntrue.tif,membrane.tif,nuclei.tif\n")


def columns_of_an_index(root: Path) -> None:
    columns_of_roles(root)
    (root / "cells.csv").unlink()
    (root / "index.csv").write_text("id,label,membrane,nuclei\na,true.tif,membrane.tif,nuclei.tif\n")


def archive(root: Path) -> None:
    images = np.stack([plane(11), plane(22)], axis=-1)[None]
    np.savez(root / "X_and_y.npz", X=images, y=labels()[None].astype(np.int32) * 3)


@pytest.mark.parametrize(
    "write", [one_file, folders_of_roles, columns_of_roles, columns_of_an_index, archive]
)
def test_channels_come_in_the_order_of_the_roles_however_they_are_stored(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path)
    (entry,) = list_labelled(tmp_path, roles=ROLES).entries
    image = entry.load(ROLES)
    assert list(image.planes) == list(ROLES)
    assert [int(channel.max()) for channel in image.planes.values()] == [11, 22]
    assert image.truth.labels is not None
    assert image.truth.labels.max() > 0
    (entry,) = list_labelled(tmp_path, roles=ROLES[::-1]).entries
    turned = [int(channel.max()) for channel in entry.load(ROLES[::-1]).planes.values()]
    assert turned == ([11, 22] if write is archive else [22, 11])


def colours(root: Path) -> LabelledImage:
    for name in ("images", "labels"):
        (root / name).mkdir()
    blue, green, red = plane(3), plane(2), plane(1)
    cv2.imwrite(str(root / "images" / "a.png"), np.dstack([blue, green, red]).astype(np.uint8))
    cv2.imwrite(str(root / "labels" / "a.png"), labels())
    (entry,) = list_labelled(root, roles=("red", "green", "blue")).entries
    return entry.load(("red", "green", "blue"))


def test_a_colour_file_gives_red_green_and_blue(tmp_path: Path) -> None:
    assert {name: int(channel.max()) for name, channel in colours(tmp_path).planes.items()} == {
        "red": 1,
        "green": 2,
        "blue": 3,
    }
    (entry,) = list_labelled(tmp_path, roles=("blue",)).entries
    assert int(entry.load(("blue",)).plane.max()) == 3


def test_a_colour_file_is_grey_to_a_role_that_is_no_colour(tmp_path: Path) -> None:
    colours(tmp_path)
    (entry,) = list_labelled(tmp_path, roles=("nuclei",)).entries
    image = entry.load(("nuclei",))
    assert list(image.planes) == ["nuclei"]
    assert image.plane.shape == SHAPE


def drop_a_channel(root: Path) -> None:
    folders_of_roles(root)
    (root / "images" / "membrane" / "a.tif").rename(root / "images" / "membrane" / "b.tif")


def drop_a_folder(root: Path) -> None:
    folders_of_roles(root)
    (root / "images" / "membrane" / "a.tif").unlink()
    (root / "images" / "membrane").rmdir()


def other_size(root: Path) -> None:
    columns_of_roles(root)
    tifffile.imwrite(root / "membrane.tif", plane(2)[:20])


def empty_cell(root: Path) -> None:
    columns_of_roles(root)
    (root / "cells.csv").write_text("label,membrane,nuclei\ntrue.tif,,nuclei.tif\n")


def no_column(root: Path) -> None:
    columns_of_roles(root)
    (root / "cells.csv").write_text("label,nuclei\ntrue.tif,nuclei.tif\n")


def one_channel(root: Path) -> None:
    one_file(root)
    tifffile.imwrite(root / "images" / "a.ome.tif", plane(1))


def three_in_an_archive(root: Path) -> None:
    np.savez(root / "a.npz", X=np.zeros((1, *SHAPE, 3), np.uint16), y=labels()[None])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (drop_a_channel, r"membrane/a\.png or \.tif: not there, though another channel has it"),
        (
            drop_a_folder,
            r"images/membrane: not there; a folder for each channel expected \(nuclei, membrane\)",
        ),
        (
            other_size,
            r"nuclei\.tif.*the channels of an image must have one size|membrane\.tif: \(20, 40\) px",
        ),
        (empty_cell, "row 2 has no membrane"),
        (no_column, "no column 'membrane'"),
        (one_channel, r"a\.ome\.tif: an image of 1 channel; 2 expected \(nuclei, membrane\)"),
        (three_in_an_archive, r"X has 3 channels; 2 expected \(nuclei, membrane\)"),
    ],
)
def test_a_channel_that_is_missing_or_does_not_fit_is_named(
    tmp_path: Path, write: Callable[[Path], None], said: str
) -> None:
    write(tmp_path)
    with pytest.raises(ConfigFault, match=said):
        for entry in list_labelled(tmp_path, roles=ROLES).entries:
            entry.load(ROLES)
