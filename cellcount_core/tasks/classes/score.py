"""Found classes beside true ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.domain.statistics import wilson
from cellcount_core.tasks.task import Found

_LEAST = 1e-6


class ClassScoring:
    """Compares the class of an image with its true one, which a table of truths has in the column `class`."""

    columns = ("class",)

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes

    def score(self, truth: Mapping[str, str], found: Found) -> dict[str, Value]:
        """One image: both classes, whether they are the same, and how probable the true one was held.

        Raises ConfigFault if the true class is none of the package's.
        """
        true = truth["class"]
        if true not in self._classes:
            raise ConfigFault(f"class {true!r} is none of the package's{nearest(true, self._classes)}")
        chances = found.values["probability"]
        assert isinstance(chances, Sequence)
        chance = chances[self._classes.index(true)]
        assert isinstance(chance, float)
        told = found.values["class"]
        return {"true": true, "found": told, "right": told == true, "probability_of_true": chance}

    def figures(self, rows: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
        """Over all images: the share that is right with its Wilson interval, the mean of that share over classes, and log loss."""
        right = sum(bool(row["right"]) for row in rows)
        ends = wilson(right, len(rows)) or (None, None)
        shares = []
        for name in self._classes:
            own = [bool(row["right"]) for row in rows if row["true"] == name]
            shares += [sum(own) / len(own)] if own else []
        chances = [row["probability_of_true"] for row in rows]
        losses = [-math.log(max(_LEAST, chance)) for chance in chances if isinstance(chance, float)]
        return {
            "images": len(rows),
            "accuracy": right / len(rows) if rows else None,
            "accuracy_low": ends[0],
            "accuracy_high": ends[1],
            "balanced_accuracy": sum(shares) / len(shares) if shares else None,
            "log_loss": sum(losses) / len(losses) if losses else None,
        }
