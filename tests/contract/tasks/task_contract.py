"""What every task promises of a run, as a class: a test module inherits it and gives a package, a plate and what must be found.

Tables are equal however fields were counted, a run that lost a part or its driver goes on, the ledger is proven, tables are merged anew
to the same bytes, results are exported and drawn, and a night tells them.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from numpy.typing import NDArray

from cellcount_core.cli.main import main
from cellcount_core.domain.columns import Merge, Schema
from cellcount_core.domain.errors import ExitCode
from cellcount_core.images.imagefile import COLOURS
from cellcount_core.models.package import Package
from cellcount_core.output.runfile import read_run
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.open import open_store
from tests.faults.drivers import LONGEST_S
from tests.jobs import rows
from tests.nights import night, settings

WELLS = ("B02", "B03", "B04", "B05", "B06", "B07")
DAMAGED = ("B07", 2)
FIELDS = 2 * len(WELLS)


class TaskContract:
    """Inherit as `TestX(TaskContract)`. A plate has the wells of `WELLS`, two sites each; the file of `DAMAGED` is cut off."""

    headline: str
    """What the run says that it found."""

    asked: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Sections of the run's settings, by name."""

    @classmethod
    @abstractmethod
    def make_package(cls, folder: Path) -> Package:
        """A package of the task in a folder that is not there yet."""

    @classmethod
    @abstractmethod
    def image(cls, well: str, site: int) -> NDArray[np.generic]:
        """The image of a site."""

    @classmethod
    @abstractmethod
    def check_field(cls, row: dict[str, object], well: str, site: int) -> None:
        """Asserts that the row of a counted field says what its image shows."""

    @pytest.fixture(scope="class")
    @classmethod
    def package(cls, tmp_path_factory: pytest.TempPathFactory) -> Package:
        return cls.make_package(tmp_path_factory.mktemp("packages") / "package")

    @pytest.fixture(scope="class")
    @classmethod
    def plate(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("plates") / "P"
        folder.mkdir()
        for well in WELLS:
            for site in (1, 2):
                cls.write(folder, well, site)
        damaged = folder / f"P_{DAMAGED[0]}_s{DAMAGED[1]}_w1.TIF"
        damaged.write_bytes(damaged.read_bytes()[:4000])
        return folder

    @classmethod
    def write(cls, folder: Path, well: str, site: int) -> None:
        pixels = cls.image(well, site)
        colours = {"photometric": "rgb"} if pixels.ndim == 3 else {}
        tifffile.imwrite(folder / f"P_{well}_s{site}_w1.TIF", pixels, **colours)

    @classmethod
    def command(cls, package: Package, plate: Path, out: Path, *more: str) -> list[str]:
        """`cellcount count` of the plate, three fields a shard."""
        roles = [
            word
            for role, channel in channels_of(package).items()
            for word in ("--channel", f"{role}={channel}")
        ]
        asked = [
            word
            for section, values in cls.asked.items()
            for name, value in values.items()
            for word in ("--set", f"run.{section}.{name}={value}")
        ]
        return ["count", str(plate), str(out), "--layout", "imagexpress", "--model", str(package.folder),
                "--set", "execution.shard_fields=3", "--max-failed", "1", *roles, *asked, *more]  # fmt: skip

    @pytest.fixture(scope="class")
    @classmethod
    def counted(cls, package: Package, plate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Counted by the serial runner."""
        out = tmp_path_factory.mktemp("counted") / "out"
        assert main(cls.command(package, plate, out, "--runner", "serial")) == ExitCode.OK
        return out

    def test_every_field_has_a_row_that_says_what_its_image_shows(self, counted: Path) -> None:
        fields = rows(counted, "fields").to_pylist()
        assert len(fields) == FIELDS
        for row in fields:
            place = (row["Metadata_Well"], row["Metadata_Site"])
            if place == DAMAGED:
                assert (row["status"], row["reason"]) == ("failed", "truncated")
                assert all(row[name] is None for name in schema_of(counted).results)
            else:
                assert row["status"] == "ok"
                self.check_field(row, *place)

    def test_objects_belong_to_their_fields(self, counted: Path) -> None:
        schema = schema_of(counted)
        if not schema.objects:
            assert not (counted / "objects").exists()
            return
        objects = rows(counted, "objects").to_pylist()
        for row in rows(counted, "fields").to_pylist():
            own = [one for one in objects if one["field_id"] == row["field_id"]]
            assert len(own) == (row[schema.object_count] or 0)
            assert [one["Metadata_ObjectNumber"] for one in own] == list(range(1, len(own) + 1))

    def test_the_ledger_is_proven_and_merging_anew_gives_the_same_bytes(
        self, counted: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = tables(counted)
        capsys.readouterr()
        assert main(["reduce", str(counted)]) == ExitCode.OK
        assert f"{self.headline} in {FIELDS - 1} of {FIELDS} fields" in capsys.readouterr().out
        assert tables(counted) == before
        assert main(["verify", str(counted)]) == ExitCode.OK
        assert (
            f"{FIELDS} expected = {FIELDS - 1} ok + 1 failed + 0 missing + 0 skipped"
            in capsys.readouterr().out
        )

    def test_what_is_counted_adds_up_in_wells_plates_and_summary(self, counted: Path) -> None:
        fields, wells = (
            rows(counted, "fields").to_pylist(),
            pq.read_table(counted / "wells.parquet").to_pylist(),
        )
        summary = json.loads((counted / "summary.json").read_text())
        [plate] = pq.read_table(counted / "plates.parquet").to_pylist()
        for column in schema_of(counted).fields:
            if column.merge is Merge.COUNT:
                total = sum(row[column.name] or 0 for row in fields)
                assert (
                    total
                    == sum(row[column.name] or 0 for row in wells)
                    == plate[column.name]
                    == summary[column.name]
                )

    @pytest.mark.ray
    def test_ray_gives_the_same_tables(
        self, package: Package, plate: Path, counted: Path, tmp_path: Path, ray_here: object
    ) -> None:
        ray = ("--runner", "ray", "--set", "execution.actors=2")
        assert main(self.command(package, plate, tmp_path / "out", *ray)) == ExitCode.OK
        assert tables(tmp_path / "out") == tables(counted)

    def test_a_run_that_lost_a_part_goes_on(
        self, package: Package, plate: Path, counted: Path, tmp_path: Path
    ) -> None:
        out = Path(shutil.copytree(counted, tmp_path / "out"))
        (out / "fields" / "part-000001.parquet").unlink()
        (out / "summary.json").unlink()
        assert main(["verify", str(out)]) == ExitCode.LEDGER
        assert main(self.command(package, plate, out, "--runner", "serial")) == ExitCode.OK
        assert main(["verify", str(out)]) == ExitCode.OK
        assert tables(out) == tables(counted)

    def test_a_killed_run_goes_on_where_it_stopped(
        self, package: Package, plate: Path, counted: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        again = self.command(package, plate, out, "--runner", "serial", "--set", "execution.in_flight=1")
        driver = subprocess.Popen(
            [sys.executable, "-m", "cellcount_core.cli", *again], stderr=subprocess.DEVNULL
        )
        wait_for(lambda: any((out / "fields").glob("*.parquet")), driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        kept = {part.name: part.stat().st_mtime_ns for part in (out / "fields").glob("*.parquet")}
        assert main(again) == ExitCode.OK
        assert {name: (out / "fields" / name).stat().st_mtime_ns for name in kept} == kept
        assert tables(out) == tables(counted)

    def test_an_update_counts_what_was_mended(self, package: Package, plate: Path, tmp_path: Path) -> None:
        own, out = Path(shutil.copytree(plate, tmp_path / "plate")), tmp_path / "out"
        assert main(self.command(package, own, out, "--runner", "serial")) == ExitCode.OK
        self.write(own, *DAMAGED)
        assert main(self.command(package, own, out, "--runner", "serial", "--update")) == ExitCode.OK
        assert main(["verify", str(out)]) == ExitCode.OK
        [mended] = [
            row
            for row in rows(out, "fields").to_pylist()
            if (row["Metadata_Well"], row["Metadata_Site"]) == DAMAGED
        ]
        self.check_field(mended, *DAMAGED)

    def test_results_are_exported_and_drawn(self, counted: Path, tmp_path: Path) -> None:
        assert main(["export", str(counted), str(tmp_path / "results.csv")]) == ExitCode.OK
        table = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
        schema = schema_of(counted)
        assert len(table) == FIELDS
        results = [
            name for name in table[0] if name.partition("_low")[0].partition("_high")[0] in schema.results
        ]
        failed = table[-1]
        assert results
        assert all(failed[name] == "" for name in results)
        assert (failed["well"], int(failed["site"])) == DAMAGED
        assert (failed["status"], failed["reason"]) == ("failed", "truncated")
        assert failed["file"]
        assert failed["reason_detail"]
        assert main(["pictures", str(counted), "--fields", "2"]) == ExitCode.OK
        drawn = sorted((counted / "pictures").glob("*.png"))
        assert len(drawn) >= 3
        assert all(picture.stat().st_size > 1000 for picture in drawn)

    def test_the_boxes_of_objects_go_to_other_tools(self, counted: Path, tmp_path: Path) -> None:
        schema, fields = schema_of(counted), rows(counted, "fields").to_pylist()
        wrote = main(["export", str(counted), str(tmp_path / "boxes"), "--to", "coco"])
        if not schema.objects:
            assert wrote == ExitCode.CONFIG
            return
        assert wrote == ExitCode.OK
        data = json.loads((tmp_path / "boxes" / "boxes.json").read_text())
        assert len(data["images"]) == FIELDS - 1
        assert len(data["annotations"]) == sum(row[schema.object_count] or 0 for row in fields)
        classes = {one["id"]: one["name"] for one in data["categories"]}
        objects = rows(counted, "objects").to_pylist()
        told = [classes[one["category_id"]] for one in data["annotations"]]
        assert told == [one["class"] or schema.object_name for one in objects]
        assert all(
            width > 0 and height > 0 for _, _, width, height in (one["bbox"] for one in data["annotations"])
        )

    def test_a_night_counts_the_plate_and_follows_its_statistics(
        self, package: Package, plate: Path, counted: Path, tmp_path: Path
    ) -> None:
        scope = tmp_path / "scope"
        (own := Path(shutil.copytree(plate, scope / "P")) / "DONE").touch()
        assert own.is_file()
        told = night(
            settings(
                scope,
                tmp_path / "counts",
                run={
                    "layout": {"kind": "imagexpress"},
                    **self.asked,
                    "model": {"package": str(package.folder), **self.asked.get("model", {})},
                    "channels": channels_of(package),
                },
                execution={"runner": "serial", "threads": 1, "shard_fields": 2, "max_failed": 1},
            )
        )
        summary = json.loads((counted / "summary.json").read_text())
        values = {reading.statistic: reading.value for reading in told.readings}
        for column in schema_of(counted).fields:
            if column.merge is Merge.COUNT:
                assert values[f"{column.name}_per_field"] == pytest.approx(
                    summary[f"{column.name}_per_field_mean"]
                )
            if column.merge is Merge.PERCENT:
                assert values[column.name] == pytest.approx(summary[column.name])


def channels_of(package: Package) -> dict[str, str]:
    """The channel of each role, for a package of several that are not the colours of one file: the first is w1, the second w2."""
    roles = package.input.channels
    return {} if len(roles) == 1 or roles == COLOURS else {role: f"w{at}" for at, role in enumerate(roles, 1)}


def schema_of(out: Path) -> Schema:
    return read_run(open_store(str(out), StorageOptions())).schema


def tables(out: Path) -> dict[str, object]:
    """What must be equal however fields were counted."""
    merged = ("wells.parquet", "plates.parquet", "summary.csv", "summary.json")
    found: dict[str, object] = {name: (out / name).read_bytes() for name in merged}
    for table in ("fields", "objects"):
        if (out / table).exists():
            found[table] = repr(rows(out, table).to_pylist())
    return found


def wait_for(state: Callable[[], bool], driver: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + LONGEST_S
    while not state():
        assert driver.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.005)
