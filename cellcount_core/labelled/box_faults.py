"""What can be wrong with images and boxes, what is done about each kind of fault, and the report of all faults of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from cellcount_core.domain.errors import ConfigFault, nearest

NEAR = 0.9
"""Two boxes of one class that overlap by this IoU or more are probably one object, drawn twice."""

_SHOWN = 10


class BoxFault(StrEnum):
    """What can be wrong with a data set of boxes."""

    UNREADABLE = "unreadable"
    AMBIGUOUS = "ambiguous"
    NO_IMAGE = "no_image"
    NO_LABEL = "no_label"
    SIZE = "size_disagrees"
    TURNED = "turned"
    OUTSIDE = "outside"
    ZERO_AREA = "zero_area"
    UNKNOWN_CLASS = "unknown_class"
    CROWD = "crowd"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    TWO_CLASSES = "two_classes"

    @property
    def told(self) -> str:
        """What it is, in words."""
        return _TOLD[self]


_TOLD: Mapping[BoxFault, str] = {
    BoxFault.UNREADABLE: "a file, or a box in it, that cannot be read",
    BoxFault.AMBIGUOUS: "something that can be read in two ways",
    BoxFault.NO_IMAGE: "boxes without an image",
    BoxFault.NO_LABEL: "an image without a file of boxes: without objects, or forgotten",
    BoxFault.SIZE: "the file of boxes states another size than the image has",
    BoxFault.TURNED: "an image that viewers turn: boxes that were drawn in one lie elsewhere on the pixels, which are read as stored",
    BoxFault.OUTSIDE: "a box that reaches out of its image",
    BoxFault.ZERO_AREA: "a box without area",
    BoxFault.UNKNOWN_CLASS: "a class that is none of the known ones",
    BoxFault.CROWD: "a box around a crowd of objects, which is not one object",
    BoxFault.DUPLICATE: "a box that is there twice, with one class",
    BoxFault.NEAR_DUPLICATE: f"two boxes of one class that overlap by {NEAR:g} (IoU) or more",
    BoxFault.TWO_CLASSES: f"two boxes of different classes that overlap by {NEAR:g} (IoU) or more",
}

Action = Literal["refuse", "skip", "keep"]
"""What is done about a fault: the data is refused; what is faulty is left out; or nothing, but that it is told.

Where a label is there and cannot be used (unreadable, ambiguous, of an unknown class, of a crowd) the image is left out with it: without
that label it would say that nothing is there. A box that reaches out of its image is cut off at its edge. "keep" leaves the image with
the other boxes if a class is unknown, and takes a crowd for one object.
"""

POLICY: Mapping[BoxFault, Action] = {
    **dict.fromkeys(BoxFault, "refuse"),
    BoxFault.NO_LABEL: "skip",
    BoxFault.NEAR_DUPLICATE: "keep",
    BoxFault.TWO_CLASSES: "keep",
}
"""What is done if nothing else is said."""

_CANNOT_KEEP = {
    BoxFault.UNREADABLE,
    BoxFault.AMBIGUOUS,
    BoxFault.NO_IMAGE,
    BoxFault.NO_LABEL,
    BoxFault.ZERO_AREA,
}


def policy_of(settings: Mapping[str, str], skip_faulty: Sequence[BoxFault] = ()) -> dict[BoxFault, Action]:
    """The policy with some kinds of fault set ("zero_area": "skip"), and those of `skip_faulty` left out instead of refused.

    Raises ConfigFault naming the nearest known kind or action if one is not known.
    """
    found: dict[BoxFault, Action] = dict(POLICY)
    found |= {kind: "skip" for kind in skip_faulty if found[kind] == "refuse"}
    for name, action in settings.items():
        if name not in set(BoxFault):
            raise ConfigFault(f"faults: no kind {name!r}{nearest(name, [kind.value for kind in BoxFault])}")
        kind = BoxFault(name)
        if action == "refuse":
            found[kind] = "refuse"
        elif action == "skip":
            found[kind] = "skip"
        elif action == "keep" and kind not in _CANNOT_KEEP:
            found[kind] = "keep"
        else:
            allowed = ["refuse", "skip"] if kind in _CANNOT_KEEP else ["refuse", "skip", "keep"]
            raise ConfigFault(
                f"faults: {name}: {action!r} is none of {', '.join(allowed)}{nearest(action, allowed)}"
            )
    return found


@dataclass(frozen=True, slots=True)
class FoundFault:
    """One fault: its kind, where it is, what was found, and what is done about it."""

    kind: BoxFault
    where: str
    what: str
    action: Action


@dataclass(frozen=True, slots=True)
class BoxReport:
    """What a data set of boxes holds and everything that is wrong with it.

    `images` and `boxes` (by class) are those that are left, `splits` the numbers of images by split.
    """

    path: str
    kind: str
    images: int
    boxes: Mapping[str, int]
    splits: Mapping[str, int]
    faults: tuple[FoundFault, ...]

    @property
    def refused(self) -> bool:
        """Whether the policy refuses the data for one of its faults."""
        return any(fault.action == "refuse" for fault in self.faults)

    @property
    def counts(self) -> dict[str, int]:
        """How many faults there are of each kind that occurs."""
        numbers = Counter(fault.kind for fault in self.faults)
        return {kind.value: numbers[kind] for kind in BoxFault if numbers[kind]}

    def lines(self, shown: int = _SHOWN) -> list[str]:
        """The report in words, with at most `shown` examples of each kind of fault."""
        total = sum(self.boxes.values())
        classes = ", ".join(f"{name} {number:,}" for name, number in self.boxes.items())
        told = [
            f"{self.path}: {self.kind}, {self.images:,} images, {total:,} boxes{f' ({classes})' if classes else ''}"
        ]
        if any(self.splits):
            told.append(
                "splits: " + ", ".join(f"{name or 'none'} {number}" for name, number in self.splits.items())
            )
        for kind in BoxFault:
            own = [fault for fault in self.faults if fault.kind is kind]
            if not own:
                continue
            told.append(f"{len(own)} x {kind.value}: {kind.told} -> {_done(kind, own[0].action)}")
            told += [f"    {fault.where}: {fault.what}" for fault in own[:shown]]
            told += [f"    … and {len(own) - shown} more"] if len(own) > shown else []
        return told if self.faults else [*told, "no faults"]

    def plain(self) -> dict[str, object]:
        """The same as plain values."""
        return {
            "path": self.path, "kind": self.kind, "images": self.images, "boxes": dict(self.boxes), "splits": dict(self.splits),
            "refused": self.refused, "faults": self.counts,
            "list": [
                {"kind": fault.kind.value, "where": fault.where, "what": fault.what, "action": fault.action}
                for fault in self.faults
            ],
        }  # fmt: skip


_DONE: Mapping[Action, str] = {"refuse": "refused", "skip": "left out", "keep": "kept"}

_SKIPPED: Mapping[BoxFault, str] = {
    **dict.fromkeys(
        (BoxFault.UNREADABLE, BoxFault.AMBIGUOUS, BoxFault.SIZE, BoxFault.UNKNOWN_CLASS, BoxFault.CROWD), "left out, and its image with it"
    ),
    BoxFault.OUTSIDE: "cut off at the edge; left out where nothing of it lies inside",
}  # fmt: skip
"""What "skip" does where it is more, or less, than to leave out what is faulty."""


def _done(kind: BoxFault, action: Action) -> str:
    """What was done about a fault, in words."""
    return _SKIPPED.get(kind, _DONE[action]) if action == "skip" else _DONE[action]
