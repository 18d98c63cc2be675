"""Gates of size and shape, and what needs a pixel size: refused or told before anything is counted."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

import cellcount_core
from cellcount_core.cli.main import main
from cellcount_core.demo.live_dead import UM_PER_PX
from cellcount_core.domain.errors import ConfigFault, ExitCode
from tests.jobs import rows
from tests.viability import count

pytestmark = pytest.mark.beside


def test_a_gate_in_um_needs_a_pixel_size(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before all images are read, if no image has a pixel size; else those without one fail."""
    options = (
        "--layout", "imagexpress", "--model", "viability-fluorescence", "--channel", "all=w1", "--channel", "dead=w2", "--runner", "serial",
        "--min-diameter", "7um",
    )  # fmt: skip
    out = str(tmp_path / "out")
    for more in ((), ("--diameter", "18"), ("--threshold", "dead=150", "--threshold", "all=20")):
        assert main(["count", str(stained / "images"), out, *options, *more]) == ExitCode.CONFIG
        assert "--min-diameter 7um: none of 10 sampled fields has a pixel size" in capsys.readouterr().err
    images = tmp_path / "images"
    shutil.copytree(stained / "images", images)
    for path in images.glob("P_A01_s1_*"):
        tifffile.imwrite(
            path, tifffile.imread(path), imagej=True, resolution=(1 / UM_PER_PX,) * 2, metadata={"unit": "um"}
        )
    assert main(["count", str(images), out, *options]) == ExitCode.FAILURES
    assert rows(Path(out), "fields").column("reason").to_pylist().count("no_pixel_size") == 9


def test_what_needs_a_pixel_size_is_told_by_the_plan_where_the_object_size_is_given_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else would be sampled there, and every field would fail, or have no volume, after the count."""
    images, sized = tmp_path / "images", tmp_path / "sized"
    for folder, more in ((images, {}), (sized, {"resolution": (1 / 0.65,) * 2, "metadata": {"unit": "um"}})):
        folder.mkdir()
        for name in "ab":
            tifffile.imwrite(folder / f"{name}.tif", np.full((96, 96), 200, np.uint8), imagej=True, **more)
    given = ("--model", "viability-brightfield", "--diameter", "20")

    def planned(folder: Path, *options: str) -> tuple[int, str]:
        code = main(["plan", str(folder), *given, *options])
        told = capsys.readouterr()
        return code, told.out + told.err

    code, told = planned(images, "--min-diameter", "7um")
    assert (code, "none of 2 sampled fields has a pixel size" in told) == (ExitCode.CONFIG, True)
    code, told = planned(images, "--chamber", "improved_neubauer")
    assert (code, "--chamber: none of 2 sampled fields has a pixel size, so there will be no cells/mL" in told) == (ExitCode.OK, True)  # fmt: skip
    gates = ("--min-diameter", "30px", "--max-diameter", "7um")
    code, told = planned(sized, *gates)
    assert (code, "(30px) is larger than max_diameter (7um) at 0.65 µm per px" in told) == (ExitCode.CONFIG, True)  # fmt: skip
    out = tmp_path / "out"
    assert main(["count", str(sized), str(out), *given, *gates]) == ExitCode.CONFIG
    for needed in (("--min-diameter", "7um"), ("--chamber", "improved_neubauer")):
        code, told = planned(sized, *needed)
        assert (code, "pixel size" in told) == (ExitCode.OK, False)
        code, told = planned(images, *needed, "--um-per-px", "0.65")
        assert (code, "pixel size" in told) == (ExitCode.OK, False)


def test_a_gate_by_what_a_package_does_not_measure_is_refused_in_every_way_to_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Boxes have no outline, so no circularity: the gate would pass everything and be reported as applied."""
    images, out = tmp_path / "images", str(tmp_path / "out")
    images.mkdir()
    picture = np.full((96, 96, 3), 200, np.uint8)
    tifffile.imwrite(images / "a.tif", picture, photometric="rgb")
    told = "package 'viability-brightfield' finds cells as boxes, which have no outline"
    options = ["--model", "viability-brightfield", "--diameter", "20", "--min-circularity", "0.6"]
    config = tmp_path / "job.yaml"
    config.write_text(
        f"input: {images}\noutput: {out}\nrun: {{model: {{package: viability-brightfield}}, viability: {{min_circularity: 0.6}}}}\n"
    )
    for command in (
        ["count", str(images), out, *options],
        ["plan", str(images), *options],
        ["count", str(config)],
    ):
        assert main(command) == ExitCode.CONFIG, command
        assert told in capsys.readouterr().err
    gate = {"run.viability.min_circularity": 0.6}
    with pytest.raises(ConfigFault, match=told):
        cellcount_core.count(picture[..., 0], model="viability-brightfield", settings=gate)
    with pytest.raises(ConfigFault, match=told):
        cellcount_core.run(images, out, model="viability-brightfield", settings=gate)


def test_gates_that_leave_nothing_are_named_in_place_of_the_model(
    stained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert count(stained, tmp_path / "out", "--runner", "serial", "--min-diameter", "200um") == ExitCode.OK
    told = capsys.readouterr().out
    left_out = sum(rows(tmp_path / "out", "fields").column("gated_out").to_pylist())
    assert f"{left_out} objects left out by the gates (--min-diameter 200um)" in told
    assert "10 of 10 fields hold objects, all of which the gates left out" in told
    assert "try another --model" not in told


def test_gates_leave_out_objects_and_say_how_many(stained: Path, judged: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    gates = ("--min-diameter", "11um", "--min-circularity", "0.7", "--labels")
    assert count(stained, out, "--runner", "serial", *gates) == ExitCode.OK
    assert main(["verify", str(out)]) == ExitCode.OK
    objects = rows(out, "objects").to_pylist()
    assert min(each["diameter_um"] for each in objects) >= 11
    assert min(each["circularity"] for each in objects) >= 0.7
    for before, after in zip(
        rows(judged, "fields").to_pylist(), rows(out, "fields").to_pylist(), strict=True
    ):
        assert after["count"] + after["gated_out"] == before["count"]
        assert after["gated_out"] > 0
