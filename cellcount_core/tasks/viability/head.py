"""How cells of a field are found and told live, dead, both or neither: by the classes of boxes, or by their signals in two roles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.columns import OBJECT_NUMBER, Column
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import FieldFault, ModelFault, Reason, nearest
from cellcount_core.domain.statistics import Moments
from cellcount_core.images.imagefile import Plane
from cellcount_core.models.package import Package
from cellcount_core.output.rows import ObjectColumn
from cellcount_core.tasks.instances.columns import (
    CENTRE_X,
    CENTRE_Y,
    DIAMETER,
    FORM_FACTOR,
    MEAN_INTENSITY,
    full_name,
    object_moments,
)
from cellcount_core.tasks.task import (
    CanvasMaps,
    Found,
    Head,
    SizeEstimate,
    Task,
    TaskSection,
    View,
    read_section,
    task_of,
)
from cellcount_core.tasks.viability.columns import (
    BOTH,
    CLASS_PROBABILITY,
    CLASSES,
    DEAD,
    LIVE,
    NEITHER,
    Cells,
    field_values,
    object_columns,
    object_values,
    sample_volume,
    touching,
)
from cellcount_core.tasks.viability.judging import (
    ALL,
    cell_level,
    gated,
    rules_for,
    taken,
    told_by_roles,
    within_gates,
)
from cellcount_core.tasks.viability.rule import (
    RoleRule,
)
from cellcount_core.tasks.viability.signal import Backdrop, backdrop, bright_area

Floats = NDArray[np.float64]

_FINDERS = ("instances", "boxes")

_DENSE = 0.25
"""Share of a field that cells cover, from which on it is too dense."""

_BLANK = 0.5
"""Share of an image's pixels that have its largest value, from which on it shows nothing: it is of one value, or overexposed throughout."""

_UNSORTED, _FEWEST_UNSORTED = 0.2, 5
"""Share of the cells (and number) that are both or neither, above which viability says little of a field."""

_OUTSIDE = 1.6
"""Times the area of all cells that the light in the role `dead` covers, from which on the channels may be swapped."""

_BOX_CORNERS = tuple(
    f"{{object}}_AreaShape_BoundingBox{end}_{axis}" for end in ("Minimum", "Maximum") for axis in ("Y", "X")
)


class ViabilitySection(TaskSection):
    """The section `viability` of a package's manifest.

    `instances` or `boxes` is the section of the task that finds the cells. With boxes, `classes` says what the classes of that section stand
    for: `{"living": "live", "dead": "dead"}`. With instances, the package's channels are the roles.
    """

    instances: dict[str, object] | None = None
    boxes: dict[str, object] | None = None
    classes: dict[str, str] = {}  # noqa: RUF012 (pydantic gives each section its own)


@dataclass(frozen=True, slots=True)
class Finder:
    """The task that finds the cells, and the package as that task sees it. `roles` tell the class, `classes` translate those of boxes."""

    task: Task
    package: Package
    roles: tuple[str, ...]
    classes: Mapping[str, str]


def finder_of(package: Package) -> Finder:
    """Raises ModelFault if the section does not say how cells are found and told apart."""
    section = read_section(ViabilitySection, package)
    given = {name: part for name in _FINDERS if (part := getattr(section, name)) is not None}
    if len(given) != 1:
        raise ModelFault(
            f"package {package.name!r}: viability needs one section of {', '.join(_FINDERS)} (got {len(given)})"
        )
    [(name, part)] = given.items()
    inner = replace(package, task=name, section=part)
    if name == "boxes":
        for stated in section.classes.values():
            if stated not in CLASSES:
                raise ModelFault(
                    f"package {package.name!r}: viability.classes: {stated!r} is no class{nearest(stated, CLASSES)}"
                )
        if not {LIVE, DEAD} <= {*section.classes.values()}:
            raise ModelFault(
                f"package {package.name!r}: viability.classes must say which classes are live and dead"
            )
        return Finder(task_of(inner), inner, (), section.classes)
    roles = package.input.channels
    if set(roles) not in ({ALL, DEAD}, {LIVE, DEAD}):
        raise ModelFault(
            f"package {package.name!r}: its channels must be the roles all and dead, or live and dead (got {', '.join(roles)})"
        )
    return Finder(task_of(inner), inner, roles, {})


@dataclass(frozen=True, slots=True, eq=False)
class _Signals:
    """What the finding task found in a field: the columns of the objects, and for each role the signals (n,), noise and background."""

    found: Found
    columns: Mapping[str, ObjectColumn]
    signals: Mapping[str, Floats]
    noise: Mapping[str, float]
    backdrops: Mapping[str, Backdrop]


class ViabilityHead:
    """Finds cells and tells them live or dead. Raises ModelFault if the package's section is wrong."""

    def __init__(self, package: Package) -> None:
        self.finder = finder_of(package)
        self._head: Head = self.finder.task.head(self.finder.package)
        self._name = package.object_name

    def size(self, planes: tuple[Plane, ...], maps: CanvasMaps) -> SizeEstimate:
        """How large the objects of an image are, as the finding task estimates it."""
        return self._head.size(planes, maps)

    def find(self, view: View) -> Found:
        """The cells of a field and their classes.

        Raises FieldFault NO_PIXEL_SIZE if a gate is given in µm and the field has no pixel size.
        """
        self._check_units(view)
        seen = self.look(view)
        with view.clock("measure"):
            return self._judged(view, seen)

    def bits(self, view: View) -> dict[str, int]:
        """Bits of a pixel in the image of each role; those of floats are 32."""
        return {role: 8 * plane.dtype.itemsize for role, plane in self._planes(view).items()}

    def blank(self, view: View) -> tuple[str, ...]:
        """The roles whose image shows nothing, since all or most of its pixels have its largest value."""
        return tuple(role for role, plane in self._planes(view).items() if _share_at_top(plane) >= _BLANK)

    def _planes(self, view: View) -> dict[str, Plane]:
        """The raw image of each role; {} where the picture itself tells the class."""
        if not self.finder.roles:
            return {}
        return {role: view.planes[name] for role, name in zip(self.finder.roles, view.counted, strict=True)}

    def _check_units(self, view: View) -> None:
        """Raises FieldFault WRONG_DTYPE if thresholds are not in the units of a field's images."""
        for role, bits in self.bits(view).items():
            planned = view.numbers.get(bits_name(role))
            if planned is not None and planned != bits:
                raise FieldFault(
                    Reason.WRONG_DTYPE,
                    f"the image of the role {role!r} has {bits} bits, and the thresholds of its plate are in units of {planned:.0f} bits: export "
                    "all images of a plate alike, or count these by themselves",
                )
            given = view.run.viability.thresholds.get(role)
            if given is not None and given >= largest_value(bits):
                raise FieldFault(Reason.WRONG_DTYPE, above_range(role, given, bits))

    def look(self, view: View) -> _Signals:
        """The objects of a field with their signals, before any is judged."""
        found = self._head.find(view)
        assert found.objects is not None
        columns, _ = found.objects.rows()
        if not self.finder.roles:
            return _Signals(found, columns, {}, {}, {})
        with view.clock("measure"):
            noise = {role: norm.noise for role, norm in zip(self.finder.roles, view.norms, strict=True)}
            channels = dict(zip(self.finder.roles, view.counted, strict=True))
            behind = {role: backdrop(view.planes[name], noise[role]) for role, name in channels.items()}
            y, x = self._own(columns, CENTRE_Y), self._own(columns, CENTRE_X)
            signals = {
                role: self._own(columns, MEAN_INTENSITY, name) - behind[role].at(y, x)
                for role, name in channels.items()
            }
        return _Signals(found, columns, signals, noise, behind)

    def _own(self, columns: Mapping[str, ObjectColumn], name: str, channel: str = "") -> Floats:
        """A column of numbers, as float64."""
        return np.asarray(columns[full_name(name, self._name, channel)]).astype(np.float64)

    def _judged(self, view: View, seen: _Signals) -> Found:
        finder, found, columns = self.finder, seen.found, seen.columns
        if finder.roles:
            rules = rules_for(view.run, view.numbers, finder.roles, seen.signals, seen.noise)
            kinds, probability, signals = told_by_roles(rules, seen.signals)
            blank = self.blank(view)
            if blank:
                kinds, probability = np.full_like(kinds, CLASSES.index(NEITHER)), np.ones(kinds.size)
        else:
            rules, signals, blank = {}, {}, ()
            kinds, probability = self._of_boxes(columns)
        diameter = self._diameters(columns)
        kept = within_gates(view.run.viability, diameter, self._circularity(columns), view.um_per_px)
        height, width = view.shape
        boxes = np.stack([self._own(columns, name) for name in _BOX_CORNERS], axis=1)
        y, x = (self._own(columns, name)[kept] for name in (CENTRE_Y, CENTRE_X))
        clumped, clusters = touching(y, x, diameter[kept])
        cells = Cells(
            kinds=kinds[kept],
            probability=probability[kept],
            diameter_px=diameter[kept],
            boxes=boxes[kept],
            circularity=self._circularity(columns)[kept],
            signals={role: signal[kept] for role, signal in signals.items()},
            shape=(height, width),
            um_per_px=view.um_per_px,
            gated_out=int(np.count_nonzero(~kept)),
            clumped=clumped,
            clusters=clusters,
            sample_nl=sample_volume(view.run.viability, (height, width), view.um_per_px),
        )
        filtered = gated(found, kept, view.shape)
        told = (*filtered.warnings, *self._doubts(view, seen, rules, filtered), *self._untold(blank, cells))
        values = {**filtered.values, **field_values(cells)}
        assert filtered.objects is not None
        declared = object_columns_of(finder, view.measured)
        rows = partial(_rows, columns, kept, cells, declared)
        return replace(
            filtered,
            values=values,
            objects=replace(filtered.objects, rows=rows),
            classes=cells.kinds,
            warnings=told,
        )

    def _of_boxes(self, columns: Mapping[str, ObjectColumn]) -> tuple[NDArray[np.int64], Floats]:
        """Classes (n,), as places in `CLASSES`, and their probabilities (n,), from those of the boxes."""
        words = [str(word) for word in columns["class"]]
        kinds = np.array([CLASSES.index(self.finder.classes.get(word, NEITHER)) for word in words], np.int64)
        known = columns.get("class_probability", columns.get("score"))
        return kinds, np.ones(kinds.size) if known is None else np.asarray(known).astype(np.float64)

    def _diameters(self, columns: Mapping[str, ObjectColumn]) -> Floats:
        """Diameters (n,) in px: of the circle of equal area, for boxes of the ellipse that fills them."""
        if full_name(DIAMETER, self._name) in columns:
            return self._own(columns, DIAMETER)
        y0, x0, y1, x1 = (self._own(columns, name) for name in _BOX_CORNERS)
        return np.sqrt((y1 - y0) * (x1 - x0))

    def _circularity(self, columns: Mapping[str, ObjectColumn]) -> Floats:
        if full_name(FORM_FACTOR, self._name) in columns:
            return self._own(columns, FORM_FACTOR)
        return np.full(len(columns[OBJECT_NUMBER.name]), np.nan)

    def _doubts(
        self, view: View, seen: _Signals, rules: Mapping[str, RoleRule], found: Found
    ) -> tuple[Doubt, ...]:
        settings, area = view.run.viability, view.shape[0] * view.shape[1]
        objects = found.objects
        assert objects is not None
        told: list[Doubt] = []
        if seen.found.count and not objects.count:
            told.append(Doubt.ALL_GATED)
        if objects.area_px > _DENSE * area:
            told.append(Doubt.TOO_DENSE)
        if settings.depth is not None and settings.squares is None and view.um_per_px is None:
            told.append(Doubt.VOLUME_UNKNOWN)
        if ALL in self.finder.roles:
            plane = view.planes[view.counted[self.finder.roles.index(DEAD)]]
            bright = bright_area(plane, seen.backdrops[DEAD], cell_level(rules[DEAD], seen.signals[DEAD]))
            # As much light as three cells, so that a speck in an empty field is none.
            least = 3 * (objects.area_px / objects.count if objects.count else 400.0)
            if bright > max(_OUTSIDE * objects.area_px, least):
                told.append(Doubt.DEAD_OUTSIDE)
        return tuple(told)

    def _untold(self, blank: tuple[str, ...], cells: Cells) -> tuple[Doubt, ...]:
        """What is to be said of cells that are neither live nor dead."""
        if blank:
            return (Doubt.ROLE_BLANK,)
        unsorted = cells.number(BOTH) + cells.number(NEITHER)
        many = self.finder.roles and unsorted >= _FEWEST_UNSORTED and unsorted > _UNSORTED * cells.kinds.size
        return (Doubt.BOTH_OR_NEITHER,) if many else ()


def bits_name(role: str) -> str:
    """The name, among a plate's numbers, of the bits that a pixel of a role's images has."""
    return f"{role}_bits"


def largest_value(bits: int) -> float:
    """The largest value of a pixel of so many bits; infinite for floats, which have 32."""
    return math.inf if bits > 16 else float((1 << bits) - 1)


def above_range(role: str, threshold: float, bits: int) -> str:
    """That no cell can reach a threshold."""
    return (
        f"the threshold {threshold:g} of the role {role!r} is above all that an image of {bits} bits can hold (up to {largest_value(bits):.0f}), so "
        f"no cell could reach it; thresholds are in raw units above the background (--threshold {role}=VALUE)"
    )


def _share_at_top(plane: Plane) -> float:
    return int(np.count_nonzero(plane == plane.max())) / plane.size


def _rows(
    columns: Mapping[str, ObjectColumn], kept: NDArray[np.bool_], cells: Cells, declared: tuple[Column, ...]
) -> tuple[Mapping[str, ObjectColumn], Mapping[str, Moments]]:
    chosen: dict[str, ObjectColumn] = {name: taken(values, kept) for name, values in columns.items()}
    chosen[OBJECT_NUMBER.name] = np.arange(1, cells.kinds.size + 1, dtype=np.int64)
    chosen["class"] = [CLASSES[kind] for kind in cells.kinds]
    chosen[CLASS_PROBABILITY.name] = cells.probability
    chosen |= object_values(cells)
    return chosen, object_moments(chosen, declared)


def measures_circularity(finder: Finder) -> bool:
    """Whether the finding task measures the circularity of what it finds."""
    wanted = full_name(FORM_FACTOR, finder.package.object_name)
    return any(column.name == wanted for column in finder.task.columns(finder.package, ()).objects)


def object_columns_of(finder: Finder, measured: tuple[str, ...]) -> tuple[Column, ...]:
    inner = finder.task.columns(finder.package, measured).objects
    sure = () if any(column.name == CLASS_PROBABILITY.name for column in inner) else (CLASS_PROBABILITY,)
    return (*inner, *sure, *object_columns(finder.roles))
