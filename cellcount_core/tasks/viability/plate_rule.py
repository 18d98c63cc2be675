"""What is found out about a plate before its cells are judged: thresholds of the roles, and the bits of the images they are in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.models.package import Package
from cellcount_core.tasks.task import (
    View,
)
from cellcount_core.tasks.viability.columns import (
    DEAD,
    LIVE,
)
from cellcount_core.tasks.viability.controls import (
    ControlCells,
    control_warning,
    from_controls,
    refuse_swapped,
    spill_of_controls,
)
from cellcount_core.tasks.viability.head import ViabilityHead, above_range, bits_name, largest_value
from cellcount_core.tasks.viability.judging import (
    ALL,
    found_rule,
    other_role,
)
from cellcount_core.tasks.viability.rule import RoleRule

Floats = NDArray[np.float64]


class ViabilityRule:
    """What is found out about a plate before its cells are judged: thresholds of the roles, on control wells or on all fields."""

    def __init__(self, package: Package, run: RunConfig) -> None:
        self._head = ViabilityHead(package)
        self._run = run
        self._roles = self._head.finder.roles

    @property
    def groups(self) -> Mapping[str, frozenset[str]]:
        """The control wells of each kind, or "" for fields of all wells."""
        controls = self._run.viability.controls
        return {name: frozenset(wells) for name, wells in controls.items()} or {"": frozenset()}

    def seen(self, view: View) -> Floats:
        """What a field shows (n, 6): signals of its cells in both roles, both roles' noise, and the bits of both roles' images.

        One row without signals where thresholds are given; none where the image of a role is blank.
        """
        bits = list(map(float, self._head.bits(view).values()))
        if not self._sought:
            return np.array([[0.0, 0.0, 0.0, 0.0, *bits]])
        if self._head.blank(view):
            return np.zeros((0, 6))
        seen = self._head.look(view)
        n = next(iter(seen.signals.values())).size
        numbers = [*(seen.noise[role] for role in self._roles), *bits]
        return np.stack(
            [*(seen.signals[role] for role in self._roles), *(np.full(n, each) for each in numbers)], axis=1
        )

    @property
    def _sought(self) -> list[str]:
        """The roles whose thresholds are to be found."""
        return [role for role in self._roles if role not in self._run.viability.thresholds]

    def found(self, plate: str, groups: Mapping[str, Floats]) -> tuple[Mapping[str, float], Sequence[str]]:
        """The numbers of the rules of both roles, and the bits of their images.

        Raises ConfigFault if controls contradict each other, or a threshold is above all that the images can hold.
        """
        self._refuse_empty(plate, groups)
        groups, bits, warnings = self._of_one_depth(plate, groups)
        numbers: dict[str, float] = {bits_name(role): float(its) for role, its in bits.items()}
        for role in self._sought:
            if role == ALL or not self._run.viability.controls:
                rule = self._of_all(role, np.concatenate(list(groups.values())))
                if rule.populations == 1 and role != ALL:
                    warnings.append(_one_population(plate, role, rule))
            else:
                rule, said = self._of_controls(plate, role, groups)
                warnings += [said] if said else []
            numbers |= rule.numbers(role)
        for role, its in bits.items():
            threshold = self._run.viability.thresholds.get(role, numbers.get(f"{role}_threshold", 0.0))
            if threshold >= largest_value(its):
                raise ConfigFault(f"plate {plate!r}: {above_range(role, threshold, its)}")
        return numbers, warnings

    def _refuse_empty(self, plate: str, groups: Mapping[str, Floats]) -> None:
        """Raises ConfigFault if no cell was found in the control wells of a kind."""
        for kind, wells in self._run.viability.controls.items():
            if not len(groups.get(kind, ())):
                where = f"plate {plate!r}: " if plate else ""
                raise ConfigFault(
                    f"{where}no cell was found in the {kind} control wells {', '.join(wells)}: look whether these wells are the controls "
                    "and their images can be read, name others, or leave run.viability.controls out"
                )

    def _of_one_depth(
        self, plate: str, groups: Mapping[str, Floats]
    ) -> tuple[Mapping[str, Floats], dict[str, int], list[str]]:
        """What was seen in images of the bits that most have, those bits by role ({} without cells), and a warning if others have others."""
        every = np.concatenate([table[:, 4:] for table in groups.values()])
        if not len(every):
            return groups, {}, []
        kinds, times = np.unique(every, axis=0, return_counts=True)
        usual = kinds[int(np.argmax(times))]
        bits = dict(zip(self._roles, usual.astype(int).tolist(), strict=True))
        if len(kinds) == 1:
            return groups, bits, []
        kept = {name: table[(table[:, 4:] == usual).all(axis=1)] for name, table in groups.items()}
        told = ", ".join(f"{its} bits in {role}" for role, its in bits.items())
        return kept, bits, [
            f"plate {plate!r}: not all images have pixels of the same bits; thresholds are in units of most ({told}), and fields of other images fail"
        ]  # fmt: skip

    def _parts(self, role: str, table: Floats) -> tuple[ControlCells, float, float]:
        """Signals (n,), and the noise in the role and in the other."""
        own, other = self._roles.index(role), self._roles.index(other_role(role, self._roles))
        noise = [float(np.median(table[:, 2 + at])) if len(table) else 0.0 for at in (own, other)]
        return ControlCells(table[:, own], table[:, other]), noise[0], noise[1]

    def _of_all(self, role: str, table: Floats) -> RoleRule:
        cells, noise, other_noise = self._parts(role, table)
        given = self._run.viability.spill.get(role)
        return found_rule(role, cells.signal, cells.other, noise, other_noise, given)

    def _of_controls(
        self, plate: str, role: str, groups: Mapping[str, Floats]
    ) -> tuple[RoleRule, str | None]:
        nothing = np.zeros((0, 6))
        below = groups.get(LIVE if role == DEAD else DEAD, nothing)
        above = groups.get(DEAD if role == DEAD else LIVE, nothing)
        _, noise, other_noise = self._parts(role, below if len(below) else above)
        negative, positive = self._parts(role, below)[0], self._parts(role, above)[0]
        spill = self._run.viability.spill.get(role)
        if spill is None:
            spill = spill_of_controls(role, negative, positive, noise, other_noise)
        negative, positive = negative.clean(spill), positive.clean(spill)
        refuse_swapped(role, negative.signal, positive.signal)
        found = from_controls(negative, positive, noise, spill)
        return found.rule, control_warning(plate, role, found)


def _one_population(plate: str, role: str, rule: RoleRule) -> str:
    return (
        f"plate {plate!r}: the sampled cells are one population in the role {role!r}; the threshold ({rule.threshold:.3g} above background) "
        "rests on noise and on the brightness of the other role alone. If that is not so, name control wells (--control live=A01,A02 --control "
        f"dead=H01,H02) or give it (--threshold {role}=VALUE)"
    )
