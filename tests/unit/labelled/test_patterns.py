"""Tables that say which patterns images show: how they are read, and how every fault of them is told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.labelled.patterns import (
    PatternFault,
    PatternReading,
    check_patterns,
    list_patterns,
    pattern_names,
    patterns_of,
    read_annotations,
    skipping,
)
from tests.data_dir import data_dir, needs_data

ROLES = ("red", "green")
NAMES = ("dots", "rings", "bars")


def folder_of(folder: Path, table: str, ids: tuple[str, ...] = ("a", "b")) -> Path:
    """A folder of images of two channels, beside their table."""
    for name in ids:
        for role in ROLES:
            cv2.imwrite(str(folder / f"{name}_{role}.png"), np.full((8, 8), 7, np.uint8))
    (folder / "train.csv").write_text(table)
    return folder


def hpa() -> Path:
    folder = data_dir()
    assert folder is not None
    return folder / "hpa"


def told(folder: Path) -> str:
    with pytest.raises(ConfigFault) as raised:
        list_patterns(folder, ROLES, NAMES)
    return str(raised.value)


def test_numbers_and_names_become_patterns_in_the_order_of_the_list(tmp_path: Path) -> None:
    data = list_patterns(folder_of(tmp_path, "Id,Target\na,2 0\nb,Rings|dots\n"), ROLES, NAMES)
    assert [patterns_of(entry.values) for entry in data.entries] == [("dots", "bars"), ("dots", "rings")]
    assert data.report.lines() == [
        f"{tmp_path / 'train.csv'}: 2 images, 3 of 3 patterns among them",
        "no faults",
    ]
    image = data.entries[0].load(ROLES)
    assert list(image.planes) == ["red", "green"]
    assert image.truth.values["patterns"] == "dots; bars"


def test_an_image_may_show_none_of_the_patterns_if_the_table_says_so(tmp_path: Path) -> None:
    data = list_patterns(folder_of(tmp_path, "Id,Target\na,none\nb,1\n"), ROLES, NAMES)
    assert patterns_of(data.entries[0].values) == ()


def test_the_channels_may_lie_in_one_file_and_the_images_in_a_folder_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "truth.csv").write_text("Id,Target,split,group\na,0,val,plate 1\n")
    for path in (tmp_path, tmp_path / "truth.csv"):
        [entry] = list_patterns(path, ("red", "green", "blue"), NAMES).entries
        assert (entry.split, entry.load(("red", "green", "blue")).group) == ("val", "plate 1")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("Id,Target\na,0 28\nb,1\n", "row 2 (a): Target '0 28' has '28'; numbers 0 to 2 expected"),
        ("Id,Target\na,-1\nb,1\n", "row 2 (a): Target '-1' has '-1'; numbers 0 to 2 expected"),
        ("Id,Target\na,ring\nb,1\n", "row 2 (a): Target 'ring' has 'ring'; a known name expected; did you mean 'rings'"),
        ('Id,Target\na,"0,1"\nb,1\n', "row 2 (a): Target '0,1' has '0,1'; numbers 0 to 2 with spaces between them expected ('2 0')"),
        ('Id,Target\na,"[0, 1]"\nb,1\n', "has '[0, 1]'; numbers 0 to 2 with spaces between them expected"),
        ("Id,Target\na,1.0 2.0\nb,1\n", "has '1.0 2.0'; numbers 0 to 2 with spaces between them expected"),
        ("Id,Target\na,0\nb,\n", "row 3 (b): Target is empty"),
        ("Id,Target\na,0 0\nb,1\n", "row 2 (a): Target '0 0' names 'dots' twice"),
        ("Id,Target\na,0\nb,1\na,2\n", "train.csv: a: rows 2 and 4"),
        ("Id,Target\na,0\nb,1\nc,2\n", "train.csv: c: no c_red.png or c.png in"),
        ("Id,Target\na,0\n", "b_green.png: no row with the Id 'b'"),
        ("Id,Target\na,0\nb,1\n,2\n", "row 4: Target '2' of no image"),
        ("", "train.csv: the file is empty; a row an image, with the columns Id and Target, expected"),
        ("Id,Target\n", "train.csv: no row below the header; a row an image expected"),
        ("Id,Targets\na,0\n", "train.csv: no column 'Target'; did you mean 'Targets'"),
        ("name,Target\na,0\n", "train.csv: no column 'Id'"),
        ("Id,Target\na,0,1\nb,1\n", "train.csv: line 2: 3 cells, but the header has 2"),
        ("Id;Target\na;0\nb;dots;rings\n", "train.csv: line 3: 3 cells, but the header has 2"),
        ("Id,Target,Target\na,0,1\nb,1,1\n", "train.csv: 2 columns are called 'Target'; one expected"),
    ],
)  # fmt: skip
def test_a_fault_of_the_annotations_is_told_with_file_and_value(
    tmp_path: Path, table: str, words: str
) -> None:
    assert words in told(folder_of(tmp_path, table))


def test_a_channel_that_is_not_there_is_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "Id,Target\na,0\nb,1\n")
    (folder / "b_green.png").unlink()
    assert "b: no green; there is b_red.png" in told(folder)


def test_images_that_cannot_be_read_or_whose_channels_differ_in_size_are_told_all_at_once(
    tmp_path: Path,
) -> None:
    folder = folder_of(tmp_path, "Id,Target\na,0\nb,1\nc,2\nd,7\n", ("a", "b", "c", "d"))
    cv2.imwrite(str(folder / "a_green.png"), np.zeros((8, 9), np.uint8))
    (folder / "c_red.png").write_bytes((folder / "c_red.png").read_bytes()[:40])
    with pytest.raises(ConfigFault) as raised:
        list_patterns(folder, ROLES, NAMES, PatternReading(images="decoded"))
    words = str(raised.value)
    assert "1 x unequal_channels: an image whose channels differ in size -> refused" in words
    assert f"a: {folder / 'a_green.png'}: (8, 9) px (height, width), a_red.png (8, 8)" in words
    assert "1 x unreadable: an image that cannot be read -> refused" in words
    assert f"c: {folder / 'c_red.png'}" in words
    assert "1 x unknown_pattern" in words
    policy = skipping(["unequal_channels", "unreadable", "unknown_pattern"])
    left = list_patterns(folder, ROLES, NAMES, PatternReading(policy=policy, images="decoded"))
    assert [entry.id for entry in left.entries] == ["b"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.png", "; an Id has neither ending nor channel: 'a'"),
        ("a_green.png", "; an Id has neither ending nor channel: 'a'"),
        ("plate/a", "; folders within it are not looked into: put the images there and call it 'a'"),
        ("Sample-01", "did you mean 'sample-01'"),
    ],
)
def test_an_id_that_has_no_image_is_told_with_what_may_have_been_meant(
    tmp_path: Path, name: str, words: str
) -> None:
    folder = folder_of(tmp_path, f"Id,Target\n{name},0\nb,1\n", ("a", "b", "sample-01"))
    (folder / "images").mkdir()
    assert f"in {folder} or {folder / 'images'}" in told(folder)
    assert words in told(folder)


def test_an_id_that_ends_like_a_channel_of_another_is_told(tmp_path: Path) -> None:
    assert "a: no red; there is a_green.png; the file of 'a_red' is taken for the image of that Id" in told(
        folder_of(tmp_path, "Id,Target\na,0\na_red,1\nb,1\n")
    )


def test_rows_are_numbered_as_spreadsheets_do_empty_ones_too(tmp_path: Path) -> None:
    assert "row 5 (b): Target '9' has '9'" in told(folder_of(tmp_path, "Id,Target\na,0\n\n,\nb,9\n"))


def test_a_split_that_is_no_part_is_told(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path, "Id,Target,split\na,0,trian\nb,1,val\nc,1,test\nd,1,\n", ("a", "b", "c", "d")
    )
    with pytest.raises(ConfigFault) as raised:
        list_patterns(folder, ROLES, NAMES, PatternReading(splits=("train", "val")))
    words = str(raised.value)
    assert "row 2 (a): split 'trian'; 'train' or 'val' expected; did you mean 'train'?" in words
    assert "row 5 (d): split ''; 'train' or 'val' expected" in words
    assert "2 x unknown_split: a split that is no part of the data" in words
    left = list_patterns(
        folder, ROLES, NAMES, PatternReading(None, skipping(["unknown_split"]), ("train", "val"))
    )
    assert [entry.id for entry in left.entries] == ["b", "c"]
    assert len(list_patterns(folder, ROLES, NAMES).entries) == 4


def test_planes_that_are_tagged_as_colours_are_refused_with_the_remedy(tmp_path: Path) -> None:
    roles = ("red", "green", "blue", "yellow")
    (tmp_path / "train.csv").write_text("Id,Target\na,0\n")
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((4, 48, 48), np.uint8), photometric="rgb", planarconfig="separate"
    )
    [entry] = list_patterns(tmp_path, roles, NAMES).entries
    with pytest.raises(ConfigFault, match=r"a.tif: an image of 3 channels .* photometric='minisblack'"):
        _ = entry.load(roles).planes
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 48, 48), np.uint8), photometric="minisblack")
    assert list(entry.of_group("b").load(roles).planes) == list(roles)


def test_two_files_of_one_channel_are_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "Id,Target\na,0\nb,1\n")
    cv2.imwrite(str(folder / "a_green.tif"), np.zeros((8, 8), np.uint8))
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images" / "b_red.png"), np.zeros((8, 8), np.uint8))
    words = told(folder)
    assert "2 x two_files: an image with several files of one channel -> refused" in words
    assert f"a: {folder / 'a_green.png'} and {folder / 'a_green.tif'}; one of them expected" in words
    assert f"b: {folder / 'b_red.png'} and {folder / 'images' / 'b_red.png'}; one of them" in words


def test_a_file_of_all_channels_beside_those_of_each_is_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "Id,Target\na,0\nb,1\n")
    cv2.imwrite(str(folder / "a.png"), np.zeros((8, 8, 3), np.uint8))
    assert f"a: {folder / 'a.png'} and {folder / 'a_red.png'} and {folder / 'a_green.png'}; one" in told(
        folder
    )


def test_all_faults_come_in_one_report_and_what_is_faulty_can_be_left_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "Id,Target\na,0\nb,9\nc,2\nd,\n", ("a", "b", "e"))
    words = told(folder)
    for line in ("1 x unknown_pattern", "1 x no_image", "1 x no_target", "1 x no_row"):
        assert line in words
    everything = skipping([kind.value for kind in PatternFault])
    data = list_patterns(folder, ROLES, NAMES, PatternReading(policy=everything))
    assert [entry.id for entry in data.entries] == ["a"]
    assert "1 x no_row: an image without a row -> left out" in data.report.lines()
    with pytest.raises(ConfigFault, match="no kind 'no_img'; did you mean 'no_image'"):
        skipping(["no_img"])


def test_files_of_other_channels_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "Id,Target\na,0\nb,1\n")
    cv2.imwrite(str(folder / "a_yellow.png"), np.zeros((8, 8), np.uint8))
    (folder / "._a_red.png").write_bytes(b"")
    assert len(list_patterns(folder, ROLES, NAMES).entries) == 2


def test_names_come_from_the_shipped_list_a_table_or_the_settings(tmp_path: Path) -> None:
    structures = pattern_names("structures")
    assert (len(structures), structures[0], structures[27]) == (28, "Nucleoplasm", "Rods & rings")
    (tmp_path / "names.csv").write_text("number,name\n0,dots\n1,rings\n")
    assert pattern_names("names.csv", tmp_path) == ("dots", "rings") == pattern_names(["dots", "rings"])
    (tmp_path / "names.csv").write_text("number,name\n0,dots\n2,rings\n")
    with pytest.raises(ConfigFault, match="row 3: number '2'; 1 expected"):
        pattern_names("names.csv", tmp_path)
    with pytest.raises(ConfigFault, match="'dots' is there twice"):
        pattern_names(["dots", "dots"])
    with pytest.raises(ConfigFault, match=r"patterns: 'structure' is neither a file nor the name"):
        pattern_names("structure")


@needs_data("hpa")
def test_the_table_of_the_human_protein_atlas_has_no_fault() -> None:
    rows = read_annotations(hpa() / "train.csv", pattern_names("structures"))
    assert len(rows) == 31072
    assert sum("Nucleoplasm" in row.patterns for row in rows) == 12885


@pytest.mark.slow
@needs_data("hpa")
def test_real_images_are_read_as_they_are() -> None:
    folder, names = hpa(), pattern_names("structures")
    policy = skipping(["no_image", "no_channel"])
    four = ("red", "green", "blue", "yellow")
    data = list_patterns(
        folder / "train_complete_512", four, names, PatternReading(folder / "train.csv", policy)
    )
    [entry] = data.entries
    image = entry.load(four)
    assert patterns_of(entry.values) == ("Nuclear bodies",)
    assert [plane.shape for plane in image.planes.values()] == [(512, 512)] * 4
    single = check_patterns(
        folder / "train_sample_256", four, names, PatternReading(folder / "train.csv", policy)
    )
    assert single.entries == ()
    assert sum(fault.kind is PatternFault.NO_CHANNEL for fault in single.report.faults) == 38
