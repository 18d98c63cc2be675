"""What a plate is called in the ledger: the same plate has the same name wherever its root is mounted, two plates never do.

A plate is its path below the root and its content. The root is no part of it: it may move, or be spelled otherwise. Where
two roots have a plate at the same path, the one that came later is called "<path>@<root>".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cellcount_core.nightly.ledger import Event, Ledger
from cellcount_core.nightly.plates import Plate
from cellcount_core.stores.base import Store
from cellcount_core.stores.open import name_of, path_below, real_url


@dataclass(slots=True)
class Named:
    """Tonight's plates by their names in the ledger, where roots seem to have moved (old URL to new), and what is worth saying."""

    plates: dict[str, Plate] = field(default_factory=dict)
    moves: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


def named(plates: Sequence[Plate], ledger: Ledger, roots: Collection[str]) -> Named:
    """The plates under their names; `roots` are the URLs of all roots of the night, also of those that could not be reached.

    A plate is the one that the ledger knows from its own place; else one of its path and content, whose root has moved; else one
    of its path below a root that has moved, or that is none any more and gone. Of two of the same path and content one is left: copies.
    """
    found = Named()
    paths: defaultdict[str, list[Plate]] = defaultdict(list)
    for plate in plates:
        twin = next((one for one in paths[plate.path] if one.content == plate.content), None)
        if twin is None:
            paths[plate.path].append(plate)
        else:
            found.said.append(f"{plate.source} holds the same files as {twin.source}: counted once")
    left: dict[str, tuple[list[Plate], dict[str, list[Event]]]] = {}
    for path, group in paths.items():
        left[path] = group, ledger.known(path)
        _match(found, *left[path], lambda plate, events: events[-1].source in (plate.source, plate.place))
    for group, known in left.values():
        _match(found, group, known, lambda plate, events: any(one.content == plate.content for one in events))
    for group, known in left.values():
        _match(
            found, group, known,
            lambda plate, events: found.moves.get(_root(events[-1], plate.path)) == plate.root,
        )  # fmt: skip
        _match(
            found, group, known,
            lambda plate, events: _root(events[-1], plate.path) not in roots and _is_gone(events[-1].source),
        )  # fmt: skip
    for path, (group, _) in left.items():
        for plate in group:
            free = len(group) == 1 and path not in found.plates and not ledger.states(path)
            name = path if free else _qualified(path, plate.root, roots, {*found.plates, *_names(ledger)})
            found.plates[name] = replace(plate, name=name)
    return found


def heirs(
    events: Sequence[Event], plates: Collection[Plate], roots: Collection[str]
) -> Iterator[tuple[Event, Plate]]:
    """The events of plates that are none any more whose images are those of a plate of tonight, each with that plate.

    It is the same folder, one inside it or one around it; or, where no root of tonight is around the event's, a folder of its name that
    holds its files, as roots of another depth show them; then folders beside each other moved together, changed or not.
    """
    left: list[Event] = []
    for event in events:
        was = f"{real_url(event.source)}/"
        same = (one for one in plates if was.startswith(f"{one.place}/") or one.place.startswith(was))
        if (heir := next(same, None)) is not None:
            yield event, heir
        elif not any(event.source.startswith(f"{root.rstrip('/')}/") for root in roots):
            left.append(event)
    moved: dict[str, str] = {}
    for event in left:
        folder, _, name = event.source.rpartition("/")
        alike = [one for one in plates if one.content == event.content and one.source.endswith(f"/{name}")]
        if len(alike) == 1:
            moved[folder] = alike[0].source.rpartition("/")[0]
    for event in left:
        folder, _, name = event.source.rpartition("/")
        now = f"{moved[folder]}/{name}" if folder in moved else ""
        if (heir := next((one for one in plates if one.source == now), None)) is not None:
            yield event, heir


def same_place(store: Store, others: Iterable[Store]) -> Store | None:
    """The one of `others` that is the same folder as `store`, through links and mounts."""
    return next((other for other in others if path_below(other.url, store.url) == ""), None)


def _match(
    found: Named,
    group: list[Plate],
    known: dict[str, list[Event]],
    fits: Callable[[Plate, list[Event]], bool],
) -> None:
    """Name those of `group` that one of the `known` plates fits, and take both away."""
    for plate in list(group):
        names = [name for name, events in known.items() if fits(plate, events)]
        if names and (len(names) == 1 or len(group) == 1):
            name = names[0]
            moved = _root(known.pop(name)[-1], plate.path)
            group.remove(plate)
            found.plates[name] = replace(plate, name=name)
            if moved not in (plate.root, plate.place.removesuffix(f"/{plate.path}")):
                found.moves[moved] = plate.root


def _root(event: Event, path: str) -> str:
    return event.source.removesuffix(f"/{path}")


def _is_gone(source: str) -> bool:
    return "://" not in source and not Path(source).exists()


def _names(ledger: Ledger) -> set[str]:
    return {event.plate for event in ledger.events}


def _qualified(path: str, root: str, roots: Collection[str], taken: set[str]) -> str:
    """`path` with the shortest end of the root's own path that no other root has; numbered where that was given away before."""
    own = root.rstrip("/").split("/")
    parts = next(
        (number for number in range(1, len(own)) if sum(_ends(one, own[-number:]) for one in roots) == 1),
        len(own),
    )
    tail = name_of(root) if parts == 1 else "/".join(part for part in own[-parts:] if part)
    name, number = f"{path}@{tail}", 1
    while name in taken:
        number += 1
        name = f"{path}@{tail}-{number}"
    return name


def _ends(root: str, parts: list[str]) -> bool:
    return root.rstrip("/").split("/")[-len(parts) :] == parts
