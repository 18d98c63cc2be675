"""Which planes and channels of a field's files are counted, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import pytest

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.domain.fields import FieldKey, PlannedField, Selection, Source
from cellcount_core.images.imagefile import as_declared
from cellcount_core.images.normalise import estimate
from cellcount_core.pipeline.doubts import colour_doubts
from cellcount_core.pipeline.files import LoadedFile
from cellcount_core.pipeline.pixels import Pixels, load_pixels
from tests.fields import loaded
from tests.unit.images.encoded import noise, npy, raster, tiff
from tests.unit.images.test_ome_sets import A, B, block, by_channel, pages, xml

UNNAMED = Selection("nuclei", "")
DAPI = Selection("DAPI", "DAPI")


def load(
    bodies: Mapping[str, bytes],
    selection: Selection = UNNAMED,
    *,
    sources: Sequence[Source] = (),
    others: Mapping[str, bytes] | None = None,
    **run: object,
) -> Pixels:
    """The pixels of a field of all these files, or of `sources`."""
    config = RunConfig.model_validate(run)
    files = {
        key: LoadedFile(
            key,
            body,
            len(body),
            config.max_pixels,
            declared=as_declared(config.axes, config.pages),
            beside=({**bodies, **(others or {})}).get,
        )
        for key, body in bodies.items()
    }
    sources = sources or [Source("", 0, key) for key in bodies]
    planned = PlannedField(FieldKey("P", "A01", 1, 1), tuple(sources))
    return load_pixels(planned, files, (selection,), (), config)


def refused(bodies: Mapping[str, bytes], selection: Selection = UNNAMED, **given: object) -> FieldFault:
    with pytest.raises(FieldFault) as caught:
        load(bodies, selection, **given)  # type: ignore[arg-type]
    return caught.value


def test_the_planes_that_were_joined_are_counted() -> None:
    stack = {"a.tif": tiff(noise(5, 20, 30), metadata={"axes": "ZYX"})}
    for z, joined in (("max", 5), ("mean", 5), ("first", 1), (3, 1)):
        assert load(stack, z=z).joined == joined, z
    assert load({"a.tif": tiff(noise(5, 20, 30), metadata=None)}, pages="z").joined == 5
    fault = refused(stack, z=0)
    assert (fault.reason, "count from 1" in fault.detail) == (Reason.WRONG_SHAPE, True)
    named = {f"z{n}.tif": tiff(noise(20, 30, seed=n)) for n in range(3)}
    sources = [Source("", n, f"z{n}.tif") for n in range(3)]
    assert load(named, sources=sources).joined == 3
    assert load(named, sources=sources, z=0).joined == 1
    assert load({"a.tif": tiff(noise(20, 30))}).joined == 1


def test_a_projection_takes_the_planes_of_a_set_wherever_they_lie() -> None:
    data = block(A, IFD=0, FirstZ=0) + block(B, IFD=0, FirstZ=1)
    bodies = {file[0]: pages([value], xml(data, c=1, z=2, uuid=file[1])) for file, value in ((A, 5), (B, 9))}
    first, second = ({name: body} for name, body in bodies.items())
    found = load(first, DAPI, others=bodies)
    assert (int(found.planes["DAPI"].max()), found.joined) == (9, 2)
    # Counted once: the row of the file that holds the first plane is that of the image.
    fault = refused(second, DAPI, others=bodies)
    assert (fault.reason, fault.reason.status.value) == (Reason.PART_OF_SET, "skipped")
    # Where names tell planes apart, each file is its own plane.
    sources = [Source("", n + 1, name) for n, name in enumerate(bodies)]
    found = load(bodies, DAPI, sources=sources)
    assert (int(found.planes["DAPI"].max()), found.joined) == (9, 2)
    assert int(load(bodies, DAPI, sources=sources, z=2).planes["DAPI"].max()) == 9
    assert int(load(second, DAPI, sources=sources[1:], others=bodies).planes["DAPI"].max()) == 9


def test_a_stack_whose_last_planes_are_not_written_says_so_though_they_are_joined() -> None:
    whole = noise(5, 40, 30) | 1
    cut, half = whole.copy(), whole.copy()
    cut[-2:], half[-1, 20:] = 0, 0
    clipped = np.where(cut > cut.mean(), cut, 0)
    for stack, told in ((whole, False), (cut, True), (half, True), (clipped, False), (0 * whole, False)):
        found = load({"a.tif": tiff(stack, metadata=None)}, pages="z")
        assert ("zero_tail" in found.warnings) == told
    assert load({"a.tif": tiff(cut, metadata=None)}, pages="z", z="first").warnings == ()


def test_a_channel_in_another_file_of_a_set_is_counted_in_its_row_and_one_has_to_be_named() -> None:
    bodies = {B[0]: pages([1, 2], xml(by_channel(), z=2, uuid=B[1]))}
    other = {A[0]: pages([1, 2], xml(by_channel(), z=2, uuid=A[1]))}
    assert refused(bodies, DAPI, others=other).reason is Reason.PART_OF_SET
    # Where that file is not there, nothing else tells of it.
    fault = refused(bodies, DAPI)
    assert (fault.reason, A[0] in fault.detail) == (Reason.ABSENT, True)
    by_name = [Source("", n + 1, file[0]) for n, file in enumerate((A, B))]
    assert refused(bodies | other, DAPI, sources=by_name).reason is Reason.CHANNEL_MISSING
    assert refused(bodies).reason is Reason.CHANNEL_UNKNOWN
    assert load(bodies, Selection("GFP", "GFP")).joined == 2
    # The name of the file says the channel, however the set calls it.
    assert load(bodies, Selection("C01", "C01"), sources=[Source("C01", 0, B[0])]).joined == 2


def test_a_channel_that_is_measured_is_read_in_whichever_file_of_the_set_it_lies() -> None:
    bodies = {
        file[0]: pages([n, n + 1], xml(by_channel(), z=2, uuid=file[1])) for file, n in ((A, 1), (B, 5))
    }
    config = RunConfig()
    file = LoadedFile(A[0], bodies[A[0]], len(bodies[A[0]]), config.max_pixels, beside=bodies.get)
    planned = PlannedField(FieldKey("P", "A01", 1, 1), (Source("", 0, A[0]),))
    found = load_pixels(planned, {A[0]: file}, (DAPI,), (DAPI, Selection("gfp", "gfp")), config)
    assert {name: int(plane.max()) for name, plane in found.planes.items()} == {"DAPI": 2, "gfp": 6}


def test_a_first_plane_that_is_nowhere_is_missing_and_not_left_to_another_row() -> None:
    data = block(A, IFD=0, FirstZ=0) + block(B, IFD=0, FirstZ=1)
    fault = refused({B[0]: pages([9], xml(data, c=1, z=2, uuid=B[1]))}, DAPI)
    assert fault.reason is Reason.ABSENT
    alone = {"a.tif": pages([9, 9], xml(block(IFD=1, FirstZ=1), c=1, z=2))}
    assert refused(alone, DAPI).reason is Reason.TRUNCATED


def test_of_channels_that_differ_in_size_the_file_of_the_odd_one_is_named() -> None:
    names = ("blue", "green", "red")
    for odd in names:
        config = RunConfig()
        bodies = {f"{name}.tif": tiff(noise(8, 9 if name == odd else 8)) for name in names}
        files = {key: LoadedFile(key, body, len(body), config.max_pixels) for key, body in bodies.items()}
        sources = tuple(Source(name, 0, f"{name}.tif") for name in names)
        planned = PlannedField(FieldKey("P", "A01", 1, 1), sources)
        with pytest.raises(FieldFault) as caught:
            load_pixels(planned, files, tuple(Selection(name, name) for name in names), (), config)
        assert (caught.value.reason, caught.value.key) == (Reason.WRONG_SHAPE, f"{odd}.tif")


def test_several_images_in_a_file_are_never_counted_as_one() -> None:
    fault = refused({"a.npy": npy(noise(9, 20, 30))})
    assert (fault.reason, "9 images" in fault.detail) == (Reason.WRONG_SHAPE, True)
    stack = npy(noise(9, 20, 30))
    assert load({"a.npy": stack}, sources=[Source("", 0, "a.npy", 4)]).joined == 1


def test_the_only_channel_without_a_name_is_the_one_asked_for_and_said_so() -> None:
    found = load({"a.tif": tiff(noise(20, 30))}, DAPI)
    assert (found.channel, found.warnings) == ("", ("channel_assumed:DAPI",))
    assert load({"a.tif": tiff(noise(20, 30))}).warnings == ()
    two = {"a.tif": tiff(noise(2, 20, 30), metadata={"axes": "CYX"})}
    assert refused(two, DAPI).reason is Reason.CHANNEL_UNKNOWN


def spots(shift: int) -> np.ndarray:
    grey = np.full((128, 128), 12, np.uint8)
    for y in range(20, 120, 30):
        for x in range(20, 100, 30):
            cv2.circle(grey, (x + shift, y), 6, (200,), -1)
    return grey


def test_colours_that_show_different_things_are_told_apart_from_grey_and_tints() -> None:
    rng = np.random.default_rng(0)
    one, two, nothing = spots(0), spots(14), np.zeros((128, 128), np.uint8)
    camera = np.clip(spots(0)[:, :, None] + rng.normal(0, 4, (128, 128, 3)), 0, 255).astype(np.uint8)
    empty = np.clip(40 + rng.normal(0, 4, (128, 128, 3)), 0, 255).astype(np.uint8)
    dim = np.dstack([nothing, one, (two // 8).astype(np.uint8)])
    for merged, differ in (
        (np.dstack([nothing, two, one]), True), (np.dstack([two, one, one]), True), (dim, True), (np.dstack([one] * 3), False),
        (np.dstack([nothing, nothing, one]), False), (np.dstack([one, one // 2, nothing]), False), (camera, False), (empty, False),
    ):  # fmt: skip
        for body in (raster(merged, ".png"), tiff(merged, photometric="rgb"), raster(merged, ".bmp")):
            found = load({"a": body})
            assert (found.channel, found.colours_differ) == ("luminance", differ)
            plane = next(iter(found.planes.values()))
            levels = estimate(plane)
            assert bool(colour_doubts(found, levels, loaded("threshold").package)) is differ
            assert colour_doubts(found, levels, loaded("histology").package) == ()
            # Of stained tissue no one colour is to be counted: another model is.
            tissue = estimate(plane, polarity="dark")
            assert colour_doubts(found, tissue, loaded("threshold").package) == ()
            blue = load({"a": body}, Selection("Blue", "Blue"))
            assert (blue.channel, blue.colours_differ) == ("", False)
            np.testing.assert_array_equal(blue.planes["Blue"], merged[:, :, 2])
    # A file whose name says the channel keeps that name.
    body = raster(np.dstack([nothing, two, one]), ".png")
    named = load({"a": body}, Selection("w1", "w1"), sources=[Source("w1", 0, "a")])
    assert (named.channel, named.colours_differ) == ("", True)


def test_a_pixel_size_that_cannot_be_is_null_and_said() -> None:
    bad = tiff(noise(20, 30), ome=True, metadata={"axes": "YX", "PhysicalSizeX": 5e-7, "PhysicalSizeY": 5e-7})
    found = load({"a.tif": bad})
    assert (found.um_per_px, found.warnings) == (None, ("calibration_out_of_range",))
    found = load({"a.tif": bad}, um_per_px=0.5)
    assert (found.um_per_px, found.warnings) == (0.5, ())


def test_the_pixel_size_that_metadata_files_state_wins_over_that_of_the_file() -> None:
    said = {"PhysicalSizeX": 6.45, "PhysicalSizeY": 6.45}
    body = tiff(noise(20, 30), ome=True, metadata={"axes": "YX", **said})
    planned = PlannedField(FieldKey("P", "A01", 1, 1), (Source("", 0, "a.tif"),), um_per_px=0.65)

    def loaded(config: RunConfig) -> Pixels:
        file = LoadedFile("a.tif", body, len(body), config.max_pixels)
        return load_pixels(planned, {"a.tif": file}, (UNNAMED,), (), config)

    for config, um_per_px in ((RunConfig(), 0.65), (RunConfig(um_per_px=0.5), 0.5)):
        found = loaded(config)
        assert (found.um_per_px, found.warnings) == (um_per_px, ("calibration_overridden",))
