"""Figures of docs/explanation/classes.md.

`python -m benchmarks.classes leaks DATA` looks for images of one photo in class folders without being told the groups, and says how well
it agrees with the folders' groups.csv: the share of the copies that are paired with another copy of their photo, and the share of pairs that are
of two photos. `python -m benchmarks.classes speed SIDE` says how many images of that side the compact network looks at in a second of one thread, in
float32 with weights as they are drawn, prepared from raw 16-bit planes or already normalised.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from cellcount_core.images.imagefile import COLOURS
from cellcount_core.images.normalise import compress
from cellcount_core.labelled.class_folders import list_class_folders
from cellcount_core.labelled.leaks import find_pairs, kinds, look_at
from cellcount_core.models.package import InputSpec
from cellcount_core.training.whole_images import linear_canvas


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


def speed(side: int, images: int = 60) -> None:
    """Print images per second of processor time of one thread."""
    import onnxruntime as ort

    from cellcount_core.models.families.onnx_graph import layer_weights
    from cellcount_core.models.families.pooled import build_pooled, fold_pooled, pooled_graph

    made: dict[str, object] = {"outputs": 4, "features": 8}
    config, network = fold_pooled(made, build_pooled(made))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    body = pooled_graph(config, layer_weights(network)).SerializeToString()
    session = ort.InferenceSession(body, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    planes = [np.asarray(rng.gamma(2, 400, (side, side)), np.uint16) for _ in range(images)]
    spec = InputSpec(("image",), None, 99.8, 12.0)
    for name, prepared in (("normalised", True), ("raw", False)):
        ready = [compress(linear_canvas([plane], spec, side)) for plane in planes]
        session.run(None, {"image": ready[0][None]})
        since = time.process_time()
        for plane, canvas in zip(planes, ready, strict=True):
            seen = canvas if prepared else compress(linear_canvas([plane], spec, side))
            session.run(None, {"image": seen[None]})
        took = time.process_time() - since
        print(
            f"{name} images of {side} px: {images / took:.0f} a second of one thread ({1000 * took / images:.1f} ms each)"
        )


if __name__ == "__main__":
    cv2.setNumThreads(1)
    match sys.argv[1:]:
        case ["leaks", where]:
            leaks(Path(where))
        case ["speed", side]:
            speed(int(side))
        case _:
            sys.exit(__doc__)
