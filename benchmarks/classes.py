"""Figures of docs/explanation/classes.md.

`python -m benchmarks.classes leaks DATA [GROUPS ...]` looks for images of one photo in class folders without being told the groups, and says how
well it agrees with the folders' groups.csv, and with further tables of groups: the share of the copies that are paired with another copy of their
photo, and the share of pairs that are of two. `python -m benchmarks.classes speed SIDE` says how many images of that side the compact network looks at in a second of one thread, in
float32 with weights as they are drawn, prepared from raw 16-bit planes or already normalised. `python -m benchmarks.classes made-up FOLDER` trains
on made-up control and knock-down images, whose signal is spread or in clumps, and on two classes that do not differ.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from cellcount_core.images.imagefile import COLOURS
from cellcount_core.images.normalise import compress
from cellcount_core.labelled.class_folders import list_class_folders
from cellcount_core.labelled.leaks import Pair, find_pairs, kinds, look_at
from cellcount_core.models.package import InputSpec
from cellcount_core.tasks.classes.learn import ClassesConfig
from cellcount_core.training.trainer import train
from cellcount_core.training.whole_images import linear_canvas


def leaks(data: Path, tables: Sequence[Path] = ()) -> None:
    """Print how well the leak check, which is given no groups, finds those of class folders, judged by groups.csv and by each further table."""
    entries = list_class_folders(data).entries
    since = time.process_time()
    looks = [look_at(entry.id, list(entry.load(COLOURS).planes.values())) for entry in entries]
    pairs = find_pairs(looks)
    took = time.process_time() - since
    print(
        f"{len(entries)} images; {len(pairs)} pairs found ({kinds(pairs)}) in {took:.0f} s of processor time"
    )
    for table in (None, *tables):
        _judge(pairs, {entry.id: entry.group for entry in list_class_folders(data, groups=table).entries})


def _judge(pairs: Sequence[Pair], group: Mapping[str, str]) -> None:
    """Print how far pairs agree with the groups of images, by id."""
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
        f"{len(sizes)} groups: images paired with another one of their group: {len(paired)} of {len(copies)} ({len(paired) / len(copies):.2%})"
    )
    print(f"false pairs, of two groups: {len(false)} of {len(pairs)} ({len(false) / max(1, len(pairs)):.2%})")
    both = Counter(tuple(sorted((group[pair.first], group[pair.second]))) for pair in false)
    for (first, second), number in both.most_common():
        example = next(pair for pair in false if {group[pair.first], group[pair.second]} == {first, second})
        print(f"  {first} and {second}: {number} pairs, for example {example}")


def speed(side: int, images: int = 60) -> None:
    """Print images per second of processor time of one thread."""
    from cellcount_core.models.engines.onnx import keep_onnxruntime_silent

    keep_onnxruntime_silent()
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


def made_up(folder: Path, images: int = 240) -> None:
    """Train on two made-up sets, and print what the trainings say of themselves."""
    for name, clumps in (("clumps", (0, 3)), ("alike", (0, 0))):
        rng = np.random.default_rng(0)
        for number in range(images):
            where = folder / name / ("control", "knock-down")[number % 2]
            where.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(where / f"{number}.tif", _field(rng, clumps[number % 2]))
        config = ClassesConfig.model_validate({
            "name": name, "task": "classes", "classes": ["control", "knock-down"], "data": {"path": str(folder / name), "split": "", "validation_share": 0.4},
            "input": {"channels": ["signal"]}, "network": {"preset": "compact", "filters": [8, 16, 32], "convolutions": [1, 1, 1]}, "crop_px": 64,
            "steps": 300, "batch": 16, "optimiser": {"learning_rate": 0.005, "ema": 0.95}, "threads": 1, "checkpoint_every": 50, "validate_every": 150,
            "work_dir": str(folder / f"work-{name}"), "package_dir": str(folder / f"package-{name}"), "int8": "off",
        })  # fmt: skip
        print(f"{name}:")
        train(config)


def _field(rng: np.random.Generator, clumps: int) -> NDArray[np.uint16]:
    """A cell (128, 128) whose forty spots of signal are spread over it, or lie in so many clumps."""
    y, x = np.mgrid[:128, :128]
    image = 300 + 200 * (np.hypot(y - 64, x - 64) < 50) + rng.normal(0, 15, (128, 128))
    centres = rng.uniform(35, 93, (max(1, clumps), 2))
    for number in range(40):
        at = rng.normal(centres[number % clumps], 4) if clumps else rng.uniform(30, 98, 2)
        image += rng.uniform(500, 900) * np.exp(-(((y - at[0]) ** 2 + (x - at[1]) ** 2) / 8))
    return np.clip(image, 0, 65535).astype(np.uint16)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    match sys.argv[1:]:
        case ["leaks", where, *tables]:
            leaks(Path(where), [Path(table) for table in tables])
        case ["made-up", where]:
            made_up(Path(where))
        case ["speed", side]:
            speed(int(side))
        case _:
            sys.exit(__doc__)
