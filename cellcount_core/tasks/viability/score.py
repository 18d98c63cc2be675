"""Evaluation against a table with the true numbers of live and dead cells of each image (columns `live` and `dead`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.statistics import wilson
from cellcount_core.tasks.task import Compared, Found, Truth, TruthKind

_COLUMNS = ("live", "dead")


class ViabilityScoring:
    """Compares numbers of live and dead cells, and the viability that follows, with true numbers from a table."""

    truth = TruthKind.TABLE
    names = _COLUMNS

    def score(self, truth: Truth, found: Found) -> Compared:
        """The row of one image: true and found numbers, both viabilities in %, and whether the interval holds the true one.

        Raises ConfigFault if a true number is not one.
        """
        true_live, true_dead = (_whole(truth.values[name], name) for name in _COLUMNS)
        live, dead = (found.values[name] for name in _COLUMNS)
        assert isinstance(live, int)
        assert isinstance(dead, int)
        true, told = _viability(true_live, true_dead), _viability(live, dead)
        ends = wilson(live, live + dead)
        holds = None if true is None or ends is None else 100 * ends[0] <= true <= 100 * ends[1]
        return Compared({
            "true_live": true_live, "true_dead": true_dead, "live": live, "dead": dead, "true_viability": true, "viability": told,
            "interval_holds": holds,
        })  # fmt: skip

    def figures(self, scored: Sequence[Compared]) -> dict[str, Value]:
        """Over all images: the errors of the count, of the pooled viability and of that of an image, in points, and how often intervals hold."""
        rows = [one.values for one in scored]
        total = {
            name: sum(_number(row[name]) for row in rows)
            for name in ("true_live", "true_dead", "live", "dead")
        }
        true, told = (
            _viability(total["true_live"], total["true_dead"]),
            _viability(total["live"], total["dead"]),
        )
        errors = [
            abs(_float(row["viability"]) - _float(row["true_viability"]))
            for row in rows
            if row["viability"] is not None and row["true_viability"] is not None
        ]
        held = [bool(row["interval_holds"]) for row in rows if row["interval_holds"] is not None]
        counted, truly = total["live"] + total["dead"], total["true_live"] + total["true_dead"]
        return {
            "images": len(rows),
            "true_cells": truly,
            "cells": counted,
            "count_bias": (counted - truly) / truly if truly else None,
            "true_viability": true,
            "viability": told,
            "pooled_error_points": None if true is None or told is None else told - true,
            "mean_error_points": math.fsum(errors) / len(errors) if errors else None,
            "largest_error_points": max(errors, default=None),
            "intervals_that_hold": sum(held) / len(held) if held else None,
        }


def _viability(live: int, dead: int) -> float | None:
    return 100 * live / (live + dead) if live + dead else None


def _whole(text: str, name: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise ConfigFault(f"column {name!r}: a number of cells expected (got {text!r})")
    return value


def _number(value: Value) -> int:
    assert isinstance(value, int)
    return value


def _float(value: Value) -> float:
    assert isinstance(value, float)
    return value
