"""The name of a run: equal fingerprints give byte-equal tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from cellcount_core.domain.scales import PlateNumbers, PlateSize, ShownSize

RESULTS_VERSION = 5
"""Raised with every change of the code that can change a number in a table."""


def canonical_json(value: object) -> str:
    """One text for one value: keys sorted, no spaces, floats as Python writes them.

    Raises ValueError for NaN or infinity, TypeError for a value that JSON cannot hold.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


ELSEWHERE = ("model", "platemap")
"""Keys of the run section that say where something lies: its content counts, and not its place."""


def fingerprint(
    run: Mapping[str, object],
    model_digest: str,
    engine: str,
    listing_digest: str,
    scales: Sequence[PlateSize] = (),
    plate_numbers: Sequence[PlateNumbers] = (),
    shown_sizes: Sequence[ShownSize] = (),
) -> str:
    """SHA-256 (64 hex digits) of everything that can change a table.

    `run` is the run section of the settings as plain data. The model counts by its digest, whatever path it was loaded from, and a plate map by
    what it says of the fields, which is part of the listing. `scales` are
    the object sizes found when planning, `shown_sizes` those that contradict the one given, `plate_numbers` what the task found then.
    """
    decided: dict[str, object] = {
        "results_version": RESULTS_VERSION,
        "run": {key: value for key, value in run.items() if key not in ELSEWHERE},
        "model": model_digest,
        "engine": engine,
        "listing": listing_digest,
        "scales": [asdict(scale) for scale in scales],
    }
    if plate_numbers:
        decided["plate_numbers"] = [asdict(found) for found in plate_numbers]
    if shown_sizes:
        decided["shown_sizes"] = [asdict(shown) for shown in shown_sizes]
    text = canonical_json(decided)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(old: Mapping[str, object], new: Mapping[str, object], path: str = "") -> list[str]:
    """A line such as "run.z: 'max' -> 'mean'" for every leaf in which two nested mappings differ, sorted.

    What one of them lacks is compared key by key too, where the other has a mapping for it.

    >>> differences({}, {"run": {"z": "max"}})
    ["run.z: None -> 'max'"]
    """
    lines: list[str] = []
    for key in sorted(set(old) | set(new)):
        where = f"{path}.{key}" if path else key
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping | None):
            lines += differences(before, after or {}, where)
        elif before is None and isinstance(after, Mapping):
            lines += differences({}, after, where)
        elif before != after:
            lines.append(f"{where}: {before!r} -> {after!r}")
    return lines
