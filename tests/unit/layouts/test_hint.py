from __future__ import annotations

import re
import shlex

import pytest

from cellcount_core.domain.fields import Parsed
from cellcount_core.layouts.hint import channel_endings, suggest
from cellcount_core.layouts.pattern import PatternSettings, compile_pattern
from cellcount_core.layouts.registry import kinds

PLATE = [f"p/TimePoint_1/p_B0{well}_s{site}_w1.TIF" for well in (2, 3) for site in (1, 2)]

REAL = {
    "renamed/scan_O01f01d2.TIF": ("O01", 1, "2", 0),
}
"""Names that instruments wrote, and the well, site, channel and plane that they give."""


def test_imagexpress_is_proposed_where_most_names_look_like_it() -> None:
    text = suggest([*PLATE, "p/p.HTD", "notes.png"])
    assert text is not None
    assert text.startswith("4 of 5 names")
    assert "--layout imagexpress" in text


def test_harmony_is_proposed_where_most_names_look_like_it() -> None:
    text = suggest(["Images/r03c03f02p01-ch1sk1fk1fl1.tiff", "Images/Index.idx.xml"])
    assert text is not None
    assert "--layout harmony" in text


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("CV8000-Minimal-DataSet-2C-3W-4S-FP2-stack_D08_T0001F004L01A02Z04C02.tif", "cellvoyager"),
        ("A - 01(fld 1 wv 390 - Blue z 3 time 2 - 2636ms).tif", "incell"),
        ("x/A_01_f2_c1_xUV_mDAPI_z3_t1.tif", "incell"),
        ("t1_D04_s1_w1_z3.tif", "incell"),
        ("experiment_z_stack/timepoint0/test_data_t0_C05_s0_w1_z0.tif", "hcsai"),
        ("AS_09047/AS_09047_050428030001_O01f01d2.TIF", "cellomics"),
        ("s_Plate_R_p00_0_A01f00d1.TIF", "evos"),
        ("--W00001--P00002--Z00000--T00000--cherry.tif", "scanr"),
        ("Projection/W0029F0001T0001Z000C1.tif", "cellvoyager"),
        ("Channel2-84-G-12.tif", "sbs"),
        ("images/Channel 1-01-A-01-00.tif", "sbs"),
        ("Plate_2_images/D6_01_1_2_DAPI_001.tif", "cytation"),
        ("image--L00--S00--U01--V00--J20--E00--O00--X00--Y01--T00--Z00--C01.ome.tif", "leica"),
        ("Pos0/img_channel000_position000_time000000000_z000.tif", "micromanager"),
        ("Pos0/img_000000000_DAPI_000.tif", "micromanager"),
        ("1.4compatTest_3_MMStack_1-Pos_000_001.ome.tif", "micromanager"),
        ("demoplate_01--fsk--0.008--W0001--P001--T0002--C00.tif", "almf"),
        ("EMBO_2012_Group3--empty--empty--W0002--P001--T00019--Z002--C.tif", "almf"),
        ("A172_Phase_A7_1_00d00h00m_1.tif", "incucyte"),
        ("EssenFiles/ScanData/2505/16/0930/1234/A1-1-Ph.tif", "incucyte"),
    ],
)
def test_the_layout_of_an_instrument_is_proposed_and_reads_its_names(name: str, layout: str) -> None:
    text = suggest([name, name.replace("1.", "2.")])
    assert text is not None
    assert text.endswith(f"did you mean --layout {layout}?")
    kind = next(kind for kind in kinds() if kind.name == layout)
    assert isinstance(kind.of(kind.settings(kind=layout), "plate").parse(name), Parsed)


def test_the_pattern_that_reads_the_names_of_other_instruments_is_proposed_as_it_can_be_typed() -> None:
    for name, (well, site, channel, plane) in REAL.items():
        text = suggest([name, name.replace("1.", "2."), "README.md"])
        assert text is not None, name
        command = shlex.split(text.partition("did you mean ")[2].removesuffix("?"))
        assert command[:3] == ["--layout", "pattern", "--set"]
        setting, _, pattern = command[3].partition("=")
        assert setting == "run.layout.pattern"
        parsed = compile_pattern(PatternSettings(kind="pattern", pattern=pattern), "plate").parse(name)
        assert isinstance(parsed, Parsed), name
        assert (parsed.field.well, parsed.field.site, parsed.channel, parsed.plane) == (
            well,
            site,
            channel,
            plane,
        )


def test_nothing_is_proposed_for_other_names() -> None:
    assert suggest([*PLATE[:1], "a.png", "b.png"]) is None
    assert suggest(["B02.tif", "B03.tif"]) is None
    assert (
        suggest(["20P1_POS0005_D_1UL.tif", "day3_drug_A01_1.png", "img_channel000_z000.tif", "a-ch1.tif"])
        is None
    )
    assert suggest([]) is None


def pairs(*stems: str, folder: str = "A9") -> list[tuple[str, str]]:
    return sorted((folder, stem) for stem in stems)


def test_two_channels_that_differ_by_a_letter_are_pointed_out_with_the_pattern_that_reads_them() -> None:
    stems = [f"A9 p{number}{channel}" for number in (5, 7, 9, 10) for channel in "df"]
    told = channel_endings(pairs(*stems))
    assert told is not None
    assert "8 of 8 images" in told
    assert "'A9 p10d' and 'A9 p10f'" in told
    pattern = re.search(r"run\.layout\.pattern=(.*?)' --channel d", told)
    assert pattern is not None
    layout = compile_pattern(PatternSettings(pattern=pattern[1]), "plate")
    read = [layout.parse(f"A9/{stem}.tif") for stem in stems]
    assert {(one.field.well, one.channel) for one in read if isinstance(one, Parsed)} == {
        (f"A9 p{number}", channel) for number in (5, 7, 9, 10) for channel in "df"
    }


def test_stains_behind_a_separator_are_pointed_out_too() -> None:
    told = channel_endings(pairs("x_DAPI", "x_GFP", "y_DAPI", "y_GFP"))
    assert told is not None
    assert "(?P<channel>DAPI|GFP)" in told


@pytest.mark.parametrize(
    "stems",
    [
        ("a", "b", "c"),
        ("img1a", "img1b", "img2a", "img2b"),
        ("dog_left", "cat_up", "x"),
        ("img_1", "img_2", "img_3", "img_4"),
        ("A01", "A02", "B01", "B02"),
        ("x_DAPI", "x_GFP", *(f"other {number}" for number in range(9))),
        ("p5d", "p5f", "p6d", "p7f", "p8d", "p9f"),
    ],
)
def test_other_names_are_taken_for_images(stems: tuple[str, ...]) -> None:
    assert channel_endings(pairs(*stems)) is None
