"""k-fold: every group is held out once, folds are trained apart, and what was held out is measured."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cellcount_core.cli.main import main
from cellcount_core.tasks.matching import ImageScore, Match
from cellcount_core.tasks.task import Compared
from cellcount_core.training.folds import (
    CrossValidation,
    FoldResult,
    HeldOut,
    folds_table,
    of_fold,
    usual_diameter,
    write_folds,
)
from cellcount_core.training.learning import hold_out
from tests.unit.training.tiny import compact, smallest, write_archive


@dataclass(frozen=True)
class Photo:
    """As much of an image as splitting looks at."""

    id: str
    group: str


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.integers(2, 6))
def test_every_group_is_held_out_in_exactly_one_fold_and_never_cut(groups: list[int], folds: int) -> None:
    images = [Photo(str(number), f"g{group}") for number, group in enumerate(groups)]
    held = [hold_out(images, fold, folds) for fold in range(1, folds + 1)]  # type: ignore[type-var]
    assert sorted(image.id for _, part in held for image in part) == sorted(image.id for image in images)
    for kept, part in held:
        assert len(kept) + len(part) == len(images)
        assert not {image.group for image in kept} & {image.group for image in part}


def test_as_many_folds_as_groups_leave_out_one_at_a_time() -> None:
    images = [Photo(str(number), f"g{number // 2}") for number in range(10)]
    parts = [hold_out(images, fold, 5)[1] for fold in range(1, 6)]  # type: ignore[type-var]
    assert [len(part) for part in parts] == [2] * 5
    assert hold_out(images, 3, 5) == hold_out(images[:], 3, 5)  # type: ignore[type-var]


def scored(name: str, true: int, counted: int) -> tuple[str, Compared]:
    matches = tuple([Match(min(true, counted), max(0, true - counted), max(0, counted - true))] * 5)
    return name, Compared({}, ImageScore(name, "", true, counted, matches))


def validation() -> CrossValidation:
    folds = (
        FoldResult(
            1,
            HeldOut("p-fold1", (scored("a", 10, 12), scored("b", 5, 5)), 9.0),
            {"count_mae": 1.0, "f1_50": 0.9},
        ),
        FoldResult(2, HeldOut("p-fold2", (scored("c", 8, 6),), 8.0), {"count_mae": 2.0, "f1_50": None}),
        FoldResult(3, fault="ConfigFault: no such data"),
    )
    return CrossValidation(folds, {"count_mae": 4 / 3})


def test_the_table_has_a_line_a_fold_then_mean_deviation_and_all_together() -> None:
    lines = folds_table(validation()).splitlines()
    assert lines[0].split() == ["fold", "images", "F1", "MAE"]
    assert lines[1].split() == ["1", "2", "0.9000", "1.0000"]
    assert lines[2].split() == ["2", "1", "2.0000"]
    assert "no such data" in lines[3]
    assert lines[4].split() == ["mean", "0.9000", "1.5000"]
    assert lines[5].split() == ["sd", "0.0000", "0.7071"]
    assert lines[6].split() == ["pooled", "3", "1.3333"]


def test_everything_is_written_as_json_and_a_row_an_image(tmp_path: Path) -> None:
    told, table = write_folds(compact(tmp_path), validation())
    assert (told, table) == (tmp_path / "work-folds.json", tmp_path / "work-folds.csv")
    data = json.loads(told.read_text())
    assert data["mean"] == {"count_mae": 1.5, "f1_50": 0.9}
    assert data["folds"][0]["images"] == ["a", "b"]
    assert data["folds"][2]["fault"] == "ConfigFault: no such data"
    rows = list(csv.DictReader(table.open()))
    assert [(row["image"], row["fold"], row["true"], row["counted"]) for row in rows] == [
        ("a", "1", "10", "12"), ("b", "1", "5", "5"), ("c", "2", "8", "6"),
    ]  # fmt: skip


def test_images_are_counted_as_who_counts_them_would() -> None:
    assert usual_diameter(("model", "auto")) == "auto"
    assert usual_diameter(("model",)) == "model"
    assert usual_diameter((96.0, "auto")) == 96.0


def test_every_fold_has_folders_of_its_own_and_its_part_of_the_data(tmp_path: Path) -> None:
    config = compact(tmp_path)
    second = of_fold(config, 2, 5)
    assert (second.data.fold, second.work_dir) == ((2, 5), f"{config.work_dir}-fold2")
    assert second.package_dir == f"{config.package_dir}-fold2"


def recipe(folder: Path) -> Path:
    write_archive(folder / "X_and_y.npz", count=6)
    tree = smallest(folder).model_dump(mode="json", exclude_unset=True)
    (folder / "c.yaml").write_text(yaml.safe_dump(tree))
    return folder / "c.yaml"


@pytest.mark.slow
def test_folds_are_trained_apart_and_those_that_ended_are_kept_and_not_given_back_for_other_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
    command = ["train", str(recipe(tmp_path)), "--folds", "2", "--runner", "serial"]
    (tmp_path / "package-fold2").mkdir()
    (tmp_path / "package-fold2" / "thesis.txt").write_text("years of work")
    assert main(command) == 3
    printed = capsys.readouterr().out
    assert "fold 1: done; 1 of 2 folds" in printed
    assert "fold 2: ConfigFault: package_dir" in printed
    assert "step 2/2" in (tmp_path / "work-fold1" / "progress.log").read_text()
    kept = (tmp_path / "package-fold1" / "package.json").stat().st_mtime_ns
    (tmp_path / "package-fold2" / "thesis.txt").unlink()
    assert main(command) == 0
    assert "warning: counts of" in capsys.readouterr().out, "two steps teach nothing"
    assert (tmp_path / "package-fold1" / "package.json").stat().st_mtime_ns == kept
    assert (tmp_path / "work-folds.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "work-folds.json").read_text())
    assert sorted(name for fold in data["folds"] for name in fold["images"]) == [f"{n:06d}" for n in range(6)]
    assert {"f1_50", "count_mae", "count_bias"} <= set(data["mean"])

    write_archive(tmp_path / "X_and_y.npz", count=6, erased=3)
    assert main(command) == 3
    assert "fold 1: ConfigFault" in (told := capsys.readouterr().out)
    assert "fold 2: ConfigFault" in told
    assert "trained on other data" in told
    (tmp_path / "work-fold1" / "checkpoint.npz").unlink()
    assert main(command) == 3
    assert "fold 1: done" in (told := capsys.readouterr().out)
    assert "fold 2: ConfigFault" in told
    assert (tmp_path / "package-fold1" / "package.json").stat().st_mtime_ns > kept


def test_folds_of_one_group_are_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(recipe(tmp_path)), "--folds", "groups", "--runner", "serial"]
    write_archive(tmp_path / "X_and_y.npz", count=1)
    assert main(command) == 2
    assert (
        "its images are one group ('000000'), so no part of them can be held out" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        ("7", "--folds 7: 2 to 6 expected, the number of groups"),
        ("1", "--folds 1: 2 to 6 expected"),
        ("all", "--folds 'all': a whole number expected, or 'groups'"),
    ],
)
def test_folds_that_the_data_cannot_give_are_refused(
    tmp_path: Path, folds: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(recipe(tmp_path)), "--folds", folds, "--runner", "serial"]) == 2
    assert said in capsys.readouterr().err
