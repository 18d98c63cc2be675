"""OME-Zarr as a layout: what is what stands in the metadata, and what it cannot be is one row or one refusal."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, Reason
from cellcount_core.domain.fields import PlannedField
from cellcount_core.domain.ngff import NgffFault, array_of, attributes_of, image_of, plate_of, well_of
from cellcount_core.plan.planner import Plan, make_plan
from cellcount_core.stores.base import Store
from cellcount_core.stores.local import LocalStore
from cellcount_core.stores.wrapped import CountingStore
from tests.often import often
from tests.unit.plan.listings import LIMITS, MODEL
from tests.zarrs import multiscales, write_array, write_group, write_image, write_plate

CHANNELS = ("DAPI", "GFP")
VERSIONS = pytest.mark.parametrize("version", ["0.4", "0.5"])


def noise(*shape: int) -> NDArray[np.generic]:
    return np.random.default_rng(5).integers(1, 200, shape).astype("u2")


def run(z: str | int = "max", channel: str = "DAPI", **settings: object) -> RunConfig:
    layout = {key: settings.pop(key) for key in ("level", "acquisition") if key in settings}
    return RunConfig.model_validate(
        {"layout": {"kind": "ome-zarr", **layout}, "z": z, "channels": {"nuclei": channel}, **settings}
    )


def plan_of(place: Path | Store, config: RunConfig | None = None) -> Plan:
    store = LocalStore(str(place)) if isinstance(place, Path) else place
    return make_plan(store, config or run(), MODEL, LIMITS)


def fields(place: Path, config: RunConfig | None = None) -> list[PlannedField]:
    with plan_of(place, config) as plan:
        return [field for shard in plan.shards() for field in shard.fields]


def places(found: list[PlannedField]) -> list[tuple[str, str, int, int]]:
    return [(one.key.plate, one.key.well, one.key.site, one.key.timepoint) for one in found]


def chunks(field: PlannedField) -> list[str]:
    """The chunks of the field's only array, below it."""
    [source] = field.sources
    below = [part.key.removeprefix(f"{source.key}/") for part in source.parts]
    return [key for key in below if not key.endswith((".zarray", "zarr.json", ".zattrs"))]


@pytest.fixture(params=["0.4", "0.5"])
def plate(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A plate of wells B02 (2 images) and C11, 2 channels, 3 planes, 2 levels, chunks of half a plane."""
    write_plate(
        tmp_path / "day 1.ome.zarr",
        {"B/02": {"0": noise(2, 3, 40, 60), "1": noise(2, 3, 40, 60)}, "C/11": {"0": noise(2, 3, 40, 60)}},
        request.param,
        channels=CHANNELS,
        levels=2,
        chunks=(1, 1, 20, 60),
    )
    return tmp_path / "day 1.ome.zarr"


def test_a_plate_is_planned_by_its_metadata(plate: Path) -> None:
    found = fields(plate)
    assert places(found) == [
        ("day 1", "B02", 1, 1),
        ("day 1", "B02", 2, 1),
        ("day 1", "C11", 1, 1),
    ]
    [source] = found[1].sources
    assert (source.key, source.channel, source.plane, source.index) == ("B/02/1/0", "DAPI", 0, -1)
    assert source.size == sum((plate / part.key).stat().st_size for part in source.parts)
    assert len(chunks(found[1])) == 3 * 2
    assert all("/0/" in f"/{key}" for key in chunks(found[1]))


def test_the_folder_above_a_plate_may_be_the_input(plate: Path) -> None:
    assert places(fields(plate.parent)) == places(fields(plate))


def test_only_the_planes_channel_and_level_that_are_counted_are_parts(plate: Path) -> None:
    [first, *_] = fields(plate, run(z=2, channel="gfp"))
    prefix = "c/" if (plate / "zarr.json").exists() else ""
    assert chunks(first) == [f"{prefix}1/1/0/0", f"{prefix}1/1/1/0"]
    [first, *_] = fields(plate, run(z="first"))
    assert chunks(first) == [f"{prefix}0/0/0/0", f"{prefix}0/0/1/0"]
    [first, *_] = fields(plate, run(level=1))
    assert first.sources[0].key == "B/02/0/1"
    assert len(chunks(first)) == 3


def test_planning_reads_metadata_alone_once(plate: Path) -> None:
    counting = CountingStore(LocalStore(str(plate)))
    plan_of(counting).close()
    groups = ["", "B/02", "C/11", "B/02/0", "B/02/1", "C/11/0"]
    arrays = [f"{image}/0" for image in groups[3:]]
    names = ("zarr.json", "zarr.json") if (plate / "zarr.json").exists() else (".zattrs", ".zarray")
    expected = [f"{folder}/{names[0]}".lstrip("/") for folder in groups]
    expected += [f"{array}/{names[1]}" for array in arrays]
    assert counting.read == dict.fromkeys(expected, 1)
    assert (counting.counts.lists, counting.counts.ranges) == (1, 0)


def test_an_unknown_channel_and_an_unknown_level_are_refused_with_those_there_are(plate: Path) -> None:
    with pytest.raises(ConfigFault, match=r"no file of channel 'Dapy'; did you mean 'DAPI'\?"):
        fields(plate, run(channel="Dapy"))
    with pytest.raises(ConfigFault, match="has the levels 0 to 1"):
        fields(plate, run(level=2))


def test_labels_and_tables_are_never_counted(plate: Path) -> None:
    before = fields(plate)
    version = "0.5" if (plate / "zarr.json").exists() else "0.4"
    write_group(plate / "B/02/0/labels", {"labels": ["nuclei"]}, version)
    write_image(plate / "B/02/0/labels/nuclei", noise(3, 40, 60), ("z", "y", "x"), version)
    (plate / "B/02/0/tables").mkdir()
    (plate / "B/02/0/tables/0.0").write_bytes(b"x")
    with plan_of(plate) as plan:
        assert [field for shard in plan.shards() for field in shard.fields] == before
        assert any("labels of an OME-Zarr" in why for why in plan.summary.ignored)


def changed(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


CONTENT: dict[str, tuple[Callable[[Path], None], bool]] = {
    "a chunk that is read": (lambda plate: changed(next((plate / "B/02/0/0").rglob("0/0/0/0"))), True),
    "a chunk that is gone": (lambda plate: next((plate / "B/02/0/0").rglob("0/1/1/0")).unlink(), True),
    "the array's metadata": (lambda plate: changed_json(plate / "B/02/0/0"), True),
    "a chunk of another channel": (lambda plate: changed(next((plate / "B/02/0/0").rglob("1/0/0/0"))), False),
    "a chunk of another level": (lambda plate: changed(next((plate / "B/02/0/1").rglob("0/0/0/0"))), False),
}


def changed_json(folder: Path) -> None:
    path = next(path for path in (folder / ".zarray", folder / "zarr.json") if path.exists())
    path.write_text(path.read_text() + " ")


@pytest.mark.parametrize("change", CONTENT)
def test_identity_is_the_content_of_what_is_read(plate: Path, change: str) -> None:
    act, matters = CONTENT[change]
    with plan_of(plate) as plan:
        before = plan.file.fingerprint
    act(plate)
    with plan_of(plate) as plan:
        assert (plan.file.fingerprint != before) == matters


def test_time_points_are_fields(tmp_path: Path) -> None:
    pixels = noise(3, 1, 20, 30)
    write_image(tmp_path / "movie.zarr", pixels, ("t", "c", "y", "x"), channels=("DAPI",))
    found = fields(tmp_path)
    assert places(found) == [(tmp_path.name, "movie", 1, time) for time in (1, 2, 3)]
    assert [one.sources[0].index for one in found] == [0, 1, 2]
    assert [chunks(one) for one in found] == [["0/0/0/0"], ["1/0/0/0"], ["2/0/0/0"]]


@VERSIONS
def test_images_outside_of_plates_are_counted_as_files_are(tmp_path: Path, version: str) -> None:
    for name in ("a.zarr", "deep/er/b.ome.zarr"):
        write_image(tmp_path / name, noise(2, 1, 20, 30), version=version, channels=CHANNELS)
    assert places(fields(tmp_path)) == [("er", "b", 1, 1), (tmp_path.name, "a", 1, 1)]
    assert places(fields(tmp_path / "a.zarr")) == [("a", "a", 1, 1)]


def test_a_bioformats2raw_folder_is_its_images(tmp_path: Path) -> None:
    write_group(tmp_path / "s.zarr", {"bioformats2raw.layout": 3}, "0.4")
    for path in ("0", "1", "10"):
        write_image(tmp_path / "s.zarr" / path, noise(2, 1, 20, 30), channels=CHANNELS)
    write_group(tmp_path / "s.zarr" / "OME", {"series": ["0", "1", "10"]}, "0.4")
    assert places(fields(tmp_path)) == [(tmp_path.name, "s", site, 1) for site in (1, 2, 11)]


def test_plates_of_one_name_in_two_folders_are_kept_apart(plate: Path) -> None:
    shutil.copytree(plate, plate.parent / "again" / plate.name)
    found = {one.key.plate for one in fields(plate.parent)}
    assert found == {f"day 1@{plate.name}", f"day 1@again/{plate.name}"}


def test_an_image_whose_path_is_no_number_has_its_place_in_the_well(tmp_path: Path) -> None:
    write_plate(
        tmp_path / "p.zarr",
        {"A/1": {"left": noise(1, 1, 20, 30), "²": noise(1, 1, 20, 30)}},
        channels=("DAPI",),
    )
    images = [{"path": "left"}, {"path": 10**30}, {"path": "²"}]
    (tmp_path / "p.zarr/A/1/.zattrs").write_text(json.dumps({"well": {"images": images}}))
    assert [(one.key.site, one.reason) for one in fields(tmp_path)] == [
        (1, None),
        (2, Reason.ABSENT),
        (3, None),
    ]


def test_several_acquisitions_of_a_well_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    pixels = {"0": noise(2, 1, 20, 30), "1": noise(2, 1, 20, 30)}
    write_plate(tmp_path / "p.zarr", {"A/1": pixels}, channels=CHANNELS)
    images = [{"path": "0", "acquisition": 3}, {"path": "1", "acquisition": 4}]
    (tmp_path / "p.zarr/A/1/.zattrs").write_text(json.dumps({"well": {"images": images}}))
    with pytest.raises(ConfigFault, match=r"acquisitions 3, 4.*--set run.layout.acquisition=3"):
        fields(tmp_path)
    assert places(fields(tmp_path, run(acquisition=4))) == [("p", "A01", 2, 1)]


def test_a_well_without_metadata_is_what_lies_in_it(plate: Path) -> None:
    before = places(fields(plate))
    for path in (plate / "B/02/.zattrs", plate / "B/02/zarr.json"):
        path.unlink(missing_ok=True)
    assert places(fields(plate)) == before


@pytest.mark.parametrize("gone", [("",), ("", "B/02/", "C/11/")])
def test_wells_of_a_plate_without_metadata_keep_their_names_and_the_plan_says_so(
    plate: Path, gone: tuple[str, ...]
) -> None:
    before = places(fields(plate))
    for path in [plate / f"{group}{name}" for group in gone for name in (".zattrs", "zarr.json")]:
        path.unlink(missing_ok=True)
    for place in (plate, plate.parent):
        with plan_of(place) as plan:
            found = [field for shard in plan.shards() for field in shard.fields]
            [told] = [text for text in plan.summary.warnings if "metadata" in text]
        assert places(found) == before
        assert told.startswith("day 1.ome.zarr: the metadata of this plate is missing")
        assert "(B02, C11)" in told


def test_a_well_or_a_row_as_the_input_is_told_to_be_no_plate(plate: Path) -> None:
    for place in (plate / "B/02", plate / "B"):
        with plan_of(place) as plan:
            wells = {field.key.well for shard in plan.shards() for field in shard.fields}
            assert [text for text in plan.summary.warnings if "the metadata of this plate is missing" in text]
        assert wells == {"02" if place.name == "02" else "B02"}


def test_what_metadata_names_and_is_not_there_is_missing(plate: Path) -> None:
    shutil.rmtree(plate / "C")
    shutil.rmtree(plate / "B/02/1")
    found = {places([one])[0][1:3]: one for one in fields(plate)}
    assert found["B02", 1].reason is None
    assert found["B02", 2].reason is found["C11", 1].reason is Reason.ABSENT
    assert found["B02", 2].detail.startswith("B/02/1: there is nothing at this path, which B/02/")
    assert found["B02", 2].detail.endswith(" names as an image")
    assert found["C11", 1].detail.endswith(" names as a well")


def test_an_image_of_which_no_chunk_was_written_is_missing_and_no_zero(plate: Path) -> None:
    array = plate / "B/02/0/0"
    for path in [
        path for path in array.rglob("*") if path.is_file() and path.name not in (".zarray", "zarr.json")
    ]:
        path.unlink()
    [first, *others] = fields(plate)
    assert first.reason is Reason.ABSENT
    assert "none of the 6 chunks of this array was ever written" in first.detail
    assert all(one.reason is None for one in others)


def test_a_channel_of_which_no_chunk_was_written_is_missing_where_another_is_there(plate: Path) -> None:
    for path in (plate / "B/02/0/0").rglob("0/*/*/0"):
        path.unlink()
    assert fields(plate)[0].reason is Reason.ABSENT
    assert fields(plate, run(channel="GFP"))[0].reason is None


BROKEN: dict[str, tuple[str, bytes, Reason, str]] = {
    "no JSON": ("B/02/0/{group}", b"{", Reason.UNREADABLE, "not JSON"),
    "no object": ("B/02/0/{group}", b"[1]", Reason.UNREADABLE, "must be a JSON object"),
    "no image": ("B/02/0/{group}", b"{}", Reason.UNREADABLE, "'multiscales' is expected"),
    "deep": ("B/02/0/{group}", b"[" * 200_000, Reason.UNREADABLE, "not JSON"),
    "an array of strings": ("B/02/0/0/{array}", b'"x"', Reason.UNREADABLE, "must be a JSON object"),
    "a well of the wrong type": ("B/02/{group}", b'{"well": 3}', Reason.UNREADABLE, "'well' must be an object"),
    "an image that climbs out": (
        "B/02/{group}", b'{"well": {"images": [{"path": "../../secret"}]}}', Reason.UNREADABLE, "below the group",
    ),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_metadata_of_a_field_is_one_row_that_names_the_file(tmp_path: Path, broken: str) -> None:
    write_plate(
        tmp_path / "p.zarr", {"B/02": {"0": noise(2, 1, 20, 30)}, "B/03": {"0": noise(2, 1, 20, 30)}}, channels=CHANNELS
    )  # fmt: skip
    key, body, reason, said = BROKEN[broken]
    key = key.format(group=".zattrs", array=".zarray")
    (tmp_path / "p.zarr" / key).write_bytes(body)
    first, second = fields(tmp_path)
    assert (first.key.well, first.reason) == ("B02", reason)
    assert said in first.detail
    assert key in first.detail
    assert second.reason is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b'{"plate": []}', "'plate' must be an object"),
        (b'{"plate": {"wells": [{"path": "B"}]}}', "ROW/COLUMN"),
        (b'{"plate": {"wells": [{"path": "../B/03"}]}}', "below the group"),
        (b'{"plate": {"wells": [{"path": "B/03"}, {"path": "B/03"}]}}', "twice"),
    ],
)
def test_a_broken_plate_is_refused_by_the_name_of_its_file(tmp_path: Path, body: bytes, said: str) -> None:
    write_plate(tmp_path / "p.zarr", {"B/02": {"0": noise(2, 1, 20, 30)}}, channels=CHANNELS)
    (tmp_path / "p.zarr/.zattrs").write_bytes(body)
    with pytest.raises(ConfigFault, match=r"p\.zarr/\.zattrs: ") as caught:
        fields(tmp_path)
    assert said in str(caught.value)


def test_include_and_exclude_choose_images_and_never_some_of_their_chunks(plate: Path) -> None:
    whole = fields(plate)
    assert fields(plate, run(exclude=["B/02/1"])) == [whole[0], whole[2]]
    assert fields(plate, run(include=["C/**"])) == [whole[2]]


def test_a_run_whose_output_lies_in_the_input_leaves_it_out(plate: Path) -> None:
    before = fields(plate)
    (plate / "out/fields").mkdir(parents=True)
    (plate / "out/fields/part-0.parquet").write_bytes(b"x")
    store = LocalStore(str(plate))
    with make_plan(store, run(), MODEL, LIMITS, own_output=str(plate / "out")) as plan:
        assert [field for shard in plan.shards() for field in shard.fields] == before
        assert plan.summary.ignored["output of this run"] == 1


def test_names_of_channels_that_are_not_unique_are_numbers(tmp_path: Path) -> None:
    write_image(tmp_path / "a.zarr", noise(2, 1, 20, 30), channels=("DAPI", "DAPI"))
    with plan_of(tmp_path, run(channel="1")) as plan:
        assert plan.summary.channels_seen == ("0", "1")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("DAPI",), "'omero' describes 1 channel, and the array has 2"),
        (("DAPI", "GFP", "Cy5"), "'omero' describes 3 channels, and the array has 2"),
        (("DAPI", "DAPI"), "'omero' calls two channels 'DAPI'"),
        (("DAPI", ""), "'omero' leaves a channel without a name"),
    ],
)
def test_names_of_channels_that_are_dropped_are_told_with_the_reason(
    tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    images = {"0": noise(2, 1, 20, 30), "1": noise(2, 1, 20, 30)}
    write_plate(tmp_path / "p.zarr", {"A/1": images}, channels=names)
    with plan_of(tmp_path, run(channel="0")) as plan:
        [told] = [text for text in plan.summary.warnings if "channels are called by their numbers" in text]
    assert told.startswith(
        f"of 2 images, such as p.zarr/A/1/0, the names of the channels are not used: {said}"
    )


def test_folders_without_any_array_are_no_input(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"x")
    with pytest.raises(ConfigFault, match="image file outside of any OME-Zarr"):
        fields(tmp_path)


def test_a_plan_of_the_same_bytes_is_the_same_in_any_order_of_its_shards(plate: Path) -> None:
    with plan_of(plate) as one, plan_of(plate) as other:
        assert one.path.read_bytes() == other.path.read_bytes()


@pytest.mark.parametrize(
    "attributes",
    [
        {"multiscales": []},
        {"multiscales": [{"axes": "yx", "datasets": [{"path": "0"}]}]},
        {"multiscales": [{"axes": [{"name": "y"}], "datasets": [{"path": "0"}]}]},
        {"multiscales": [{"axes": [{"name": "y"}, {"name": "x"}, {"name": "lambda"}], "datasets": [{"path": "0"}]}]},
        {"multiscales": [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": []}]},
        {"multiscales": [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "/0"}]}]},
        {"multiscales": [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": True}]}]},
    ],
)  # fmt: skip
def test_images_that_cannot_be_are_faults(attributes: dict[str, object]) -> None:
    with pytest.raises(NgffFault):
        image_of(json.loads(json.dumps(attributes)))


def test_images_of_older_versions_name_no_axes(tmp_path: Path) -> None:
    old = image_of({"multiscales": [{"version": "0.1", "datasets": [{"path": "0"}]}]})
    assert old is not None
    assert old.axes == ("t", "c", "z", "y", "x")
    named = image_of(
        {"multiscales": [{"version": "0.3", "axes": ["c", "y", "x"], "datasets": [{"path": "0"}]}]}
    )
    assert named is not None
    assert named.axes == ("c", "y", "x")


def test_the_scale_of_an_image_is_that_of_its_level_times_that_of_all(tmp_path: Path) -> None:
    attributes = multiscales(("y", "x"), ["0", "1"], um=0.25)
    scales = attributes["multiscales"][0]  # type: ignore[index]
    scales["coordinateTransformations"] = [{"type": "scale", "scale": [2, 2]}]
    image = image_of(json.loads(json.dumps(attributes)))
    assert image is not None
    assert [level.scale for level in image.levels] == [(0.5, 0.5), (1.0, 1.0)]


def test_attributes_of_both_versions_are_found() -> None:
    plate = {"plate": {"wells": [{"path": "A/1"}]}}
    v5 = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", **plate}}}
    for name, node in ((".zattrs", plate), ("zarr.json", v5)):
        found = plate_of(attributes_of(name, json.dumps(node).encode()))
        assert found is not None
        assert [well.path for well in found.wells] == ["A/1"]
    assert well_of({}) is plate_of({}) is image_of({}) is None


def test_an_array_of_too_many_axes_or_chunks_is_refused_by_its_metadata() -> None:
    node = {
        "zarr_format": 2,
        "dtype": "<u2",
        "shape": [1] * 9,
        "chunks": [1] * 9,
        "compressor": None,
        "fill_value": 0,
    }
    with pytest.raises(NgffFault, match="9 axes"):
        array_of(".zarray", json.dumps(node).encode())
    node |= {"shape": [1 << 20, 1 << 20], "chunks": [1, 1]}
    with pytest.raises(NgffFault, match="chunks"):
        array_of(".zarray", json.dumps(node).encode())


def test_an_array_whose_axes_are_not_its_image_s_is_a_row(tmp_path: Path) -> None:
    write_group(tmp_path / "a.zarr", multiscales("czyx", channels=CHANNELS), "0.4")
    write_array(tmp_path / "a.zarr/0", noise(20, 30), "0.4")
    [field] = fields(tmp_path, run(channel="DAPI"))
    assert field.reason is Reason.UNREADABLE
    assert "the array's shape [20, 30] does not go with the axes of its image: c, z, y, x (in" in field.detail


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_image_of_a_billion_channels_planes_or_times_is_a_row_at_once(tmp_path: Path, axis: int) -> None:
    write_image(tmp_path / "a.zarr", noise(1, 1, 1, 20, 30), "tczyx", channels=("DAPI",))
    path = tmp_path / "a.zarr/0/.zarray"
    node = json.loads(path.read_text())
    node["shape"][axis] = node["chunks"][axis] = 1_000_000_000
    path.write_text(json.dumps(node))
    [field] = fields(tmp_path)
    assert field.reason is Reason.UNREADABLE
    assert "1,000,000,000 along axis" in field.detail


def named(plate: Path, **more: object) -> None:
    """Say more of a plate in its metadata."""
    path = next(path for path in (plate / ".zattrs", plate / "zarr.json") if path.exists())
    node = json.loads(path.read_text())
    attributes = node if "plate" in node else node["attributes"]["ome"]
    attributes["plate"] |= more
    path.write_text(json.dumps(node))


def test_a_plate_is_called_as_its_metadata_calls_it_else_by_its_folder(plate: Path) -> None:
    named(plate, name="P7")
    assert {one.key.plate for one in fields(plate)} == {"P7"}


@pytest.mark.parametrize(("rows", "columns", "known"), [(8, 12, True), (2, 2, False), (1, 1, False)])
def test_rows_and_columns_are_the_plate_s_shape_where_plates_of_it_are_made(
    plate: Path, rows: int, columns: int, known: bool
) -> None:
    named(
        plate,
        rows=[{"name": str(number)} for number in range(rows)],
        columns=[{"name": str(number)} for number in range(columns)],
    )
    with plan_of(plate) as plan:
        facts = plan.summary.facts["day 1"]
    assert (facts.rows, facts.columns) == ((rows, columns) if known else (None, None))


def test_other_layouts_leave_an_ome_zarr_out_and_say_how_it_is_counted(plate: Path) -> None:
    (plate.parent / "a.tif").write_bytes(b"x")
    config = RunConfig.model_validate({"layout": {"kind": "flat"}})
    with plan_of(plate.parent, config) as plan:
        assert any("to count those: --layout ome-zarr" in warning for warning in plan.summary.warnings)


@VERSIONS
def test_hostile_metadata_is_rows_or_one_refusal(tmp_path: Path, version: str) -> None:
    """Cut, flipped, of other types, repeated: mutants of all metadata objects of a plate."""
    write_plate(tmp_path / "p.zarr", {"B/02": {"0": noise(2, 1, 20, 30)}}, version, channels=CHANNELS)
    bodies = {
        path: path.read_bytes()
        for path in sorted((tmp_path / "p.zarr").rglob("*"))
        if path.name in (".zattrs", ".zarray", "zarr.json")
    }
    dice = random.Random(11)
    refused, mutants = 0, often(150)
    for _ in range(mutants):
        path = dice.choice(list(bodies))
        path.write_bytes(mutated(bodies[path], dice))
        try:
            assert {field.key.plate for field in fields(tmp_path)} <= {
                "p",
                "B",
                "02",
                "0",
                "p.zarr",
                tmp_path.name,
            }
        except ConfigFault:
            refused += 1
        path.write_bytes(bodies[path])
    assert 0 < refused < mutants


def mutated(body: bytes, dice: random.Random) -> bytes:
    """JSON cut or flipped, or with one of its values of another type."""
    at, end = sorted(dice.randrange(len(body) + 1) for _ in range(2))
    if dice.random() < 0.4:
        return dice.choice(
            [body[:at], body[:at] + body[end:], body[:at] + dice.randbytes(end - at) + body[end:]]
        )
    node = json.loads(body)
    inner = node
    while isinstance(inner, dict | list) and inner:
        key = dice.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        if dice.random() < 0.3 or not isinstance(inner[key], dict | list) or not inner[key]:
            others = [None, True, -1, 0, 1e308, 10**30, "", "../x", [], {}, [[]], {"a": []}, "NaN"]
            inner[key] = dice.choice(others)
            break
        inner = inner[key]
    return json.dumps(node).encode()
