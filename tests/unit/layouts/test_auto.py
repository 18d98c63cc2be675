"""`--layout auto`: what it proposes for names as instruments and people write them, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.layouts.auto import proposed

IMAGEXPRESS = [f"P1_B0{well}_s{site}_w{wave}.tif" for well in (2, 3) for site in (1, 2) for wave in (1, 2)]
HARMONY = [f"Images/r0{row}c03f0{site}p01-ch1sk1fk1fl1.tiff" for row in (1, 2) for site in (1, 2)]


def refusal(keys: Sequence[str]) -> str:
    with pytest.raises(ConfigFault) as refused:
        proposed(keys)
    return str(refused.value)


def test_names_of_one_instrument_are_proposed_with_how_many_follow_it() -> None:
    found = proposed([*IMAGEXPRESS, "readme.txt"])
    assert found.layout.kind == "imagexpress"
    assert found.evidence == "8 of 8 names are of it"


def test_the_metadata_file_beside_them_is_named() -> None:
    found = proposed([*HARMONY, "Images/Index.idx.xml"])
    assert found.layout.kind == "harmony"
    assert found.evidence == "4 of 4 names are of it; Index.idx.xml is beside them"


def test_thumbnails_are_of_the_instrument_too() -> None:
    thumbs = [name.replace(".tif", "_thumb.tif") for name in IMAGEXPRESS]
    assert proposed([*IMAGEXPRESS, *thumbs]).evidence == "16 of 16 names are of it"


def test_a_name_that_does_not_parse_is_told_and_left_for_the_plan_to_refuse() -> None:
    found = proposed([*IMAGEXPRESS, "overview.png"])
    assert found.layout.kind == "imagexpress"
    assert found.evidence == "8 of 9 names are of it; not 'overview.png'"


def test_a_well_alone_tells_no_instrument() -> None:
    found = proposed(["B02.tif", "B03.tif", "C04.tif"])
    assert found.layout.kind == "flat"
    assert "3 names a well alone (--layout imagexpress reads it)" in found.evidence


def test_a_well_alone_beside_the_instruments_metadata_file_tells_it() -> None:
    found = proposed(["TimePoint_1/9987_B02.TIF", "9987.HTD"])
    assert found.layout.kind == "imagexpress"
    assert found.evidence == "1 of 1 name is of it; 9987.HTD is beside them"


@pytest.mark.parametrize(
    "keys",
    [
        ["a.png", "b.png", "c.tif"],
        ["1.tif", "2.tif", "10.tif"],
        ["day 1/img_001.png", "day 1/img_002.png", "day 2/img_001.png"],
        ["c1.png", "c2.png", "c3.png", "c4.png"],
        ["z01.tif"],
        ["DAPI.tif"],
        ["photo.jpg"],
        ["treated_1.png", "treated_2.png", "control_1.png"],
        ["a_cp_masks.png", "a.png", "b.png"],
    ],
    ids=lambda keys: keys[0],
)
def test_plain_images_stay_flat(keys: list[str]) -> None:
    found = proposed(keys)
    assert found.layout.kind == "flat"
    assert "each is taken for an image of its own" in found.evidence


def test_nothing_at_all_is_flat_so_that_the_plan_says_what_is_there_instead() -> None:
    assert proposed([]).layout.kind == "flat"
    assert proposed(["a.czi", "notes.txt"]).layout.kind == "flat"


def test_names_of_two_instruments_in_one_input_are_refused_with_both() -> None:
    told = refusal([*IMAGEXPRESS, *HARMONY])
    assert "8 are imagexpress" in told
    assert "4 are harmony" in told
    assert "--layout imagexpress or --layout harmony" in told


def test_a_few_names_of_an_instrument_among_others_are_refused() -> None:
    told = refusal([IMAGEXPRESS[0], "first.tif", "second.tif", "third.tif"])
    assert "1 is imagexpress ('P1_B02_s1_w1.tif')" in told
    assert "3 of no layout among these ('first.tif')" in told
    assert "--layout flat takes each for an image of its own" in told


@pytest.mark.parametrize(
    "keys",
    [
        [f"exp_{number}_w{wave}.png" for number in (1, 2, 3) for wave in (1, 2)],
        [f"img_channel00{c}_position00{p}_z000.tif" for p in (0, 1) for c in (0, 1)],
        [f"ch{channel}/{number}.tif" for number in (1, 2, 3) for channel in (0, 1)],
        [f"{stain}/{number}.tif" for number in (1, 2, 3) for stain in ("DAPI", "GFP")],
        ["day3_DAPI.tif", "day3_GFP.tif"],
        [f"A{number} p5{letter}.tif" for number in (1, 2) for letter in "df"],
        [f"s{number}_z0{z}.tif" for number in (1, 2) for z in range(5)],
    ],
    ids=lambda keys: keys[0],
)
def test_channels_and_planes_are_not_counted_as_images_of_their_own(keys: list[str]) -> None:
    told = refusal(keys)
    assert "--layout pattern" in told
    assert "--layout flat takes each for an image of its own" in told


def test_pictures_made_of_the_images_are_not_counted_as_images() -> None:
    told = refusal(["a.png", "b.png", "a_thumb.png", "b_thumb.png"])
    assert re.search(r"2 of 4 images are pictures made of others.*run\.exclude=\[\*thumb\*\]", told)


def test_pictures_that_an_instrument_made_of_its_fields_are_of_the_instrument() -> None:
    """Names of stitched images, as an EVOS writes them: no field is among them, so that the plan says what is there instead."""
    found = proposed([f"S{slide}_Top Slide_TR{slide}_p00_0_A01f00d0.tiff" for slide in (6, 9)])
    assert found.layout.kind == "evos"


def test_names_that_two_layouts_know_alike_are_refused_with_both() -> None:
    told = refusal([name.replace(".tif", "_thumb.tif") for name in IMAGEXPRESS])
    assert "several layouts read these names" in told
    assert re.search(r"--layout imagexpress or --layout \w+|--layout \w+ or --layout imagexpress", told)


def test_arrays_are_told_by_their_metadata() -> None:
    found = proposed(
        ["p.zarr/.zattrs", "p.zarr/B/03/0/.zattrs", "p.zarr/B/03/0/0/.zarray", "p.zarr/B/03/0/0/0/0/0"]
    )
    assert found.layout.kind == "ome-zarr"
    assert found.evidence == "3 groups of arrays, such as p.zarr, and no image file"


def test_arrays_beside_image_files_are_refused() -> None:
    told = refusal(["p.zarr/.zattrs", "p.zarr/0/.zarray", "B02.tif"])
    assert "--layout ome-zarr" in told
    assert "--layout flat for the image files" in told


def test_the_order_of_the_names_changes_nothing() -> None:
    assert proposed(IMAGEXPRESS) == proposed(IMAGEXPRESS[::-1])
    assert refusal([*IMAGEXPRESS, *HARMONY]) == refusal([*HARMONY, *IMAGEXPRESS[::-1]])


def test_metadata_of_an_instrument_beside_names_that_it_does_not_write_is_not_passed_over() -> None:
    names = [f"P 1_a0{well}_s{site}_w1.tif" for well in (1, 2) for site in (1, 2)]
    assert proposed(names).layout.kind == "sbs"
    told = refusal([*names, "P 1.HTD"])
    assert "P 1.HTD is metadata of imagexpress, which reads none of them" in told
    assert "--layout sbs goes by the names alone" in told


def test_wavelengths_at_the_end_of_names_are_channels_of_one_image() -> None:
    told = refusal([f"{image} {wave}nm.tif" for image in "ab" for wave in (405, 488)])
    assert "'a 405nm' and 'a 488nm'" in told
    assert proposed(["2024 405nm.tif"]).layout.kind == "flat"
