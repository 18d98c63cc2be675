"""The layouts that read names, each held to the contract."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellcount_core.domain.fields import Parsed
from cellcount_core.layouts.base import Ignored
from cellcount_core.layouts.flat import FlatSettings
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.layouts.pattern import PatternSettings
from tests.contract.layouts.layout_contract import LayoutContract


class TestFlat(LayoutContract):
    config = FlatSettings()
    example = "folder/image 1.png"


class TestImageXpress(LayoutContract):
    config = ImageXpressSettings()
    example = "plate/TimePoint_1/plate_B02_s1_w1.TIF"


class TestPattern(LayoutContract):
    config = PatternSettings(pattern=r"Channel(?P<channel>\d)-\d+-(?P<row>[A-H])-(?P<column>\d+)\.tif")
    example = "sbs/Channel2-01-A-01.tif"


_SEGMENT = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
)
_ENDING = st.sampled_from(["", ".tif", ".TIF", ".png", ".npz", ".ome.tif", ".xml"])
_KEYS = st.builds(
    lambda parts, end: "/".join(parts) + end,
    st.lists(
        st.one_of(_SEGMENT, st.sampled_from(["B02", "p_B02_s1", "ZStep_2", "Channel1-01-A-01"])), min_size=1
    ),
    _ENDING,
)


@pytest.mark.parametrize("contract", [TestFlat, TestImageXpress, TestPattern])
@settings(max_examples=150, deadline=None)
@given(key=_KEYS)
def test_any_name_is_read_ignored_or_left_unparsed_and_always_the_same(
    contract: type[LayoutContract], key: str
) -> None:
    layout = contract().layout()
    answer = layout.parse(key)
    assert answer == layout.parse(key)
    if isinstance(answer, Parsed):
        assert answer.field.plate
        assert answer.field.well
        assert answer.field.site >= 0
        assert answer.plane >= 0
    else:
        assert answer is None or (isinstance(answer, Ignored) and answer.why)
