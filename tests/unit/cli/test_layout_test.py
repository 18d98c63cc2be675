"""`cellcount layout test`: how names are read, what does not parse, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode


def told(
    folder: Path, names: Sequence[str], capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    """The exit code and the output for a folder with files of these names; `words` stand before the folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"pixels")
    code = main(["layout", "test", *words, str(folder)])
    # One blank between the cells of a table, however wide they are.
    return code, re.sub(" +", " ", capsys.readouterr().out)


PLATE = [f"P1_B0{well}_s{site}_w{wave}.tif" for well in (2, 3) for site in (1, 2) for wave in (1, 2)]


def test_a_plate_is_told_with_what_was_found_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = told(tmp_path, [*PLATE, "notes.txt", "P1_B02_s1_w1_thumb.tif"], capsys)
    assert code == ExitCode.OK
    assert "layout: imagexpress: 9 of 9 names are of it" in out
    assert "image of a field 8 P1_B02_s1_w1.tif" in out
    assert "left out: not an image (.txt) 1 notes.txt" in out
    assert "left out: thumbnail 1 P1_B02_s1_w1_thumb.tif" in out
    assert "plate 'P1': 4 fields; 2 wells (B02, B03); 2 sites (1-2); channels w1, w2; times 1" in out


def test_a_name_that_does_not_parse_is_told_with_who_would_read_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = told(tmp_path, [*PLATE, "r01c02f03p04-ch1sk1fk1fl1.tiff"], capsys, "--layout", "imagexpress")
    assert code == ExitCode.CONFIG
    assert "name that does not parse 1 r01c02f03p04-ch1sk1fk1fl1.tiff" in out
    assert (
        "not read: r01c02f03p04-ch1sk1fk1fl1.tiff: does not follow imagexpress; harmony would read it" in out
    )


def test_a_pattern_that_does_not_match_is_told_how_far_it_gets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = told(tmp_path, ["day3_A01_f2.tif"], capsys, "_(?P<well>[A-H][0-9]+)_s(?P<site>[0-9]+)")
    assert code == ExitCode.CONFIG
    assert (
        "the pattern is found up to '_(?P<well>[A-H][0-9]+)_', which is '_A01_', and not 's(?P<site>[0-9]+)'"
        in out
    )


def test_a_pattern_that_matches_is_told_with_what_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = told(
        tmp_path, ["day3_A01_f2.tif", "day3_A02_f2.tif"], capsys, "_(?P<well>[A-H][0-9]+)_f(?P<site>[0-9]+)"
    )
    assert code == ExitCode.OK
    assert "2 wells (A01, A02); 1 site (2)" in out


def test_where_no_layout_is_plain_each_is_told_with_what_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = told(tmp_path, [*PLATE, "r01c02f03p04-ch1sk1fk1fl1.tiff"], capsys)
    assert code == ExitCode.CONFIG
    assert "no layout: 9 image names of several kinds are mixed" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["imagexpress", "8", "P1_B02_s1_w1.tif", "r01c02f03p04-ch1sk1fk1fl1.tiff"] in lines
    assert ["harmony", "1", "r01c02f03p04-ch1sk1fk1fl1.tiff", "P1_B02_s1_w1.tif"] in lines


def test_a_pattern_for_another_layout_is_refused(tmp_path: Path) -> None:
    assert main(["layout", "test", "(?P<well>.+)", str(tmp_path), "--layout", "harmony"]) == ExitCode.CONFIG
