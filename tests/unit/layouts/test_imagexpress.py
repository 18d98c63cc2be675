from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import WellPosition
from cellcount_core.layouts.base import Ignored
from cellcount_core.layouts.imagexpress import KIND, ImageXpress
from cellcount_core.layouts.metadata import Unreadable
from tests.contract.layouts.layout_contract import HTD
from tests.often import often

GUID = "E94C24BD-45E4-450A-9919-257C714278F7"

_PLATES = st.text(
    st.characters(exclude_characters="/\0\n\r", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda name: not name.startswith("."))


@settings(max_examples=often(300), deadline=None)
@given(
    plate=_PLATES,
    well=st.builds(WellPosition, st.integers(0, 31), st.integers(0, 47)),
    site=st.integers(1, 400),
    channel=st.integers(1, 7),
    timepoint=st.integers(1, 999),
    plane=st.integers(0, 99),
    guid=st.one_of(
        st.just(""), st.builds(lambda number: str(UUID(int=number)).upper(), st.integers(0, 2**128 - 1))
    ),
    extension=st.sampled_from(["tif", "TIF"]),
)
def test_every_name_that_the_instrument_writes_is_read_back(
    plate: str,
    well: WellPosition,
    site: int,
    channel: int,
    timepoint: int,
    plane: int,
    guid: str,
    extension: str,
) -> None:
    folder = "exported/2024-04-22/1697"
    name = f"{plate}_{well.name}_s{site}_w{channel}{guid}.{extension}"
    key = f"{folder}/TimePoint_{timepoint}/ZStep_{plane}/{name}"
    parsed = ImageXpress("PX").parse(key)
    assert parsed == Parsed(FieldKey(plate, well.name, site, timepoint), f"w{channel}", plane, folder)


@pytest.mark.parametrize(
    ("name", "field", "channel"),
    [
        ("9987_B02.TIF", ("9987", "B02", 1), "w1"),
        ("9987_B02_s2.TIF", ("9987", "B02", 2), "w1"),
        ("9987_B02_w3.TIF", ("9987", "B02", 1), "w3"),
        ("exp_A01_B02_s1_w2.tif", ("exp_A01", "B02", 1), "w2"),
        ("Week1_150607_C10_s1_w171173D63-FDAC-457A-9E33-9A97B4B33AB3.tif", ("Week1_150607", "C10", 1), "w1"),
        ("p_AF48_s1_w1.tif", ("p", "AF48", 1), "w1"),
        ("B02_s4_w1.TIF", ("scan", "B02", 4), "w1"),
    ],
)
def test_parts_that_a_name_leaves_out_get_their_defaults(
    name: str, field: tuple[str, str, int], channel: str
) -> None:
    parsed = ImageXpress("PX").parse(f"scan/{name}")
    assert parsed == Parsed(FieldKey(*field, 1), channel, 0, "scan")


@pytest.mark.parametrize(
    "name", [f"p_E07_s1_w1_thumb{GUID}.tif", f"exp126-d0_C03_thumb{GUID}.tif", "p_E07_thumb.TIF"]
)
def test_thumbnails_are_ignored(name: str) -> None:
    assert ImageXpress("PX").parse(name) == Ignored("thumbnail")


@pytest.mark.parametrize(
    "name",
    [
        "photo.tif",
        "p_Z99_s1_w1.tif",
        "p_B49_s1.tif",
        "p_s1_w1.tif",
        "p_B02_s1_w1_z3.tif",
        "p_B02_s1_w1.png",
        f"p_B02_s1_wx{GUID}.tif",
        "p_B02_s1_w1E94C24BD-45E4.tif",
    ],
)
def test_other_images_do_not_parse(name: str) -> None:
    assert ImageXpress("PX").parse(name) is None


def test_a_file_outside_the_z_folders_and_one_in_zstep_0_are_the_projection() -> None:
    layout = ImageXpress("PX")
    for folder in ("TimePoint_1", "TimePoint_1/ZStep_0"):
        parsed = layout.parse(f"{folder}/p_B02_s1_w1.TIF")
        assert isinstance(parsed, Parsed)
        assert parsed.plane == KIND.traits.projection_plane == 0


def test_an_htd_that_says_no_site_selection_keeps_all_else_and_expects_nothing() -> None:
    whole = HTD.decode("latin-1").split("\r\n")
    without = "\r\n".join(line for line in whole if "SiteSelection" not in line).encode("latin-1")
    [before], [after] = (ImageXpress("p").describe({"P/P.HTD": body}) for body in (HTD, without))
    assert before.expected
    assert not after.expected
    assert (after.channels, after.rows, after.columns) == (before.channels, before.rows, before.columns)
    assert "no SiteSelection line" in after.notes[0]
    one = "\r\n".join(line for line in whole if "SiteSelection2" not in line).encode("latin-1")
    with pytest.raises(Unreadable, match="no line SiteSelection2"):
        ImageXpress("p").describe({"P/P.HTD": one})
