"""A task without objects and without counts, from training to tables: images of rings, of stripes and of dots are told apart.

What it promises of a run as every task does is in tests/contract/tasks.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tifffile

from cellcount_core.cli.main import main
from cellcount_core.domain.errors import ExitCode
from cellcount_core.models.package import Package, read_for_writing, write_package
from tests.jobs import rows
from tests.random_features import train_classes
from tests.shapes import CLASSES
from tests.shapes import shape_image as image

pytestmark = pytest.mark.beside

WELLS = {"B02": "dots", "B03": "rings", "B04": "stripes", "B05": "dots", "B06": "rings", "B07": "stripes"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    truth = [CLASSES[number % 3] for number in range(90)]
    images = [(image(kind, 1000 + number),) for number, kind in enumerate(truth)]
    return train_classes(tmp_path_factory.mktemp("packages") / "shapes", "shapes", images, truth)


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six wells of two sites; one file is damaged."""
    folder = tmp_path_factory.mktemp("plates") / "P"
    folder.mkdir()
    for number, (well, kind) in enumerate(WELLS.items()):
        for site in (1, 2):
            tifffile.imwrite(folder / f"P_{well}_s{site}_w1.TIF", image(kind, 10 * number + site))
    damaged = folder / "P_B07_s2_w1.TIF"
    damaged.write_bytes(damaged.read_bytes()[:4000])
    return folder


def count(package: Package, plate: Path, out: Path, *more: str) -> int:
    return main(
        ["count", str(plate), str(out), "--layout", "imagexpress", "--model", str(package.folder),
         "--set", "execution.shard_fields=3", "--max-failed", "1", *more]
    )  # fmt: skip


@pytest.fixture(scope="module")
def counted(package: Package, plate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counted by the serial runner."""
    out = tmp_path_factory.mktemp("counted") / "out"
    assert count(package, plate, out, "--runner", "serial") == ExitCode.OK
    return out


def test_every_image_has_its_class_and_no_field_a_count(counted: Path) -> None:
    fields = rows(counted, "fields").to_pylist()
    assert len(fields) == 12
    for row in fields:
        if (row["Metadata_Well"], row["Metadata_Site"]) == ("B07", 2):
            assert (row["status"], row["reason"], row["class"], row["probability"]) == (
                "failed",
                "truncated",
                None,
                None,
            )
        else:
            assert row["class"] == WELLS[row["Metadata_Well"]]
            assert len(row["probability"]) == 3
            assert sum(row["probability"]) == pytest.approx(1, abs=1e-4)
            assert row["class_probability"] == max(row["probability"])
    assert not {"count", "diameter_px", "scale"} & set(fields[0])
    assert not (counted / "objects").exists()


def test_wells_plates_and_summary_say_what_the_schema_declares(
    counted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wells = {row["Metadata_Well"]: row for row in pq.read_table(counted / "wells.parquet").to_pylist()}
    assert (wells["B03"]["class_rings"], wells["B03"]["class_dots"]) == (2, 0)
    assert wells["B03"]["class_rings_share"] == 1 > wells["B03"]["class_rings_share_low"] > 0.3
    assert wells["B03"]["probability_rings"] > 0.5 > wells["B03"]["probability_dots"]
    summary = json.loads((counted / "summary.json").read_text())
    assert [summary[f"class_{name}"] for name in CLASSES] == [4, 4, 3]
    assert summary["object_name"] is None
    assert set(summary["features"]) == {"class_probability"}
    capsys.readouterr()
    assert main(["reduce", str(counted)]) == ExitCode.OK
    assert "4 dots, 4 rings, 3 stripes in 11 of 12 fields" in capsys.readouterr().out
    assert main(["verify", str(counted)]) == ExitCode.OK
    assert "12 expected = 11 ok + 1 failed + 0 missing + 0 skipped; 4 shards\n" in capsys.readouterr().out


def test_results_are_exported_and_drawn(counted: Path, tmp_path: Path) -> None:
    assert main(["export", str(counted), str(tmp_path / "results.csv")]) == ExitCode.OK
    table = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert list(table[0])[:5] == [
        "index",
        "class",
        "probability_dots",
        "probability_rings",
        "probability_stripes",
    ]
    assert [row["class"] for row in table] == [*[kind for kind in WELLS.values() for _ in (1, 2)][:-1], ""]
    assert main(["pictures", str(counted), "--fields", "2"]) == ExitCode.OK
    assert (counted / "pictures" / "plate_map.png").stat().st_size > 1000


def test_it_is_evaluated_by_a_table_of_classes(
    package: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["image,class"]
    for number in range(30):
        tifffile.imwrite(tmp_path / f"{number}.tif", image(CLASSES[number % 3], 500 + number))
        lines.append(f"{number}.tif,{CLASSES[number % 3]}")
    (tmp_path / "truth.csv").write_text("\n".join([*lines, ""]))
    out = tmp_path / "evaluation"
    assert (
        main(["evaluate", str(package.folder), str(tmp_path / "truth.csv"), "--out", str(out)]) == ExitCode.OK
    )
    found = json.loads((out / "evaluation.json").read_text())
    figures = {name: figure["value"] for name, figure in found["figures"].items()}
    assert (found["task"], figures["images"]) == ("classes", 30)
    assert not (out / "evaluation.html").exists()
    assert figures["accuracy"] > 0.9
    assert figures["accuracy_low"] < figures["accuracy"] <= figures["accuracy_high"]
    assert (out / "images.csv").read_text().splitlines()[
        0
    ] == "id,modality,width_px,height_px,true,found,right,probability_of_true,probability"
    (tmp_path / "truth.csv").write_text("image,class\n0.tif,ring\n")
    capsys.readouterr()
    assert (
        main(["evaluate", str(package.folder), str(tmp_path / "truth.csv"), "--out", str(out)])
        == ExitCode.CONFIG
    )
    assert "class 'ring' is none of the package's; did you mean 'rings'" in capsys.readouterr().err


def test_training_gives_the_same_package_again(package: Package, tmp_path: Path) -> None:
    truth = [CLASSES[number % 3] for number in range(90)]
    images = [(image(kind, 1000 + number),) for number, kind in enumerate(truth)]
    again = train_classes(tmp_path / "shapes", "shapes", images, truth)
    assert again.file("network.onnx").read_bytes() == package.file("network.onnx").read_bytes()


def test_a_network_of_other_classes_is_refused(
    package: Package, plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(package.folder, tmp_path / "shapes"))
    manifest = read_for_writing(folder)
    manifest["classes"] = {"classes": ["dots", "rings"], "side_px": 64}
    short = write_package(folder, manifest)
    assert count(short, plate, tmp_path / "out", "--runner", "serial") == ExitCode.MODEL
    assert "gives 3 numbers, the first 2 of sum" in capsys.readouterr().err
