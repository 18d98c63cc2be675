"""Label images made from seeds, and what `stardist.matching` says of them: `stardist_matching.json` beside this file.

Written once, in an environment of its own, since neither the product nor its tests need StarDist:

    python -m venv stardist && stardist/bin/pip install stardist==0.9.2
    stardist/bin/python tests/unit/evaluation/make_stardist_fixture.py

Runs with numpy and stardist alone. The digests say whether `scenes` still makes the same images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).with_name("stardist_matching.json")
THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
_SIDE = 96


def scenes() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, true labels and counted labels, both (96, 96) int32."""
    for seed in range(16):
        true = _discs(np.random.default_rng(seed))
        yield f"disturbed {seed}", true, _disturbed(true, seed % 4, np.random.default_rng(1000 + seed))
    true, empty = _discs(np.random.default_rng(50)), np.zeros((_SIDE, _SIDE), np.int32)
    yield "the same", true, true
    yield "other numbers with gaps", true, np.where(true > 0, 7 * (true.max() + 1 - true), 0).astype(np.int32)
    yield "all in one", true, (true > 0).astype(np.int32)
    yield "one in all", (true > 0).astype(np.int32), true
    yield "some, none counted", true, empty
    yield "none, some counted", empty, true
    yield "none, none counted", empty, empty
    yield "no background", np.ones_like(true), 1 + (np.indices(true.shape)[0] >= 40).astype(np.int32)


def digest(true: np.ndarray, counted: np.ndarray) -> str:
    """Of both label images, pixel by pixel."""
    return hashlib.sha256(
        np.ascontiguousarray(np.stack([true, counted]).astype("<i4")).tobytes()
    ).hexdigest()[:16]


def _discs(random: np.random.Generator) -> np.ndarray:
    """Up to 24 discs that may touch; a later one does not cover an earlier one."""
    labels = np.zeros((_SIDE, _SIDE), np.int32)
    for number in range(1, int(random.integers(4, 25))):
        y, x, radius = (int(v) for v in random.integers((0, 0, 3), (_SIDE, _SIDE, 12)))
        yy, xx = np.ogrid[:_SIDE, :_SIDE]
        labels[((yy - y) ** 2 + (xx - x) ** 2 <= radius**2) & (labels == 0)] = number
    return labels


def _disturbed(true: np.ndarray, reach: int, random: np.random.Generator) -> np.ndarray:
    """Objects shifted by up to `reach` px, a few left out, merged with the next number, cut in two, or made up."""
    counted = np.zeros_like(true)
    for number in np.unique(true[true > 0]).tolist():
        what = int(random.integers(0, 10))
        shift = tuple(int(v) for v in random.integers(-reach, reach + 1, 2))
        mask = np.roll(true == number, shift, axis=(0, 1)) & (counted == 0)
        if what == 0:
            continue
        counted[mask] = number + 1 if what == 1 else number
        if what == 2:
            counted[mask & (np.indices(true.shape)[1] % 12 < 6)] = number + 100
    if int(random.integers(0, 2)):
        counted[2:8, 2:8] = 500
    return counted


def main() -> None:
    """Ask StarDist and write the fixture."""
    import stardist
    from stardist.matching import matching

    answers = []
    for name, true, counted in scenes():
        found = matching(true, counted, thresh=THRESHOLDS)
        answers.append(
            {
                "scene": name,
                "digest": digest(true, counted),
                "thresholds": {
                    f"{each.thresh:g}": {
                        "tp": int(each.tp),
                        "fp": int(each.fp),
                        "fn": int(each.fn),
                        "f1": float(each.f1),
                        "accuracy": float(each.accuracy),
                        "panoptic_quality": float(each.panoptic_quality),
                    }
                    for each in found
                },
            }
        )
    made = {"made_by": "make_stardist_fixture.py", "stardist": stardist.__version__, "scenes": answers}
    FIXTURE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
