"""What counting writes is what it wrote before: every column, merged table, label image and picture, byte for byte.

`golden.json` holds a digest of each. A column or a key that is new is the only difference allowed. Where results are meant to change,
write it again and say why in the commit: `CELLCOUNT_GOLDEN=write python -m pytest tests/e2e/test_golden.py`.

Sums of floats differ between processors with other vector units, so the file names those it was written on, and elsewhere the test skips.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import yaml

from cellcount_core.cli.main import main
from tests.boxes import LARGE, SMALL, box_package, disc_image, grid_of_discs
from tests.data_dir import data_dir, needs_data
from tests.s3_server import S3Server

GOLDEN = Path(__file__).with_name("golden.json")
WRITES = os.environ.get("CELLCOUNT_GOLDEN") == "write"
Digests = dict[str, str]

OF_THE_PLACE = ("fingerprint", "digests", "schema_version", "versions")
"""Keys of summary.json that hold the tags of the input's files, which differ between places, or the release."""
LONGEST_S = 300.0


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up plate of 12 wells, two sites and two channels; two of its files are damaged."""
    from cellcount_core.demo.plate import render_plate

    return render_plate(tmp_path_factory.mktemp("golden"), 96, wells=12).images


def counting(source: Path | str, output: Path | str, *more: str) -> list[str]:
    """`cellcount count` of the made-up plate, with labels, on the serial runner."""
    layout = ("--layout", "imagexpress", "--channel", "w1", "--set", "run.measure=[w1,w2]")
    execution = ("--runner", "serial", "--set", "execution.shard_fields=4", "--max-failed", "2")
    return ["count", str(source), str(output), *layout, *execution, "--labels", *more]


def test_the_demonstration(plate: Path, tmp_path: Path) -> None:
    assert main(counting(plate, tmp_path / "out")) == 0
    assert main(["pictures", str(tmp_path / "out"), "--fields", "3"]) == 0
    compare("demo", digests_of(str(tmp_path / "out")))


def test_the_demonstration_by_thresholds(plate: Path, tmp_path: Path) -> None:
    assert main(counting(plate, tmp_path / "out", "--model", "threshold")) == 0
    compare("demo by threshold", digests_of(str(tmp_path / "out")))


def test_a_killed_run_that_went_on(plate: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = counting(plate, output, "--set", "execution.in_flight=1", "--set", "execution.threads=1")
    driver = subprocess.Popen(
        [sys.executable, "-m", "cellcount_core.cli", *command], stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + LONGEST_S
    while not (output / "fields").is_dir() or not any((output / "fields").glob("*.parquet")):
        assert driver.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.005)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert len(list((output / "fields").glob("*.parquet"))) < 6, "nothing was left to do"
    assert main(command) == 0
    assert main(["pictures", str(output), "--fields", "3"]) == 0
    compare("demo", digests_of(str(output)))


def test_from_s3_to_s3(plate: Path, s3_server: S3Server) -> None:
    with s3_server.with_buckets("golden-in", "golden-out"):
        s3 = fsspec.filesystem("s3", endpoint_url=s3_server.endpoint)
        for file in sorted(path for path in plate.rglob("*") if path.is_file()):
            s3.pipe_file(f"golden-in/{plate.name}/{file.relative_to(plate)}", file.read_bytes())
        at = ("--endpoint", s3_server.endpoint)
        assert main(counting(f"s3://golden-in/{plate.name}", "s3://golden-out/out", *at)) == 0
        assert main(["pictures", "s3://golden-out/out", "--fields", "3", *at]) == 0
        found = digests_of("s3://golden-out/out", endpoint_url=s3_server.endpoint)
    compare("demo", found)


@needs_data("plates/bbbc013_sbs")
def test_bbbc013(tmp_path: Path) -> None:
    data = data_dir()
    assert data is not None
    job, output = tmp_path / "job.yaml", tmp_path / "out"
    names = r"Channel(?P<channel>\d)-\d+-(?P<row>[A-H])-(?P<column>\d+)\.tif"
    run = {"layout": {"kind": "pattern", "pattern": names, "plate": "BBBC013"}, "channels": {"nuclei": "2"}}
    source = data / "plates" / "bbbc013_sbs"
    job.write_text(yaml.safe_dump({"input": str(source), "output": str(output), "run": run}))
    assert main(["count", str(job), "--runner", "serial", "--labels"]) == 0
    assert main(["pictures", str(output), "--fields", "3"]) == 0
    compare("bbbc013", digests_of(str(output)))


@needs_data("dsb2018_nuclei/images")
def test_a_folder_of_images_of_many_kinds(tmp_path: Path) -> None:
    """Fluorescence and stained tissue, small and large, by the model for each."""
    data = data_dir()
    assert data is not None
    folder = tmp_path / "images"
    folder.mkdir()
    for image in sorted((data / "dsb2018_nuclei" / "images").iterdir())[::40]:
        (folder / image.name).symlink_to(image)
    for model in ("nuclei", "histology"):
        output = tmp_path / model
        main(["count", str(folder), str(output), "--model", model, "--runner", "serial", "--labels"])
        compare(f"folder, {model}", digests_of(str(output)))


def test_boxes(tmp_path: Path) -> None:
    """Discs of two sizes, found as boxes by a network that needs no training; one field is too large to be looked at in one piece."""
    package = box_package(tmp_path / "discs")
    plate, output = tmp_path / "P", tmp_path / "out"
    plate.mkdir()
    for number, (well, shape) in enumerate((("B02", (180, 200)), ("B03", (300, 420)), ("C02", (180, 200)))):
        discs = grid_of_discs(shape, SMALL, 44, seed=number)
        discs = discs[number:] + [(y, x, LARGE) for y, x, _ in discs[:number]]
        tifffile.imwrite(plate / f"P_{well}_s1_w1.TIF", disc_image(discs, shape, seed=number))
    small = ("--set", "run.whole_limit=65536", "--set", "run.block=256", "--set", "run.tile=256")
    layout = ("--layout", "imagexpress", "--model", str(package.folder), "--runner", "serial")
    assert main(["count", str(plate), str(output), *layout, *small]) == 0
    assert main(["pictures", str(output), "--fields", "3"]) == 0
    compare("boxes", digests_of(str(output)))


def digests_of(output: str, **options: str) -> Digests:
    """A digest of every column of every table, every key of the summary, every label image and every picture."""
    files, root = fsspec.core.url_to_fs(output, **options)
    files.invalidate_cache()
    found: Digests = {}
    for table in ("fields", "objects"):
        parts = [_table(files, key) for key in sorted(files.glob(f"{root}/{table}/*.parquet"))]
        found |= _columns(table, pa.concat_tables(parts))
    for table in ("wells", "plates"):
        found |= _columns(table, _table(files, f"{root}/{table}.parquet"))
    summary = json.loads(files.cat_file(f"{root}/summary.json"))
    found |= {f"summary {key}": _digest(json.dumps(value, sort_keys=True)) for key, value in summary.items()
              if key not in OF_THE_PLACE}  # fmt: skip
    for folder in ("labels", "pictures"):
        for key in sorted(files.find(f"{root}/{folder}")):
            found[key.removeprefix(root).lstrip("/")] = _digest(files.cat_file(key))
    return found


def _table(files: fsspec.AbstractFileSystem, key: str) -> pa.Table:
    with files.open(key, "rb") as opened:
        return pq.read_table(pa.BufferReader(opened.read())).replace_schema_metadata(None)


def _columns(table: str, rows: pa.Table) -> Digests:
    # repr of a float is exact; buffers are not comparable, as validity bitmaps may be left out.
    return {
        f"{table} {name}": _digest(f"{rows.schema.field(name).type} {rows.column(name).to_pylist()!r}")
        for name in rows.column_names
    }


def _digest(content: bytes | str) -> str:
    body = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(body).hexdigest()[:16]


def compare(name: str, found: Digests) -> None:
    """Fail with the names of what differs or is gone; skip where this processor sums otherwise than the recorded one."""
    recorded = _recorded()
    if WRITES:
        if name not in _WRITTEN:
            _WRITTEN[name] = found
            GOLDEN.write_text(
                json.dumps({"processor": _processor(), "runs": recorded["runs"] | _WRITTEN}, indent=0)
            )  # type: ignore[operator]
        return
    if recorded["processor"] != _processor():
        pytest.skip("golden.json was written on a processor with other vector units")
    runs = recorded["runs"]
    assert isinstance(runs, dict)
    before: Digests = runs[name]
    assert len(before) > 50
    differ = [key for key, digest in before.items() if key in found and found[key] != digest]
    gone = [key for key in before if key not in found]
    assert not differ, f"{name}: changed: {differ}"
    assert not gone, f"{name}: gone: {gone}"


_WRITTEN: dict[str, Digests] = {}


@cache
def _recorded() -> dict[str, object]:
    return json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"processor": "", "runs": {}}


@cache
def _processor() -> str:
    from numpy._core._multiarray_umath import __cpu_features__ as features

    return " ".join(sorted(name for name, there in features.items() if there)) + f" numpy {np.__version__}"
