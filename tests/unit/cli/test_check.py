"""`cellcount check`: all that is wrong with an input, told at once, each seen on a plate with that one fault."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellcount_core.cli.main import main
from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ExitCode
from cellcount_core.plan.check import checked
from cellcount_core.plan.inspect import inspected
from cellcount_core.stores.base import Listed
from cellcount_core.stores.wrapped import CountingStore
from tests.data_dir import data_dir, needs_data
from tests.plates import discs
from tests.unit.plan.listings import MemoryStore

WELLS, SITES, WAVES = ("B02", "B03", "B04"), (1, 2), (1, 2)


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """A plate without a fault: 3 wells, 2 sites, 2 channels, of which each image differs."""
    folder = tmp_path / "plate"
    folder.mkdir()
    seed = 0
    for well in WELLS:
        for site in SITES:
            for wave in WAVES:
                seed += 1
                tifffile.imwrite(folder / f"P1_{well}_s{site}_w{wave}.tif", discs(4, 96, seed))
    return folder


def file(plate: Path, well: str = "B02", site: int = 1, wave: int = 1) -> Path:
    return plate / f"P1_{well}_s{site}_w{wave}.tif"


def told(plate: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["check", str(plate), "--channel", "w1", *words])
    return code, capsys.readouterr().out


def test_a_plate_without_a_fault_is_told_with_how_much_work_it_is(
    plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = told(plate, capsys, "--price", "3", "--cores", "1")
    assert code == ExitCode.OK, out
    assert "layout: imagexpress: 12 of 12 names are of it" in out
    size = sum(file(plate, well, site).stat().st_size for well in WELLS for site in SITES)
    assert f"work: 6 fields, 6 files, {size / 1000:.3g} kB to read" in out
    assert "cost " in out
    assert "note: plate 'P1': the pixel size is not known" in out
    assert "0 faults; 12 images opened" in out


def test_all_faults_come_in_one_report(plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plate / "overview.png").write_bytes(b"x")
    file(plate, "B03", 2, 1).unlink()
    file(plate, "B03", 2, 2).unlink()
    file(plate, "B04", 1, 1).unlink()
    file(plate, "B04", 2, 1).write_bytes(b"")
    code, out = told(plate, capsys)
    assert code == ExitCode.CONFIG
    assert "stop: the layout cannot read the name of 1 image file: 'overview.png'" in out
    assert "fault: plate 'P1': 1 of 3 wells have another number of sites than most (2): B03 1" in out
    assert "fault: plate 'P1': 1 of 5 fields have no file of channel 'w1', such as B04 site 1 time 1" in out
    assert "fault: 1 file has 0 bytes, such as P1_B04_s2_w1.tif" in out
    assert "4 faults" in out


def test_a_missing_file_of_a_channel_that_is_not_counted_is_only_noted(
    plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file(plate, "B04", 1, 2).unlink()
    code, out = told(plate, capsys)
    assert code == ExitCode.OK
    assert "note: plate 'P1': 1 of 6 fields have no file of channel 'w2'" in out


def test_a_file_that_is_cut_short_is_found_by_its_size_and_opened(
    plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = file(plate, "B03", 2).read_bytes()
    file(plate, "B03", 2).write_bytes(body[: len(body) // 2])
    code, out = told(plate, capsys)
    assert code == ExitCode.FAILURES
    assert "fault: 1 of 12 images opened cannot be read (truncated), such as P1_B03_s2_w1.tif" in out


def test_zeros_sizes_and_types_that_differ_are_told_with_an_example(
    plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(file(plate, "B03", 1), np.zeros((96, 96), np.uint16))
    tifffile.imwrite(file(plate, "B04", 1), discs(4, 64, 99))
    tifffile.imwrite(file(plate, "B04", 2), (discs(4, 96, 98) >> 4).astype(np.uint8))
    code, out = told(plate, capsys)
    assert code == ExitCode.FAILURES
    assert "fault: 1 of 12 images opened hold zeros alone, such as P1_B03_s1_w1.tif" in out
    assert "fault: plate 'P1': images of several sizes: " in out
    assert "64 x 64 px (P1_B04_s1_w1.tif)" in out
    assert "uint8 (P1_B04_s2_w1.tif)" in out


def test_files_of_the_same_content_are_told(plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file(plate, "B04", 1).write_bytes(file(plate, "B02", 1).read_bytes())
    code, out = told(plate, capsys)
    assert code == ExitCode.FAILURES
    assert (
        "fault: 1 file has the content of another one, such as P1_B02_s1_w1.tif and P1_B04_s1_w1.tif" in out
    )


def test_a_pixel_size_that_contradicts_another_is_told_with_both_sources(
    plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for well in WELLS:
        metadata = {"axes": "YX", "PhysicalSizeX": 0.65, "PhysicalSizeY": 0.65}
        tifffile.imwrite(file(plate, well, 1), discs(4, 96, 7), ome=True, metadata=metadata)
    code, out = told(plate, capsys, "--um-per-px", "0.325")
    assert code == ExitCode.FAILURES
    assert (
        "contradicting pixel sizes: 0.325 µm by run.um_per_px, which is used, 0.65 µm by image files (P1_B02_s1_w1.tif)"
        in out
    )


def test_a_channel_that_is_not_there_stops_with_the_known_ones(
    plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(plate), "--channel", "w7"]) == ExitCode.CONFIG
    out = capsys.readouterr().out
    assert "stop: run.channels.nuclei: no file of channel 'w7'" in out
    assert "'w1', 'w2'" in out


def test_an_input_whose_layout_is_not_plain_stops(plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plate / "r01c02f03p04-ch1sk1fk1fl1.tiff").write_bytes(b"x")
    code, out = told(plate, capsys)
    assert code == ExitCode.CONFIG
    assert out.startswith("stop: 13 image names of several kinds are mixed")


class Bucket(MemoryStore):
    """A store whose tags are digests of the content, as those of S3 are."""

    def list(self, prefix: str = "") -> Iterator[list[Listed]]:
        for batch in super().list(prefix):
            yield [replace(one, etag=hashlib.md5(self.objects[one.key]).hexdigest()) for one in batch]


def test_on_s3_files_of_the_same_content_are_told_by_their_tags_however_many_there_are() -> None:
    bodies = {f"P1_{well}_s{site}_w1.tif": f"{well}{site}".encode() for well in WELLS for site in SITES}
    store = CountingStore(Bucket(bodies | {"P1_B05_s1_w1.tif": b"B021"}, "s3://bucket/plate"))
    with inspected(store, RunConfig()) as seen:
        told = checked(store, seen, ("nuclei",)).findings
    assert [one.told for one in told if "content" in one.told] == [
        "1 file has the content of another one, such as P1_B02_s1_w1.tif and P1_B05_s1_w1.tif"
    ]
    assert store.counts.lists == 1
    assert max(store.read.values()) == 1


@needs_data("plates/imagexpress_htd_export")
def test_an_instruments_metadata_is_held_against_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    data = data_dir()
    assert data is not None
    code, out = told(data / "plates" / "imagexpress_htd_export", capsys)
    assert code == ExitCode.FAILURES
    assert "9987.HTD states 6 time points (files are of 2)" in out
    assert "3 fields are missing, such as B02 site 2 time 1" in out
    assert "note: plate '9987@9987_Plate_3435': 1.3672 µm per px, by image files" in out


def test_what_the_refusal_of_numbered_wells_advises_works_in_every_command_that_gives_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scan"
    folder.mkdir()
    for well in (1, 2):
        tifffile.imwrite(folder / f"--W{well:05d}--P00001--Z00000--T00000--DAPI.tif", discs(4, 96, well))
    for command in (["check"], ["layout", "test"]):
        assert main([*command, str(folder)]) == ExitCode.CONFIG
        assert "--plate-format 96" in capsys.readouterr().out
        assert main([*command, str(folder), "--plate-format", "96"]) == ExitCode.OK
        assert "A01" in capsys.readouterr().out
