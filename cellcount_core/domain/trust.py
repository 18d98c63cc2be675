"""When the accuracy that was measured for a package is too low for its counts to be trusted: one rule for all tasks that find objects.

Training and folds say so at their end, and every run that is counted with such a package says it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

LEAST_F1 = 0.5
"""F1 at IoU 0.5, over images that did not train. Below it, more than half of what is counted or drawn has no counterpart."""

LARGEST_BIAS = 0.3
"""Share by which all objects of those images together may be counted too often or too rarely."""

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
    usual = accuracy.get(_AS_USUAL)
    figures = usual if isinstance(usual, Mapping) else accuracy
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
    """The sentence that warns of counts with the package `name`, and what to do; "" if its accuracy is no reason to.

    >>> distrust("algae", {"count_bias": 0.5})
    'counts of `algae` are not to be trusted: on images that did not train it, counts 50 % too high (within 30 % expected): train longer, or label more images; `cellcount evaluate` shows what is missed'
    """
    reason = untrusted(accuracy)
    if not reason:
        return ""
    return (
        f"counts of `{name}` are not to be trusted: on images that did not train it, {reason}: train longer, or label more images; "
        "`cellcount evaluate` shows what is missed"
    )


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known and isinstance(value, int | float) else None
