from __future__ import annotations

from cellcount_core.layouts.hint import suggest

PLATE = [f"p/TimePoint_1/p_B0{well}_s{site}_w1.TIF" for well in (2, 3) for site in (1, 2)]


def test_imagexpress_is_proposed_where_most_names_look_like_it() -> None:
    text = suggest([*PLATE, "p/p.HTD", "notes.png"])
    assert text is not None
    assert text.startswith("4 of 5 names")
    assert "--layout imagexpress" in text


def test_nothing_is_proposed_for_other_names() -> None:
    assert suggest([*PLATE[:1], "a.png", "b.png"]) is None
    assert suggest(["B02.tif", "B03.tif"]) is None
    assert suggest([]) is None
