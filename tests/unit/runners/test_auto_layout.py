"""A job with the layout "auto" is the job with the layout it finds: same tables, gone on with, and brought up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cellcount_core.cli.progress import Quiet
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.layouts.imagexpress import ImageXpressSettings
from cellcount_core.nightly.ledger import PlateStatus
from cellcount_core.nightly.plates import look
from cellcount_core.runners.job import plan_job, run_job
from cellcount_core.runners.update import update_job
from cellcount_core.stores.local import open_local
from tests.jobs import count, digest, job
from tests.nights import MONDAY, SimulatedClock, night, settings
from tests.plates import write_plate

AUTO = {"layout": {"kind": "auto"}}


class Told(Quiet):
    """Keeps the stages of a job."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)


def test_auto_writes_the_tables_that_the_layout_named_writes(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "P1", well_count=2)
    named = count(plate.folder, tmp_path / "named")
    found = count(plate.folder, tmp_path / "found", run=AUTO)

    assert found.run.fingerprint == named.run.fingerprint
    assert digest(tmp_path / "found") == digest(tmp_path / "named")
    written = json.loads((tmp_path / "found" / "run" / "run.json").read_text())
    assert written["run"]["layout"] == {"kind": "imagexpress"}


def test_the_layout_found_is_told_before_counting(tmp_path: Path) -> None:
    plate, told = write_plate(tmp_path / "P1", well_count=1), Told()
    run_job(job(plate.folder, tmp_path / "out", run=AUTO), told)
    assert "layout imagexpress: 2 of 2 names are of it" in told.stages


def test_a_run_goes_on_with_the_layout_it_was_planned_with(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "P1", well_count=1)
    asked = job(plate.folder, tmp_path / "out", run={**AUTO, "unparsed": "ignore"})
    run_job(asked, Quiet())
    for number in range(20):
        (plate.folder / f"added {number}.png").write_bytes(b"of another kind")
    with pytest.raises(ConfigFault, match="of several kinds are mixed"):
        plan_job(asked)

    updated = update_job(asked, Quiet())

    assert updated.taken == 2
    assert updated.job.run.run["layout"] == {"kind": "imagexpress"}


def test_a_night_finds_the_layout_of_each_plate(tmp_path: Path) -> None:
    plate = write_plate(tmp_path / "scope" / "P1", well_count=1)
    image = plate.file(*next(iter(plate.truth))).read_bytes()
    folders = {"photos": ("first", "second"), "mixed": ("X_A01_s1_w1", "one", "two", "three")}
    for folder, names in folders.items():
        (tmp_path / "scope" / folder).mkdir()
        for name in names:
            (tmp_path / "scope" / folder / f"{name}.tif").write_bytes(image)
    config = settings(tmp_path / "scope", tmp_path / "counts", complete={"unchanged_min": 0})
    config = config.model_copy(
        update={"run": config.run.model_copy(update={"layout": job("a", "b", run=AUTO).run.layout})}
    )
    seen = look(open_local(tmp_path / "scope"), config.run, config.complete)
    assert {plate.name: plate.layout.kind for plate in seen.plates} == {
        "P1": "imagexpress",
        "photos": "flat",
        "mixed": "auto",
    }

    done = night(config, SimulatedClock(date=MONDAY))

    assert {event.plate for event in done.of(PlateStatus.COUNTED)} == {"P1", "photos"}
    [refused] = done.of(PlateStatus.FAILED)
    assert refused.plate == "mixed"
    assert "1 is imagexpress ('X_A01_s1_w1.tif')" in refused.detail
    [layout] = [plate.layout for plate in seen.plates if plate.name == "P1"]
    assert layout == ImageXpressSettings()
