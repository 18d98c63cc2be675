"""`cellcount count --update`: an output is brought up to a folder that lives, and a kill at any moment loses nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tifffile

from cellcount_core.cli.main import main
from cellcount_core.cli.progress import Quiet
from cellcount_core.domain.errors import ConfigFault, ExitCode, OutputFault
from cellcount_core.output.runfile import read_run
from cellcount_core.reduce.verify import verify
from cellcount_core.runners.update import UpdateResult, update_job
from cellcount_core.stores.base import StorageOptions
from cellcount_core.stores.local import open_local
from cellcount_core.stores.open import open_store
from tests.jobs import count, digest, job, rows
from tests.plates import Plate, nuclear_field, write_plate
from tests.s3_jobs import tables, upload
from tests.s3_server import S3Server

SERIAL = ["--runner", "serial", "--progress", "quiet"]


def update(plate: Plate, output: Path, **sections: object) -> UpdateResult:
    return update_job(job(plate.folder, output, **sections), Quiet())


def without(plate: Plate, *sites: tuple[str, int], away: Path) -> None:
    """Move these images away."""
    away.mkdir(exist_ok=True)
    for site in sites:
        plate.file(*site).rename(away / plate.file(*site).name)


def back(plate: Plate, *sites: tuple[str, int], away: Path) -> None:
    for site in sites:
        (away / plate.file(*site).name).rename(plate.file(*site))


def test_what_is_new_or_changed_is_counted_and_the_tables_are_those_of_a_fresh_count(tmp_path: Path) -> None:
    plate, out, away = write_plate(tmp_path / "plate", well_count=6), tmp_path / "out", tmp_path / "away"
    late = [("A02", 1), ("A06", 1), ("A06", 2)]
    without(plate, *late, away=away)
    count(plate.folder, out, run={"labels": "tiff"})
    back(plate, *late, away=away)
    shutil.copyfile(plate.file("A03", 2), plate.file("A04", 1))
    done = update(plate, out, run={"labels": "tiff"})
    assert done.changes is not None
    assert done.changes.added.first == [str(plate.file(*site).relative_to(plate.folder)) for site in late]
    assert done.changes.changed.number == 1
    assert done.changes.gone.number == 0
    # Three new fields and a changed one are read, the eight others are not.
    assert (done.taken, done.job.progress.statuses.total()) == (8, 4)
    count(plate.folder, tmp_path / "fresh", run={"labels": "tiff"})
    assert digest(out) == digest(tmp_path / "fresh")
    for label in (tmp_path / "fresh" / "labels").rglob("*.tif"):
        assert (out / label.relative_to(tmp_path / "fresh")).read_bytes() == label.read_bytes()
    assert verify(open_local(out)).proven
    # The plain command goes on with it, and so does another update: nothing is left to do.
    assert count(plate.folder, out, run={"labels": "tiff"}).progress.statuses.total() == 0
    again = update(plate, out, run={"labels": "tiff"})
    assert again.changes is not None
    assert again.changes.none
    assert again.job.progress.statuses.total() == 0
    assert not [file for file in (out / "run" / "update").rglob("*") if file.is_file()]


def test_images_that_may_lie_in_several_files_are_counted_anew_where_one_of_their_folder_changed(
    tmp_path: Path,
) -> None:
    plate, out, images = write_plate(tmp_path / "plate", well_count=2), tmp_path / "out", tmp_path / "images"
    for folder in ("a", "b"):
        (images / folder).mkdir(parents=True)
        for site in (1, 2):
            shutil.copyfile(plate.file("A02", site), images / folder / f"{site}.ome.tif")
    flat = {"run": {"layout": {"kind": "flat"}}}
    count(images, out, **flat)
    shutil.copyfile(plate.file("A01", 1), images / "b" / "3.ome.tif")
    done = update_job(job(images, out, **flat), Quiet())
    assert (done.taken, done.job.progress.statuses.total()) == (2, 3)
    count(images, tmp_path / "fresh", **flat)
    assert digest(out) == digest(tmp_path / "fresh")


def test_a_file_that_is_gone_leaves_a_missing_row_and_is_counted_when_it_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate, out, away = write_plate(tmp_path / "plate", well_count=4), tmp_path / "out", tmp_path / "away"
    count(plate.folder, out, run={"labels": "tiff"})
    before = digest(out)
    without(plate, ("A03", 1), away=away)
    assert main(["count", str(out), "--update", *SERIAL]) == ExitCode.FAILURES
    told = capsys.readouterr().out
    name = plate.file("A03", 1).relative_to(plate.folder)
    assert f"1 file was removed: {name}\n" in told
    assert "1 field updated (1 missing), 7 rows kept\n" in told
    assert "stay as missing (absent)" in told
    table = rows(out, "fields")
    gone = [row for row in table.to_pylist() if row["status"] == "missing"]
    assert [(row["Metadata_Well"], row["Metadata_Site"], row["reason"]) for row in gone] == [
        ("A03", 1, "absent")
    ]
    assert table.num_rows == 8
    assert verify(open_local(out)).proven
    assert not (out / "labels" / f"{name}.labels.tif").exists()
    # What the output knows to be gone does not stop the plain command, nor another update.
    assert main(
        [
            "count",
            str(plate.folder),
            str(out),
            "--layout",
            "imagexpress",
            "--model",
            "threshold",
            "--labels",
            *SERIAL,
        ]
    ) == (ExitCode.FAILURES)
    assert update(plate, out, run={"labels": "tiff"}).job.progress.statuses.total() == 0
    capsys.readouterr()
    back(plate, ("A03", 1), away=away)
    assert main(["count", str(plate.folder), str(out), "--update", *SERIAL]) == ExitCode.OK
    assert "1 field updated, 7 rows kept" in capsys.readouterr().out
    assert digest(out) == before


def test_of_two_files_for_one_field_one_must_go_and_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate, out = write_plate(tmp_path / "plate", well_count=1, sites=1), tmp_path / "out"
    twice = plate.file("A01", 1)
    other = twice.with_suffix(".tiff")
    shutil.copyfile(twice, other)
    given = ["count", str(plate.folder), str(out), "--layout", "imagexpress", "--model", "threshold", *SERIAL]
    assert main(given) == ExitCode.FAILURES
    told = capsys.readouterr().out
    offer = (
        f"once one of the two files is moved away or renamed: cellcount count {plate.folder} {out} --update"
    )
    assert f"{offer} (1 ambiguous_file)\n" in told
    assert "once their files are there" not in told
    # Nothing was counted of which a picture could be drawn.
    assert told.endswith(f"next: cellcount verify {out}\n")
    other.unlink()
    assert main(["count", str(plate.folder), str(out), "--update", *SERIAL]) == ExitCode.OK
    assert f"cellcount pictures {out}" in capsys.readouterr().out


def test_without_update_the_files_are_named_and_the_command_that_counts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate, out, away = write_plate(tmp_path / "a plate", well_count=8), tmp_path / "out", tmp_path / "away"
    late = [(f"A{well:02d}", site) for well in range(3, 9) for site in (1, 2)]
    without(plate, *late, away=away)
    given = ["count", str(plate.folder), str(out), "--layout", "imagexpress", "--model", "threshold", *SERIAL]
    assert main(given) == ExitCode.OK
    back(plate, *late, away=away)
    without(plate, ("A01", 1), away=away)
    capsys.readouterr()
    assert main(given) == ExitCode.OUTPUT
    told = capsys.readouterr().err
    names = [str(plate.file(*site).relative_to(plate.folder)) for site in late]
    assert f"12 files were added: {', '.join(names[:10])}, … and 2 more\n" in told
    assert f"1 file was removed: {plate.file('A01', 1).relative_to(plate.folder)}\n" in told
    assert f"  cellcount count '{plate.folder}' {out} --update\n" in told
    assert main(["count", str(plate.folder), str(out), "--update", *SERIAL]) == ExitCode.FAILURES


def test_other_settings_and_other_folders_are_refused(tmp_path: Path) -> None:
    plate, out = write_plate(tmp_path / "plate", well_count=2), tmp_path / "out"
    count(plate.folder, out)
    with pytest.raises(OutputFault, match=r"run\.z: 'max' -> 'mean'"):
        update(plate, out, run={"z": "mean"})
    other = write_plate(tmp_path / "other", well_count=4)
    for well, site in plate.truth:
        other.file(well, site).unlink()
    with pytest.raises(ConfigFault, match="none of the 4 files"):
        update(other, out)


def test_a_folder_that_was_renamed_is_told_from_one_that_lives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate, out = write_plate(tmp_path / "made", well_count=1), tmp_path / "out"
    images = plate.file("A01", 1).parent.rename(tmp_path / "images")
    given = ["--layout", "flat", "--model", "threshold", *SERIAL]
    assert main(["count", str(images), str(out), *given]) == ExitCode.OK
    # Also where the output knows of files that were removed before.
    (images / plate.file("A01", 2).name).unlink()
    assert main(["count", str(out), "--update", *SERIAL]) == ExitCode.FAILURES
    renamed = images.rename(tmp_path / "renamed")
    for command in (
        ["count", str(renamed), str(out), *given],
        ["count", str(renamed), str(out), "--update", *SERIAL],
    ):
        capsys.readouterr()
        assert main(command) in (ExitCode.OUTPUT, ExitCode.CONFIG)
        told = capsys.readouterr().err
        assert "give the folder its name back" in told
        assert "--update" not in told


def test_sizes_that_were_found_stay_and_those_of_new_plates_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    auto = {
        "run": {
            "model": {"package": "nuclei"},
            "layout": {"kind": "pattern", "pattern": r"(?P<plate>\w+)/(?P<well>\w+)\.tif$"},
        }
    }

    def write(plate: str, well: str, diameter: float) -> None:
        (images / plate).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            images / plate / f"{well}.tif", nuclear_field(diameter, 12, seed=len(well), side=200)
        )

    write("p1", "A1", 20)
    write("p1", "A2", 20)
    count(images, out, **auto)
    write("p1", "A3", 24)
    write("p2", "A1", 32)
    assert main(["count", str(out), "--update", *SERIAL]) == ExitCode.OK
    told = capsys.readouterr().out
    assert "2 fields updated, 2 rows kept\n" in told
    assert "new images were counted at the object sizes found before for their plate and image size (" in told
    run = read_run(open_local(out))
    pools = {scale.plate: scale.diameter_px for scale in run.scales}
    assert f"{pools['p1']:.1f} px in plate 'p1')" in told
    assert pools["p1"] == pytest.approx(20, rel=0.1)
    assert pools["p2"] == pytest.approx(32, rel=0.1)
    assert verify(open_local(out)).proven
    assert count(images, out, **auto).progress.statuses.total() == 0


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(step: int, folder: Path) -> Iterator[list[str]]:
    """No file below `folder` gets its name, and none is removed, from the operation number `step` on; gives what was done."""
    done: list[str] = []
    real = {name: getattr(os, name) for name in ("link", "replace", "unlink")}

    def stepped(name: str) -> object:
        def act(*arguments: object, **more: object) -> object:
            if str(folder) in str(arguments[-1]):
                if len(done) == step:
                    raise Killed
                done.append(f"{name} {arguments[-1]}")
            return real[name](*arguments, **more)

        return act

    with pytest.MonkeyPatch.context() as patch:
        for name in real:
            patch.setattr(os, name, stepped(name))
        yield done


def test_an_update_killed_at_any_moment_is_ended_by_the_same_command(tmp_path: Path) -> None:
    plate, away, before = (
        write_plate(tmp_path / "plate", well_count=3),
        tmp_path / "away",
        tmp_path / "before",
    )
    late, lost = [("A02", 1), ("A03", 2)], ("A01", 1)
    without(plate, *late, away=away)
    small = {"execution": {"shard_fields": 2}}
    count(plate.folder, before, **small)
    untouched = digest(before)
    back(plate, *late, away=away)
    without(plate, lost, away=away)
    shutil.copytree(before, tmp_path / "whole")
    with killed_at(-1, tmp_path / "whole") as done:
        update(plate, tmp_path / "whole", **small)
    expected = digest(tmp_path / "whole")
    ready, gone = (
        [step for step, what in enumerate(done) if what.endswith("update/ready.json")][at] for at in (0, 1)
    )
    # Until the update is whole its steps are alike, and so are those that clear it away: a few are tried. Each of those between
    # is one that a reader could see.
    seen = [step for step in range(ready, gone + 1) if not done[step].endswith(".partial")]
    steps = [*range(0, ready, 12), *seen, gone + 1, len(done) - 2]
    assert len(seen) > 15
    for step in steps:
        out = tmp_path / f"out{step}"
        shutil.copytree(before, out)
        with killed_at(step, out), pytest.raises(Killed):
            update(plate, out, **small)
        if step <= ready:
            assert digest(out) == untouched, done[step]
        elif not (told := verify(open_local(out))).proven:
            assert "--update` ends it" in str(told.findings[0])
        assert update(plate, out, **small).job.summary.fields == 6, done[step]
        assert digest(out) == expected, done[step]
        assert verify(open_local(out)).proven, done[step]
        shutil.rmtree(out)


def test_an_output_on_s3_is_updated_alike(tmp_path: Path, s3_server: S3Server) -> None:
    plate = write_plate(tmp_path / "plate", well_count=2)
    store = {"storage": {"endpoint": s3_server.endpoint}}
    with s3_server.with_buckets("faults-update"):
        source, out = "s3://faults-update/plate", "s3://faults-update/out"
        options = StorageOptions(endpoint=s3_server.endpoint)
        without(plate, ("A02", 1), away=tmp_path / "away")
        upload(plate, open_store(source, options))
        count(source, out, **store)
        back(plate, ("A02", 1), away=tmp_path / "away")
        upload(plate, open_store(source, options))
        done = update_job(job(source, out, **store), Quiet())
        assert (done.taken, done.job.progress.statuses.total()) == (3, 1)
        count(source, tmp_path / "fresh", **store)
        assert tables(out, s3_server.endpoint) == tables(tmp_path / "fresh")
        assert verify(open_store(out, options)).proven
        assert not [one.key for batch in open_store(out, options).list("run/update") for one in batch]
