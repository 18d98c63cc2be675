"""Figures of docs/explanation/classes.md.

`python -m benchmarks.classes leaks DATA` looks for images of one photo in class folders without being told the groups, and says how well
it agrees with the folders' groups.csv: the share of the copies that are paired with another copy of their photo, and the share of pairs that are
of two photos. `python -m benchmarks.classes splits CONFIG [NAME=VALUE ...]` trains a configuration twice, held out by group and held out at random,
and prints both. `python -m benchmarks.classes speed PACKAGE SIDE` says how many images a package looks at in a second on one thread.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from cellcount_core.images.imagefile import COLOURS
from cellcount_core.labelled.class_folders import list_class_folders
from cellcount_core.labelled.leaks import find_pairs, kinds, look_at


def leaks(data: Path) -> None:
    """Print how well the leak check finds the groups of class folders."""
    entries = list_class_folders(data).entries
    since = time.monotonic()
    looks = [look_at(entry.id, list(entry.load(COLOURS).planes.values())) for entry in entries]
    pairs = find_pairs(looks)
    took = time.monotonic() - since
    group = {entry.id: entry.group for entry in entries}
    sizes = Counter(group.values())
    false = [pair for pair in pairs if group[pair.first] != group[pair.second]]
    paired = {
        name
        for pair in pairs
        if group[pair.first] == group[pair.second]
        for name in (pair.first, pair.second)
    }
    copies = [name for name, own in group.items() if sizes[own] > 1]
    print(
        f"{len(entries)} images of {len(sizes)} photos; {len(pairs)} pairs found ({kinds(pairs)}) in {took:.0f} s"
    )
    print(
        f"copies paired with another copy of their photo: {len(paired)} of {len(copies)} ({len(paired) / len(copies):.2%})"
    )
    print(f"false pairs, of two photos: {len(false)} of {len(pairs)} ({len(false) / max(1, len(pairs)):.2%})")
    photos = Counter(tuple(sorted((group[pair.first], group[pair.second]))) for pair in false)
    for (first, second), number in photos.most_common():
        example = next(pair for pair in false if {group[pair.first], group[pair.second]} == {first, second})
        print(f"  {first} and {second}: {number} pairs, for example {example}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["leaks", where]:
            leaks(Path(where))
        case _:
            sys.exit(__doc__)
