"""From signals to classes: by which rule each role is judged, which class a cell is of, and what gates leave of a field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cellcount_core.config import RunConfig, ViabilityConfig, length
from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.output.rows import ObjectColumn
from cellcount_core.tasks.task import Found
from cellcount_core.tasks.viability.columns import BOTH, CLASSES, DEAD, LIVE, NEITHER
from cellcount_core.tasks.viability.rule import (
    RoleRule,
    above_noise,
    between_populations,
    given_rule,
    rule_in,
)

Floats = NDArray[np.float64]

ALL = "all"
"""The role of a stain of all cells."""

_HALF = 0.5


def rules_for(
    run: RunConfig,
    numbers: Mapping[str, float],
    roles: tuple[str, ...],
    signals: Mapping[str, Floats],
    noise: Mapping[str, float],
) -> dict[str, RoleRule]:
    """The rule of each role: the one given, else that of the plate (`numbers`), else one found on these cells alone."""
    settings, found = run.viability, {}
    for role in roles:
        other = other_role(role, roles)
        planned = rule_in(numbers, role)
        if role in settings.thresholds:
            found[role] = given_rule(settings.thresholds[role], settings.spill.get(role, 0.0), noise[role])
        elif planned is not None:
            found[role] = planned
        else:
            found[role] = found_rule(
                role, signals[role], signals[other], noise[role], noise[other], settings.spill.get(role)
            )
    return found


def found_rule(
    role: str, signal: Floats, other: Floats, noise: float, other_noise: float, spill: float | None
) -> RoleRule:
    """The rule of a role from the signals (n,) of cells that may be positive or not, and from those in the other role."""
    if role == ALL:
        return above_noise(noise)
    return between_populations(signal, other, noise, other_noise, spill)


def other_role(role: str, roles: tuple[str, ...]) -> str:
    """The other one of two roles."""
    return next(each for each in roles if each != role)


def told_by_roles(
    rules: Mapping[str, RoleRule], signals: Mapping[str, Floats]
) -> tuple[NDArray[np.int64], Floats, dict[str, Floats]]:
    """Classes (n,) as places in `CLASSES`, their probabilities (n,), and the signals without what spills over."""
    roles = tuple(rules)
    clean = {role: rules[role].clean(signals[role], signals[other_role(role, roles)]) for role in roles}
    chance = {role: rules[role].probability(clean[role]) for role in roles}
    dead, shown = chance[DEAD], chance[other_role(DEAD, roles)]
    if ALL in rules:
        # Dead stain tells enough: in dead cells it may drive out the stain of all cells.
        each = {
            LIVE: (1 - dead) * shown,
            DEAD: dead,
            NEITHER: (1 - dead) * (1 - shown),
            BOTH: np.zeros_like(dead),
        }
        positive = dead >= 0.5
        kind = np.where(
            positive, CLASSES.index(DEAD), np.where(shown >= 0.5, CLASSES.index(LIVE), CLASSES.index(NEITHER))
        )
    else:
        each = {
            LIVE: shown * (1 - dead),
            DEAD: dead * (1 - shown),
            BOTH: dead * shown,
            NEITHER: (1 - dead) * (1 - shown),
        }
        is_live, is_dead = shown >= 0.5, dead >= 0.5
        kind = np.where(
            is_live & is_dead, CLASSES.index(BOTH),
            np.where(is_live, CLASSES.index(LIVE), np.where(is_dead, CLASSES.index(DEAD), CLASSES.index(NEITHER))),
        )  # fmt: skip
    table = np.stack([each[name] for name in CLASSES])
    kinds = kind.astype(np.int64)
    return kinds, table[kinds, np.arange(kinds.size)], clean


def within_gates(
    settings: ViabilityConfig, diameter: Floats, circularity: Floats, um_per_px: float | None
) -> NDArray[np.bool_]:
    """Which cells (n,) pass the gates of diameter (px) and circularity. An unknown circularity (nan) passes.

    Raises FieldFault NO_PIXEL_SIZE if a gate is given in µm and the pixel size is not known.
    """
    kept = np.ones(diameter.size, np.bool_)
    for text, passes in ((settings.min_diameter, np.greater_equal), (settings.max_diameter, np.less_equal)):
        if text is not None:
            kept &= passes(diameter, _in_px(text, um_per_px))
    if settings.min_circularity is not None:
        kept &= ~(circularity < settings.min_circularity)
    return kept


def gated(found: Found, kept: NDArray[np.bool_], shape: tuple[int, int]) -> Found:
    """What was found, without the objects (n,) that are not `kept`; the others are numbered anew, in their order."""
    if kept.all():
        return found
    objects = found.objects
    assert objects is not None
    columns, _ = objects.rows()
    number = int(np.count_nonzero(kept))
    lookup = np.zeros(kept.size + 1, np.int32)
    lookup[1:][kept] = np.arange(1, number + 1)
    areas = {
        name: np.asarray(values)[kept] for name, values in columns.items() if name.endswith("_AreaShape_Area")
    }
    area = int(next(iter(areas.values())).sum()) if areas else objects.area_px
    edge = np.asarray(columns.get("touches_border", np.zeros(kept.size, np.bool_)))[kept]
    values: dict[str, Value] = {**found.values, "count": number, "count_border": int(edge.sum())}
    if "area_fraction" in values:
        values["area_fraction"] = area / (shape[0] * shape[1])
    # The interval is that of all objects that the network finds.
    values |= {name: None for name in ("count_low", "count_high") if name in values}
    diameters = [
        np.asarray(values_)[kept]
        for name, values_ in columns.items()
        if name.endswith("_AreaShape_EquivalentDiameter")
    ]
    middle = float(np.median(diameters[0])) if diameters and number else None
    return replace(
        found,
        values=values,
        objects=replace(objects, count=number, area_px=area, diameter_px=middle, left_out=kept.size - number),
        labels=None if found.labels is None else lookup[found.labels],
        boxes=None if found.boxes is None else found.boxes[kept],
        classes=None if found.classes is None else found.classes[kept],
    )


def taken(values: ObjectColumn, kept: NDArray[np.bool_]) -> ObjectColumn:
    """The values of the objects (n,) that are `kept`."""
    if isinstance(values, np.ndarray):
        return values[kept]
    return [value for value, is_kept in zip(values, kept, strict=True) if is_kept]


def cell_level(rule: RoleRule, signal: Floats) -> float:
    """The height above background at which light in the role `dead` has the extent of a cell: at least the threshold.

    A threshold far below the signals (n,) of dead cells lies in the blur around them, which covers more than the cells do. Half the
    signal of the usual positive cell is where its blurred edge lies.
    """
    positive = signal[signal > rule.threshold]
    return max(rule.threshold, _HALF * float(np.median(positive))) if positive.size else rule.threshold


def _in_px(text: str, um_per_px: float | None) -> float:
    """A length in px of an image. Raises FieldFault NO_PIXEL_SIZE if it is given in µm and the pixel size is not known."""
    given = length(text)
    if given.unit == "px":
        return given.value
    if um_per_px is None:
        raise FieldFault(
            Reason.NO_PIXEL_SIZE,
            f"the diameter {text} of a gate cannot be told in an image without a pixel size: give it (--set run.um_per_px=PIXELSIZE), or the "
            "diameter in px",
        )
    return given.in_px(um_per_px)
