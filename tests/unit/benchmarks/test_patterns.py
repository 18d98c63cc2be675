"""What is measured of patterns: shares of folds, and what is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.patterns import Speed, draw_speed, draw_weights, main, statistics
from cellcount_core.demo.patterns import NAMES, TABLE, PatternScene, write_patterns


def test_the_shares_of_folds_are_printed_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_patterns(tmp_path, 200, PatternScene(common=0.5, rarest=10, side_px=18), 0)
    assert table.name == TABLE
    off = statistics(table, str(tmp_path / NAMES), 2)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 31
    assert told[0].startswith(f"{table}: 200 images")
    largest = float(told[-1].rpartition(": ")[0].rpartition(": ")[2].split("%")[0])
    assert off == (largest > 10)


def test_speeds_and_weights_are_drawn(tmp_path: Path) -> None:
    found = [
        Speed(size, 10, batch, cache, 5.0 * batch, 0.1)
        for size in ("0.2 M", "5 M") for cache in ("off", "memory") for batch in (1, 4)
    ]  # fmt: skip
    draw_speed(found, tmp_path / "speed.png")
    assert found[0].seconds == 0.2
    kernels = {"first": np.linspace(-1, 1, 50), "features": np.zeros(3)}
    draw_weights({"without": kernels, "with": kernels}, tmp_path / "weights.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("speed.png", "weights.png"))


def test_a_table_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["patterns", "statistics", str(tmp_path / "gone.csv")])
    assert main() == 2
    assert capsys.readouterr().err.splitlines() == [
        f"patterns: {tmp_path / 'gone.csv'}: cannot be read: No such file or directory"
    ]
