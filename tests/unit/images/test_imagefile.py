"""Axes that are declared, described or told by shape; what could be two things is refused with the setting that says which."""

from __future__ import annotations

import numpy as np
import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.images.decode import open_image
from cellcount_core.images.imagefile import Declared
from tests.unit.images.encoded import Array, noise, npy, npz, opened, refusal, tiff

RGB = ("red", "green", "blue")


def declared(body: bytes, axes: str = "", pages: str = "") -> object:
    return open_image(body, "a", max_pixels=10_000_000, declared=Declared(axes, pages))  # type: ignore[arg-type]


def test_channels_that_come_last_are_told_by_their_shape() -> None:
    for channels in (2, 5, 8):
        pixels = noise(90, 70, channels)
        for body in (
            npy(pixels),
            npz(X=pixels),
            npy(np.asfortranarray(pixels)),
            tiff(pixels),
            tiff(pixels, metadata=None),
            tiff(pixels, compression="deflate", metadata=None),
            tiff(pixels, imagej=True),
            tiff(pixels, planarconfig="contig"),
            tiff(np.moveaxis(pixels, 2, 0).copy(), planarconfig="separate"),
        ):
            image = opened(body)
            assert (image.shape, image.images, image.planes) == ((90, 70), 1, 1)
            assert image.channels == tuple(str(number) for number in range(channels))
            for number, name in enumerate(image.channels):
                np.testing.assert_array_equal(image.read(name, 0), pixels[:, :, number])


def test_colours_of_an_array_are_colours_and_alpha_is_dropped() -> None:
    pixels = noise(60, 50, 3, dtype="uint8")
    alpha = np.dstack([pixels, np.full((60, 50), 255, np.uint8)])
    for saved in (pixels, alpha, np.stack([alpha] * 2), np.stack([pixels] * 2)):
        image = opened(npz(X=saved))
        assert image.channels == RGB
        np.testing.assert_array_equal(image.read("blue", 0, image.images - 1), pixels[:, :, 2])
    # Four samples of which the last is no alpha are channels to choose from.
    assert opened(npy(noise(60, 50, 4, dtype="uint8"))).channels == ("0", "1", "2", "3")
    assert opened(npy(noise(4, 60, 50, 5))).channels == ("0", "1", "2", "3", "4")


def test_a_stack_of_few_images_says_that_it_might_be_channels() -> None:
    assert opened(npy(noise(3, 20, 30))).warnings == ("images_or_channels",)
    assert opened(npy(noise(9, 20, 30))).warnings == ()
    image = declared(npy(noise(3, 20, 30)), "NYX")
    assert (image.images, image.warnings) == (3, ())  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["npy", "tiff", "described"])
def test_slivers_are_no_images_and_are_refused_with_the_setting_that_says_what_they_are(kind: str) -> None:
    write = {
        "npy": npy,
        "tiff": lambda pixels: tiff(pixels, metadata=None),
        "described": lambda pixels: tiff(pixels, metadata={"axes": "ZYX"}),
    }[kind]
    for shape in ((5, 90, 3), (5, 3, 90), (200, 200, 60), (6, 400, 40), (3, 200)):
        fault = refusal(write(noise(*shape)))
        assert fault.reason is Reason.WRONG_SHAPE, shape
        assert "run.axes" in fault.detail, shape


def test_an_ome_header_that_describes_slivers_is_refused() -> None:
    fault = refusal(tiff(noise(90, 80, 2), ome=True))
    assert (fault.reason, "run.axes" in fault.detail) == (Reason.WRONG_SHAPE, True)


def test_many_pages_that_nothing_describes_are_not_taken_for_channels() -> None:
    fault = refusal(tiff(noise(17, 20, 20), metadata=None))
    assert (fault.reason, "run.pages" in fault.detail) == (Reason.WRONG_SHAPE, True)
    assert len(declared(tiff(noise(17, 20, 20), metadata=None), pages="channel").channels) == 17  # type: ignore[attr-defined]
    with pytest.raises(
        FieldFault, match=r"numbered from 0; if they are z planes or time points, say so: --set run\.pages=z"
    ):
        opened(tiff(noise(3, 20, 20), metadata=None)).read("", 0)


def plane(pixels: Array, axes: str, channel: int, z: int, index: int) -> Array:
    """The same plane, taken from the array."""
    at = {"C": channel, "Z": z, "T": index, "N": index}
    taken = pixels[tuple(slice(None) if letter in "YX" else at[letter] for letter in axes)]
    return taken if axes.index("Y") < axes.index("X") else taken.T


@pytest.mark.parametrize(
    "axes", ["YXC", "CYX", "ZYX", "TYX", "NYX", "YXZ", "XYC", "CZYX", "ZCYX", "TZYXC", "TZCYX", "YCX"]
)
def test_declared_axes_are_obeyed_in_every_format(axes: str) -> None:
    sizes = {"Y": 24, "X": 30, "C": 2, "Z": 3, "T": 4, "N": 4}
    pixels = noise(*[sizes[letter] for letter in axes])
    bodies = [
        npy(pixels),
        npz(X=pixels),
        npy(np.asfortranarray(pixels)),
        tiff(pixels),
        tiff(pixels, ome=True),
    ]
    if len(axes) == 3:
        bodies += [tiff(pixels, metadata=None, **options) for options in ({}, {"compression": "deflate"})]
    for body in bodies:
        image = open_image(body, "a", max_pixels=100_000, declared=Declared(axes))
        found = (image.shape, len(image.channels), image.planes, image.images)
        wanted = [sizes[letter] if letter in axes else 1 for letter in "CZ"]
        assert found == ((24, 30), *wanted, 4 if set("NT") & set(axes) else 1)
        for number, name in enumerate(image.channels):
            for z in range(image.planes):
                for index in range(image.images):
                    np.testing.assert_array_equal(
                        image.read(name, z, index), plane(pixels, axes, number, z, index)
                    )


def test_declared_colours_are_colours_wherever_they_stand() -> None:
    pixels = noise(24, 30, 3, dtype="uint8")
    for axes, saved in (("YXS", pixels), ("SYX", np.moveaxis(pixels, 2, 0).copy())):
        for body in (npy(saved), npz(X=saved), tiff(saved, metadata=None)):
            image = declared(body, axes)
            assert image.channels == RGB  # type: ignore[attr-defined]
            np.testing.assert_array_equal(image.read("green", 0), pixels[:, :, 1])  # type: ignore[attr-defined]
    with pytest.raises(FieldFault, match="3 or 4 are one, channels are C"):
        declared(npy(noise(24, 30, 2)), "YXS")
    with pytest.raises(FieldFault, match=r"the file has 2 axes \(24, 30\) and run\.axes names 3"):
        declared(npy(noise(24, 30)), "YXC")


@pytest.mark.parametrize(
    "header",
    [{"metadata": None}, {"imagej": True, "metadata": {"axes": "ZYX"}}, {"metadata": {"axes": "TYX"}}],
)
def test_pages_are_what_they_are_declared_to_be(header: dict[str, object]) -> None:
    pixels = noise(5, 20, 30)
    body = tiff(pixels, **header)
    for pages, found in (("z", (1, 5, 1)), ("time", (1, 1, 5)), ("channel", (5, 1, 1))):
        image = open_image(body, "a", max_pixels=1000, declared=Declared(pages=pages))  # type: ignore[arg-type]
        assert (len(image.channels), image.planes, image.images) == found
        last = image.read(image.channels[-1], image.planes - 1, image.images - 1)
        np.testing.assert_array_equal(last, pixels[4])


def test_named_channels_stay_channels_whatever_pages_are() -> None:
    body = tiff(noise(3, 2, 20, 30), imagej=True, metadata={"axes": "ZCYX", "Labels": ["DAPI", "GFP"] * 3})
    for pages in ("z", "time"):
        image = open_image(body, "a", max_pixels=1000, declared=Declared(pages=pages))  # type: ignore[arg-type]
        assert image.channels == ("DAPI", "GFP")


def test_settings_that_are_no_axes_are_refused() -> None:
    for axes in ("YX1", "YY", "YC", "NTYX", "YXCS", ""):
        with pytest.raises(ValueError, match="axes"):
            RunConfig.model_validate({"axes": axes})
    with pytest.raises(ValueError, match="give one of them"):
        RunConfig.model_validate({"axes": "ZYX", "pages": "z"})
    assert RunConfig.model_validate({"axes": "yxc"}).axes == "YXC"
