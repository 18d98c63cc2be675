"""When the accuracy that was measured for a package is too low for its counts to be trusted, or for those of some of its classes: one rule
for all tasks that find objects.

Training and folds say so at their end, and every run that is counted with such a package says it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

LEAST_F1 = 0.5
"""F1 at IoU 0.5, over images that did not train. Below it, more than half of what is counted or drawn has no counterpart."""

LARGEST_BIAS = 0.3
"""Share by which all objects of those images together may be counted too often or too rarely."""

LARGEST_CLASS_ERROR = 0.25
"""Mean share by which the count of a class may miss the boxes of an image. Where an image holds a handful of a class, one cell more or less
is a fifth; what lies above is more than that."""

TAUGHT_NOTHING = "taught_nothing"
"""Beside the figures of a package: why there was nothing that it could learn, in words, if that is so."""

_ERROR, _BIAS = "count_mape_", "count_bias_"
"""How figures of a class begin; its name follows."""

_AS_USUAL = "at_estimated_diameter"
"""Figures of images counted as a run counts them whose size nobody states; where a package has them, they are the ones that count."""


def untrusted(accuracy: Mapping[str, object]) -> str:
    """Why counts of a package of this accuracy are not to be trusted: "F1 0.21 (0.50 or more expected)"; "" if there is no reason, or if
    nothing was measured.

    `accuracy` is what a manifest states, or figures by the same names: `f1_50` and `count_bias`.

    >>> untrusted({"f1_50": 0.2, "count_bias": 8.44})
    'F1 0.20 (0.50 or more expected), counts 844 % too high (within 30 % expected)'
    >>> untrusted({"f1_50": 0.9, "count_bias": -0.05})
    ''
    """
    figures = _figures(accuracy)
    f1, bias = _number(figures.get("f1_50")), _number(figures.get("count_bias"))
    told = []
    if f1 is not None and f1 < LEAST_F1:
        told.append(f"F1 {f1:.2f} ({LEAST_F1:.2f} or more expected)")
    if bias is not None and abs(bias) > LARGEST_BIAS:
        side = "high" if bias > 0 else "low"
        told.append(
            f"counts {abs(bias):.0%} too {side} (within {LARGEST_BIAS:.0%} expected)".replace("%", " %")
        )
    return ", ".join(told)


def distrust(name: str, accuracy: Mapping[str, object]) -> str:
    """The sentence that warns of counts with the package `name`, or of those of some of its classes; "" if its accuracy is no reason to.

    >>> distrust("algae", {"count_bias": 0.5})
    'counts of `algae` are not to be trusted: on images that did not train it, counts 50 % too high (within 30 % expected): train longer, or label more images; `cellcount evaluate` shows what is missed'
    >>> distrust("kd-shuffled", {"taught_nothing": "its classes were dealt out at random"})
    'what `kd-shuffled` tells means nothing: its classes were dealt out at random'
    >>> distrust("blood", {"count_mape_RBC": 0.264, "count_bias_RBC": 0.02, "count_mape_WBC": 0.01})
    '`blood` counts as its training images were labelled: objects like those that have no label there are not counted. On images that did not train it, the count of an image misses its labels by 26 % in the mean for RBC (all images together +2 %)'
    """
    if why := accuracy.get(TAUGHT_NOTHING):
        return f"what `{name}` tells means nothing: {why}"
    if reason := untrusted(accuracy):
        return (
            f"counts of `{name}` are not to be trusted: on images that did not train it, {reason}: train longer, or label more images; "
            "`cellcount evaluate` shows what is missed"
        )
    inexact = _inexact_classes(_figures(accuracy))
    if not inexact:
        return ""
    return (
        f"`{name}` counts as its training images were labelled: objects like those that have no label there are not counted. On images that did "
        f"not train it, the count of an image misses its labels by {', by '.join(inexact)}"
    )


def _inexact_classes(figures: Mapping[str, object]) -> list[str]:
    """The classes whose counts miss the labels by far, in words, each with the error that all images have together."""
    told = []
    for key in sorted(figures):
        kind, error = key.removeprefix(_ERROR), _number(figures[key])
        if not key.startswith(_ERROR) or error is None or error <= LARGEST_CLASS_ERROR:
            continue
        bias = _number(figures.get(f"{_BIAS}{kind}"))
        together = "" if bias is None else f" (all images together {bias:+.0%})"
        told.append(f"{error:.0%} in the mean for {kind}{together}".replace("%", " %"))
    return told


def _figures(accuracy: Mapping[str, object]) -> Mapping[str, object]:
    usual = accuracy.get(_AS_USUAL)
    return usual if isinstance(usual, Mapping) else accuracy


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known and isinstance(value, int | float) else None
