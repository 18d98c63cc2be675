"""Overlays: every counted object can be told from its neighbours."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cellcount_core.report.overlay import (
    PALETTE,
    ROLE_COLOURS,
    Layer,
    SheetTile,
    class_colour,
    contact_sheet,
    grey_image,
    neighbour_colours,
    overlay_image,
    overlay_png,
    overlay_size,
    picture_of,
    roles_legend,
    round_length,
)
from tests.often import often


def decoded(png: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image[..., ::-1], np.uint8)


def colours_in(image: NDArray[np.uint8]) -> set[tuple[int, ...]]:
    return {colour for colour in PALETTE if (image == np.asarray(colour, np.uint8)).all(axis=2).any()}


def two_halves() -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """A bright square cut into two objects down its middle."""
    plane = np.random.default_rng(1).normal(300, 5, (100, 120)).astype(np.uint16)
    labels = np.zeros((100, 120), np.int32)
    labels[30:70, 40:60], labels[30:70, 60:80] = 1, 2
    plane[labels > 0] += 900
    return plane, labels


@settings(max_examples=often(40), deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 120))
def test_objects_that_touch_never_share_a_colour_and_six_colours_suffice(seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    seeds = np.ones((60, 70), np.uint8)
    seeds.ravel()[rng.choice(seeds.size, number, replace=False)] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L1, 3, labelType=cv2.DIST_LABEL_PIXEL)
    colours = neighbour_colours(labels)
    assert colours.max() < len(PALETTE)
    for one, two in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        assert (colours[one][one != two] != colours[two][one != two]).all()


def test_near_neighbours_across_a_gap_differ_in_colour_too() -> None:
    labels = np.zeros((20, 40), np.int32)
    labels[5:15, 2:12], labels[5:15, 15:25], labels[5:15, 28:38] = 4, 9, 2
    colours = neighbour_colours(labels)
    assert colours[4] != colours[9] != colours[2]


def test_an_outline_lies_inside_its_object_and_touching_objects_have_two_colours() -> None:
    plane, labels = two_halves()
    image = overlay_image(plane, Layer(labels))
    factor = image.shape[0] // plane.shape[0]
    shown = np.kron(labels, np.ones((factor, factor), np.int32))
    coloured = np.ptp(image.astype(int), axis=2) > 0
    assert not coloured[shown == 0].any()
    left, right = colours_in(image[:, : 60 * factor]), colours_in(image[:, 60 * factor :])
    assert len(left) == len(right) == 1
    assert left != right
    middle = image[50 * factor, 58 * factor : 62 * factor]
    assert colours_in(middle[None]) == left | right, "the border between the two is drawn from both sides"


def test_the_inside_of_an_object_stays_as_it_was() -> None:
    plane, labels = two_halves()
    image = overlay_image(plane, Layer(labels))
    assert colours_in(image[450:460, 450:460]) == set()


def test_a_field_without_objects_has_no_outline() -> None:
    plane, labels = two_halves()
    assert colours_in(overlay_image(plane, Layer(np.zeros_like(labels)))) == set()


def test_an_empty_field_is_shown_dark_and_not_as_noise_at_full_scale() -> None:
    empty = np.random.default_rng(2).normal(300, 12, (200, 200)).astype(np.uint16)
    assert np.percentile(grey_image(empty), 99) < 140
    full = empty.copy()
    full[50:90, 50:90] += 2000
    assert np.median(grey_image(full)[55:85, 55:85]) > 240
    assert np.median(grey_image(full)) < 40


def test_a_bright_background_is_shown_grey_so_that_what_is_darker_and_what_is_brighter_show() -> None:
    plane = np.random.default_rng(2).normal(30_000, 300, (200, 200))
    plane[50:90, 50:90] -= 8_000
    plane[60:70, 60:70] += 14_000
    shown = grey_image(plane.astype(np.uint16))
    assert 140 < np.median(shown) < 200
    assert np.median(shown[52:58, 52:88]) < 60
    assert np.median(shown[62:68, 62:68]) > 220
    assert np.percentile(shown, 99) - np.percentile(shown, 1) < 200


def test_planes_of_one_value_and_of_floats_are_shown() -> None:
    assert grey_image(np.full((9, 9), 7, np.uint8)).shape == (9, 9)
    assert grey_image(np.linspace(-1, 1, 81, dtype=np.float32).reshape(9, 9)).dtype == np.uint8


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((512, 512), (1024, 1024)),
        ((1, 1), (900, 900)),
        ((2160, 2160), (1600, 1600)),
        ((1000, 4000), (1600, 400)),
        ((900, 600), (600, 900)),
    ],
)
def test_fields_are_shown_at_a_size_for_the_screen(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert overlay_size(shape) == size


def test_labels_of_another_image_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        overlay_image(np.zeros((4, 5), np.uint16), Layer(np.zeros((5, 4), np.int32)))


def test_the_caption_lies_below_the_image_and_the_image_is_unchanged_above_it() -> None:
    plane, labels = two_halves()
    image, png = (
        overlay_image(plane, Layer(labels)),
        decoded(overlay_png(overlay_image(plane, Layer(labels)), caption="P A01 site 1")),
    )
    assert png.shape[1] == image.shape[1]
    assert png.shape[0] > image.shape[0]
    assert np.array_equal(png[: image.shape[0]], image)
    assert (png[image.shape[0] :, :400] > 200).any(), "text"


def test_there_is_a_scale_bar_of_the_right_length_only_where_the_pixel_size_is_known() -> None:
    plane, labels = two_halves()
    image = overlay_image(plane, Layer(labels))
    bare = decoded(overlay_png(image, caption="x"))
    scaled = decoded(overlay_png(image, caption="x", um_per_px=0.65 / 8))
    differ = np.argwhere((bare != scaled).any(axis=2))
    assert differ[:, 0].min() >= 800, "the image itself is the same"
    bottom = scaled[-10, :, 0] > 200
    # 20 % of 120 px * 0.65 um are 15.6 um: a bar of 10 um, which is 15.4 px or 8 times as many on the screen.
    assert int(bottom.sum()) == pytest.approx(10 / 0.65 * 8, abs=2)


@pytest.mark.parametrize(
    ("um", "bar"), [(0.7, 0.5), (1.0, 1.0), (15.6, 10.0), (49.0, 20.0), (50.0, 50.0), (999.0, 500.0)]
)
def test_scale_bars_have_round_lengths(um: float, bar: float) -> None:
    assert round_length(um) == pytest.approx(bar)


def test_a_sheet_holds_all_tiles_and_one_without_an_image_too() -> None:
    plane, labels = two_halves()
    image = overlay_image(plane, Layer(labels))
    one = decoded(contact_sheet([SheetTile("A01", image)]))
    four = decoded(contact_sheet([SheetTile("A01", image)] * 3 + [SheetTile("F05", None, "truncated file")]))
    assert four.shape[1] > 2 * one.shape[1]
    assert four.shape[0] > 1.5 * one.shape[0]
    last = four[four.shape[0] // 2 :, : four.shape[1] // 3]
    assert not colours_in(last)
    assert (last > 200).any(), "the note"


def test_equal_arrays_give_equal_pictures() -> None:
    plane, labels = two_halves()
    image = overlay_image(plane, Layer(labels))
    assert overlay_png(image, caption="x") == overlay_png(image, caption="x")
    assert contact_sheet([SheetTile("µ 漢", image)], title="t") == contact_sheet(
        [SheetTile("µ 漢", image)], title="t"
    )


def test_a_long_note_stays_in_its_tile() -> None:
    image = np.full((40, 40, 3), 200, np.uint8)
    note = "TRUNCATED_FILE: /data/screens/plate_000123/Images/r01c02f001p01-ch1sk1fk1fl1.tiff: strip 17 of 32 is cut off"
    short, long = (
        decoded(
            contact_sheet([SheetTile("A01", image), SheetTile("A02", None, text), SheetTile("A03", image)])
        )
        for text in ("cut off", note)
    )
    third = short.shape[1] // 3
    np.testing.assert_array_equal(long[:, :third], short[:, :third])
    np.testing.assert_array_equal(long[:, -third:], short[:, -third:])
    assert (long != short).any()


def test_letters_of_other_scripts_are_drawn_and_a_long_caption_ends_before_the_scale_bar() -> None:
    image = np.zeros((200, 500, 3), np.uint8)
    drawn = {text: overlay_png(image, caption=text) for text in ("µ", "Ж", "漢", "?")}
    assert len(set(drawn.values())) == 4
    short, long = (
        decoded(overlay_png(image, caption=text, um_per_px=0.5)) for text in ("x", "a long name " * 20)
    )
    # 20 % of 500 px are 50 µm, which are 100 px.
    assert np.array_equal(short[200:, -124:], long[200:, -124:])
    assert (short[200:, 100:370] != long[200:, 100:370]).any()


@pytest.mark.slow
def test_overlays_need_no_matplotlib() -> None:
    code = "import sys, cellcount_core.report.pictures; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_boxes_have_the_colour_of_their_class_and_the_legend_counts_them() -> None:
    boxes = np.array([[10.0, 20.0, 30.0, 50.0], [40.0, 60.0, 90.0, 80.0], [70.0, 10.0, 90.0, 30.0]])
    layer = Layer(boxes=boxes, classes=np.array([0, 1, 0]), names=("round", "long", "none"))
    image = overlay_image(np.full((100, 100), 500, np.uint16), layer)
    assert image.shape == (900, 900, 3)
    for (y0, x0, y1, x1), place in zip(boxes, (0, 1, 0), strict=True):
        for y, x in ((y0, x0), (y0, x1), (y1, x0), (y1, x1)):
            corner = image[int(9 * y) - 3 : int(9 * y) + 3, int(9 * x) - 3 : int(9 * x) + 3].reshape(-1, 3)
            assert class_colour(place) in set(map(tuple, corner.tolist()))
    assert colours_in(image) == {PALETTE[0], PALETTE[1]}
    assert [(entry.name, entry.number) for entry in layer.legend()] == [
        ("round", 2),
        ("long", 1),
        ("none", 0),
    ]
    plain, told = (decoded(overlay_png(image, caption="x", legend=each)) for each in ((), layer.legend()))
    assert told.shape[0] > plain.shape[0]
    assert {PALETTE[0], PALETTE[1], PALETTE[2]} <= colours_in(told[plain.shape[0] - 10 :])


def test_outlines_of_labels_have_the_colour_of_their_class_too() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[4:14, 4:14], labels[4:14, 14:24], labels[25:35, 25:35] = 1, 2, 3
    image = overlay_image(np.zeros((40, 40), np.uint16), Layer(labels, classes=np.array([1, 1, 0])))
    assert colours_in(image) == {PALETTE[0], PALETTE[1]}


def test_a_colour_image_is_shown_in_its_colours() -> None:
    red, other = np.full((50, 60), 200, np.uint8), np.full((50, 60), 10, np.uint8)
    picture = picture_of({"blue": other, "red": red, "green": other}, 255)
    assert picture.shape == (50, 60, 3)
    assert tuple(picture[0, 0]) == (200, 10, 10)
    assert tuple(overlay_image(picture)[0, 0]) == (200, 10, 10)
    assert picture_of({"w1": red}) is red


def test_channels_of_several_roles_are_shown_together_each_in_its_colour() -> None:
    """Left half live (the first role alone), right half dead (both); crosstalk far below the threshold stays dark."""
    plane, labels = two_halves()
    dead = np.random.default_rng(2).normal(300, 5, plane.shape).astype(np.uint16)
    dead[labels == 1] += 90
    faint = dead.copy()
    dead[labels == 2] += 900
    picture = picture_of({"w1": plane, "w2": dead})
    assert picture.shape == (*plane.shape, 3)
    live_colour, dead_colour = (np.median(picture[labels == label], axis=0) for label in (1, 2))
    assert live_colour[1] > 2 * max(live_colour[0], live_colour[2])
    assert dead_colour.min() > 150
    spilled = picture_of({"w1": plane, "w2": faint}, full={"w2": 900.0})
    assert np.median(spilled[labels == 1][:, 0]) < 60
    assert np.median(spilled[labels == 0]) == 0


def test_roles_called_after_colours_are_shown_in_them() -> None:
    plane, labels = two_halves()
    dark = np.random.default_rng(2).normal(300, 5, plane.shape).astype(np.uint16)
    roles = ("red", "green", "blue", "yellow")
    for place, colour in enumerate(((1, 0, 0), (0, 1, 0), None, (1, 1, 0))):
        picture = picture_of({f"w{at}": plane if at == place else dark for at in range(4)}, roles=roles)
        if colour is not None:
            assert ((np.median(picture[labels == 1], axis=0) > 150) == np.array(colour, bool)).all()
    legend = roles_legend(dict(zip(roles, ("w1", "w2", "w3", "w4"), strict=True)))
    assert [(entry.text, entry.colour) for entry in legend][::3] == [
        ("stain: red (w1)", (255, 0, 0)),
        ("stain: yellow (w4)", (255, 255, 0)),
    ]


def test_the_sheet_says_what_its_colours_stand_for() -> None:
    stains = roles_legend({"all": "w1", "dead": "w2"})
    assert [entry.text for entry in stains] == ["stain: all (w1)", "stain: dead (w2)"]
    assert (
        roles_legend({"nuclei": "w1"}) == roles_legend({"red": "red", "green": "green", "blue": "blue"}) == ()
    )
    image = np.zeros((660, 660, 3), np.uint8)
    sheet = decoded(contact_sheet([SheetTile("A01", image)], title="t", legend=stains))
    for colour in ROLE_COLOURS[:2]:
        assert (sheet == np.array(colour)).all(axis=-1).any()
