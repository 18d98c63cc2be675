"""OME-Zarr from plan to tables: the counts of the same pixels as TIFF, and no object is read that is not counted.

Plates of both versions are made here (no public one of 0.5 with pixels is small); the real ones of the sample data are counted
too where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import ExitCode, FieldFault, Reason
from cellcount_core.domain.fields import PlannedField
from cellcount_core.output.planfile import read_shards
from cellcount_core.pipeline.files import read_fields
from cellcount_core.reduce.summary import told_doubts
from cellcount_core.reduce.verify import verify
from cellcount_core.runners.job import JobResult
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from cellcount_core.stores.wrapped import CountingStore
from tests.data_dir import data_dir, needs_data
from tests.jobs import count, digest, job, rows
from tests.plates import discs
from tests.s3_jobs import tables
from tests.s3_proxy import s3_proxy
from tests.s3_server import S3Server
from tests.zarrs import write_plate

CHANNELS = ("DAPI", "GFP")
OBJECTS = {"B02": (5, 0), "B03": (9, 4), "D07": (3, 12)}
"""Discs of the two fields of each well."""


@dataclass(frozen=True)
class Form:
    """How a plate is written: `group` and `array` are its metadata objects, `chunks` those of channel `c`."""

    version: str
    settings: Mapping[str, object]
    group: str
    array: str
    chunks: tuple[str, ...]


HALVES = {"chunks": (1, 1, 48, 96)}
FORMS = {
    "0.4": Form("0.4", HALVES, ".zattrs", ".zarray", ("{c}/0/0/0", "{c}/0/1/0", "{c}/1/0/0", "{c}/1/1/0")),
    "0.5": Form(
        "0.5", HALVES, "zarr.json", "zarr.json", ("c/{c}/0/0/0", "c/{c}/0/1/0", "c/{c}/1/0/0", "c/{c}/1/1/0")
    ),
    "0.5 in shards": Form(
        "0.5",
        {"chunks": (1, 1, 32, 32), "shards": (1, 2, 96, 96)},
        "zarr.json",
        "zarr.json",
        ("c/{c}/0/0/0",),
    ),
}


def image(number: int, seed: int) -> NDArray[np.uint16]:
    """Two channels and two planes: the objects lie in both planes of DAPI, other ones in GFP."""
    dapi, gfp = discs(number, 96, seed), discs(16 - number, 96, seed + 100)
    return np.stack([np.stack([dapi, dapi // 2]), np.stack([gfp, gfp // 2])])


def pixels() -> Iterator[tuple[str, int, NDArray[np.uint16]]]:
    for seed, (well, numbers) in enumerate(OBJECTS.items()):
        for site, number in enumerate(numbers, 1):
            yield well, site, image(number, 10 * seed + site)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


@pytest.fixture
def plate(form: Form, tmp_path: Path) -> Path:
    """Three wells of two images, each of two channels, planes and levels."""
    wells: dict[str, dict[str, NDArray[np.generic]]] = {}
    for well, site, planes in pixels():
        wells.setdefault(f"{well[0]}/{well[1:]}", {})[str(site - 1)] = planes
    folder = tmp_path / "p.zarr"
    write_plate(folder, wells, form.version, channels=CHANNELS, levels=2, um=0.65, **form.settings)
    return folder


def objects_read(form: Form, channel: int) -> set[str]:
    """The keys of all objects that counting a channel needs."""
    images = [f"{well[0]}/{well[1:]}/{site - 1}" for well, site, _ in pixels()]
    paths = (form.group, f"0/{form.array}", *(f"0/{chunk.format(c=channel)}" for chunk in form.chunks))
    return {f"{image}/{path}" for image in images for path in paths}


def counted(source: Path | str, output: Path, channel: str = "DAPI", **more: object) -> JobResult:
    run = {"layout": {"kind": "ome-zarr"}, "channels": {"nuclei": channel}}
    return count(source, output, run=run, execution={"shard_fields": 2}, **more)


def planned(output: Path) -> list[PlannedField]:
    return [field for shard in read_shards(output / "run/plan.parquet") for field in shard.fields]


def fields(output: Path) -> dict[tuple[str, int], dict[str, object]]:
    return {(row["Metadata_Well"], row["Metadata_Site"]): row for row in rows(output, "fields").to_pylist()}


def test_a_plate_has_the_counts_of_the_same_pixels_as_tiff(plate: Path, tmp_path: Path) -> None:
    files = tmp_path / "files" / "p"
    files.mkdir(parents=True)
    for well, site, planes in pixels():
        tifffile.imwrite(files / f"p_{well}_s{site}_w1.TIF", planes[0].max(axis=0))
    count(files, tmp_path / "tiff", run={"channels": {"nuclei": "w1"}, "um_per_px": 0.65})
    result = counted(plate, tmp_path / "out")
    assert result.exit_code is ExitCode.OK
    as_zarr, as_tiff = fields(tmp_path / "out"), fields(tmp_path / "tiff")
    assert {place: row["count"] for place, row in as_zarr.items()} == {
        place: row["count"] for place, row in as_tiff.items()
    }
    for row in as_zarr.values():
        assert (row["um_per_px"], row["planes"], row["channel"], row["warnings"]) == (0.65, 2, "DAPI", [])
    assert verify(open_store(tmp_path / "out", StorageOptions())).proven


def test_what_is_read_are_the_chunks_of_the_counted_channel_and_level_once_each(
    form: Form, plate: Path, tmp_path: Path
) -> None:
    counted(plate, tmp_path / "out", "GFP")
    counting = CountingStore(open_store(plate, StorageOptions()))
    for shard in read_shards(tmp_path / "out/run/plan.parquet"):
        for _, files in read_fields(counting, shard.fields, ahead=4, run=job(plate, tmp_path).run):
            [array] = files.values()
            for plane in range(2):
                array.image().read("GFP", plane)
    assert counting.read == dict.fromkeys(objects_read(form, channel=1), 1)
    assert counting.counts.gets == len(objects_read(form, channel=1))
    assert (counting.counts.lists, counting.counts.ranges) == (0, 0)


def test_a_stopped_run_goes_on_and_is_the_same(plate: Path, tmp_path: Path) -> None:
    counted(plate, tmp_path / "whole")
    counted(plate, tmp_path / "out")
    (tmp_path / "out/fields/part-000001.parquet").unlink()
    again = counted(plate, tmp_path / "out")
    assert again.progress.statuses.total() == 2
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_chunks_that_are_gone_or_changed_since_the_plan_are_told_by_name(plate: Path, tmp_path: Path) -> None:
    counted(plate, tmp_path / "out")
    first, second, *_ = planned(tmp_path / "out")
    (plate / first.objects[-1].key).unlink()
    (plate / second.objects[-1].key).write_bytes(b"short")
    store = open_store(plate, StorageOptions())
    told = []
    for _, files in read_fields(store, (first, second), ahead=2, run=job(plate, tmp_path).run):
        with pytest.raises(FieldFault) as caught:
            next(iter(files.values())).image()
        told.append((caught.value.reason, caught.value.key))
    assert told == [(Reason.ABSENT, first.objects[-1].key), (Reason.CHANGED, second.objects[-1].key)]


def test_chunks_that_were_never_written_are_warned_of_and_an_image_without_any_is_missing(
    form: Form, plate: Path, tmp_path: Path
) -> None:
    first, *others = [chunk.format(c=0) for chunk in form.chunks]
    (plate / "B/03/0/0" / first).unlink()
    for chunk in (first, *others):
        (plate / "B/02/0/0" / chunk).unlink()
    result = counted(plate, tmp_path / "out")
    found = fields(tmp_path / "out")
    assert (found["B02", 1]["status"], found["B02", 1]["count"]) == ("missing", None)
    assert f"none of the {len(form.chunks)} chunks" in str(found["B02", 1]["reason_detail"])
    if others:
        assert found["B03", 1]["warnings"] == [f"{Doubt.CHUNKS_MISSING}:1 of {len(form.chunks)}"]
        assert result.summary.warnings[Doubt.CHUNKS_MISSING] == 1
    assert found["D07", 1]["status"] == "ok"


def test_from_s3_the_tables_are_the_same_and_the_requests_those_of_the_plan(
    form: Form, plate: Path, tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    with s3_server.with_buckets("zarr-in"), s3_proxy(s3_server.endpoint) as proxy:
        store = open_store("s3://zarr-in/p.zarr", StorageOptions(endpoint=s3_server.endpoint))
        for path in sorted(path for path in plate.rglob("*") if path.is_file()):
            store.put(path.relative_to(plate).as_posix(), path.read_bytes())
        counted(plate, tmp_path / "local")
        counted("s3://zarr-in/p.zarr", tmp_path / "out", storage={"endpoint": proxy.endpoint})
        assert tables(tmp_path / "out") == tables(tmp_path / "local")
        asked = {
            request.key.removeprefix("zarr-in/p.zarr/")
            for request, _ in proxy.requests
            if request.method == "GET" and request.prefix is None
        }
        groups = {f"{group}{form.group}" for group in ("", "B/02/", "B/03/", "D/07/")}
        assert asked == objects_read(form, channel=0) | groups
        assert proxy.operations("zarr-in")["list"] == 1


def real(name: str) -> Path:
    folder = data_dir()
    assert folder is not None
    return next((folder / "plates" / name).glob("*.zarr"))


@needs_data("plates/omezarr_v04_cardio_B03")
def test_the_real_plate_of_0_4_is_counted_at_the_finest_level_it_has(tmp_path: Path) -> None:
    run = {
        "layout": {"kind": "ome-zarr"},
        "channels": {"nuclei": "DAPI"},
        "model": {"package": "nuclei"},
    }
    result = count(real("omezarr_v04_cardio_B03"), tmp_path / "out", run=run)
    assert result.exit_code in (ExitCode.OK, ExitCode.DOUBTS)
    [((well, site), row)] = fields(tmp_path / "out").items()
    assert (well, site, row["source"]) == ("B03", 1, ["B/03/0/2"])
    assert (row["width_px"], row["height_px"], row["um_per_px"]) == (640, 540, 1.3)
    # The label image beside it has 3,006 nuclei, found in finer pixels.
    assert isinstance(row["count"], int)
    assert 2600 < row["count"] < 3300
    assert verify(open_store(tmp_path / "out", StorageOptions())).proven


@needs_data("plates/omezarr_v05_idr6001240")
def test_the_real_image_of_0_5_is_counted_and_its_missing_planes_told(tmp_path: Path) -> None:
    run = {"layout": {"kind": "ome-zarr"}, "channels": {"nuclei": "dapi"}}
    result = count(real("omezarr_v05_idr6001240"), tmp_path / "out", run=run)
    [row] = fields(tmp_path / "out").values()
    assert (row["width_px"], row["height_px"], row["planes"], row["channel"]) == (67, 68, 236, "Dapi")
    assert row["um_per_px"] == pytest.approx(1.44159, abs=1e-5)
    assert f"{Doubt.CHUNKS_MOSTLY_MISSING}:216 of 236" in str(row["warnings"])
    assert [(one.doubt, one.fields) for one in result.summary.doubts] == [(Doubt.CHUNKS_MOSTLY_MISSING, 1)]
    assert any("site 1: 216 of 236)" in line for line in told_doubts(result.summary))
    read = {part.key for field in planned(tmp_path / "out") for part in field.objects}
    assert read == {"zarr.json", "2/zarr.json", "2/c/1/11/0/0", "2/c/1/12/0/0"}
