"""One recipe with several seeds."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from cellcount_core.cli.main import main
from cellcount_core.config import ExecutionConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.models.package import find_package, load_package
from cellcount_core.training.seeds import (
    SeedResult,
    draw_seeds,
    figures_of,
    mean_and_spread,
    of_seed,
    seeds_table,
    train_seeds,
    write_seeds,
)
from cellcount_core.training.spread import Spread, headline_of
from tests.unit.training.tiny import compact, smallest, write_archive


def results() -> list[SeedResult]:
    good = {"ap_50": 0.6, "ap_mean": 0.5, "count_mape": 0.1, "count_bias": -0.02}
    return [
        SeedResult(0, "p-seed0", {"f1_50": 0.80, **good}),
        SeedResult(1, "p-seed1", {"f1_50": 0.90, **good}),
        SeedResult(2, "", {}, "ConfigFault: no such data (x.py:1)"),
    ]


def test_mean_and_spread_are_over_the_seeds_that_ended_well() -> None:
    assert mean_and_spread(results(), "f1_50") == (pytest.approx(0.85), pytest.approx(0.0707107))
    assert mean_and_spread(results()[:1], "f1_50") == (0.8, 0.0)


def test_the_table_has_a_line_a_seed_then_mean_and_standard_deviation() -> None:
    lines = seeds_table(results()).splitlines()
    assert lines[0].split() == ["seed", "F1", "AP", "mean", "AP", "MAPE", "bias"]
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2", "mean", "sd"]
    assert "no such data" in lines[3]
    assert lines[4].split()[1] == "0.8500"


def test_the_csv_holds_the_same(tmp_path: Path) -> None:
    config = compact(tmp_path)
    path = write_seeds(config, results())
    rows = list(csv.DictReader(path.open()))
    assert path == tmp_path / "work-seeds.csv"
    assert [row["seed"] for row in rows] == ["0", "1", "2", "mean", "sd"]
    assert (rows[2]["f1_50"], rows[2]["fault"][:11]) == ("", "ConfigFault")
    assert float(rows[3]["f1_50"]) == pytest.approx(0.85)


def test_the_mean_of_few_seeds_is_less_certain_than_their_spread() -> None:
    few = Spread("p", "f1_50", {"seed 0": 0.8, "seed 1": 0.9})
    many = Spread("p", "f1_50", {f"seed {n}": value for n, value in enumerate((0.8, 0.9) * 5)})
    assert few.words() == "mean 0.850 of 2 (95 %: 0.215 to 1.000)"
    assert many.words() == "mean 0.850 of 10 (95 %: 0.812 to 0.888)"
    assert Spread("p", "f1_50", {"seed 0": 0.8}).words() == "mean 0.800 of 1"


def test_seeds_that_all_failed_are_not_drawn(tmp_path: Path) -> None:
    assert draw_seeds(compact(tmp_path), results()[2:]) is None
    assert not (tmp_path / "work-seeds.png").exists()


def test_the_picture_is_of_the_figure_by_which_packages_of_the_task_are_compared(tmp_path: Path) -> None:
    package = str(find_package("nuclei").folder)
    found = [SeedResult(seed, package, {"f1_50": 0.8 + seed / 100}) for seed in range(3)]
    assert headline_of(package) == "f1_50"
    path = draw_seeds(compact(tmp_path), found)
    assert path == tmp_path / "work-seeds.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_every_seed_has_folders_of_its_own(tmp_path: Path) -> None:
    config = compact(tmp_path)
    first, second = of_seed(config, 1), of_seed(config, 2)
    assert (first.seed, first.work_dir) == (1, f"{config.work_dir}-seed1")
    assert second.package_dir == f"{config.package_dir}-seed2"


def test_a_seed_given_twice_or_none_is_refused(tmp_path: Path) -> None:
    for seeds in ([], [1, 1]):
        with pytest.raises(ConfigFault, match="different whole numbers"):
            train_seeds(compact(tmp_path), seeds, ExecutionConfig())


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["serial", "ray"])
def test_seeds_are_trained_apart_and_one_that_fails_loses_none(
    tmp_path: Path, runner: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("keras", reason="Keras is not installed (extra: train)")
    pytest.importorskip("onnx", reason="onnx is not installed (extra: train)")
    write_archive(tmp_path / "X_and_y.npz")
    monkeypatch.setenv("CELLS_FOR_SEEDS", str(tmp_path))
    tree = smallest(tmp_path).model_dump(mode="json", exclude_unset=True)
    tree["data"]["path"] = "${CELLS_FOR_SEEDS}/X_and_y.npz"
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "package-seed1").mkdir()
    (tmp_path / "package-seed1" / "thesis.txt").write_text("years of work")
    code = main(["train", str(tmp_path / "c.yaml"), "--seeds", "0,1", "--runner", runner])
    printed = capsys.readouterr().out
    assert code == 3
    assert "seed 0: done" in printed
    assert "seed 1: ConfigFault: package_dir" in printed
    # Two steps teach nothing, and the end says so as that of a single training does.
    assert "warning: seed 0: counts of `tiny` are not to be trusted" in printed.splitlines()[-1]
    assert set(figures_of(tmp_path / "package-seed0")) == {
        "f1_50",
        "ap_50",
        "ap_mean",
        "count_mape",
        "count_bias",
    }
    assert load_package(tmp_path / "package-seed0").name == "tiny"
    assert "step 2/2" in (tmp_path / "work-seed0" / "progress.log").read_text()
    rows = list(csv.DictReader((tmp_path / "work-seeds.csv").open()))
    assert [bool(row["fault"]) for row in rows] == [False, True, False, False]
    assert f"picture: {tmp_path / 'work-seeds.png'}" in printed
    assert (tmp_path / "work-seeds.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "0,x"], "--seeds '0,x': whole numbers with commas"),
        (["--seeds", "0", "--package-now"], "give no --seeds with it"),
        (["--refit", "nowhere", "--package-now"], "--refit trains nothing"),
        (["--seeds", "0", "--runner", "slurm"], "runner"),
    ],
)
def test_arguments_that_are_none_are_refused(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = compact(tmp_path).model_dump(mode="json", exclude_unset=True)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    assert main(["train", str(tmp_path / "c.yaml"), *arguments]) == 2
    assert said in capsys.readouterr().err
