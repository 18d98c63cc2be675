"""The package `blood` beside a detector from the package index, trained from nothing on the same photos.

    python -m benchmarks.peers.boxes DATA [--epochs 24] [--cache FOLDER] [--record]

DATA is the folder that holds `bccd_blood/`. The peer is YOLOX-nano as libreyolo has it (benchmarks/peers/yolo.py), on one thread, in an environment of
its own: no weights are downloaded, for neither. It trains on `train`, its thresholds are fitted on `val` as ours are (as many boxes as there are
objects, class by class), and both find boxes in `test`, which is scored by one code.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from benchmarks.peers.environment import python_with, run_module
from benchmarks.peers.run import CACHE
from benchmarks.peers.yolo import REQUIREMENTS
from benchmarks.record import record
from cellcount_core.evaluation.evaluate import package_scorer
from cellcount_core.labelled.box_faults import BoxFault, policy_of
from cellcount_core.labelled.box_writers import BoxedFile, write_boxes
from cellcount_core.labelled.boxes import BoxedImage, BoxReading, list_boxes
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.manifest import MANIFEST
from cellcount_core.models.package import find_package
from cellcount_core.pipeline.context import prepare_process
from cellcount_core.tasks.boxes.learn import unbiased_threshold
from cellcount_core.tasks.boxes.score import BoxesScored, ComparedBoxes, box_figures
from cellcount_core.tasks.boxes.section import Boxes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "boxes.md"
CLASSES = ("RBC", "WBC", "Platelets")
DIAMETER = 102.0
SIDE, BATCH = 416, 8
PARTS = ("train", "val", "test")

Photos = Mapping[str, Sequence[BoxedImage]]


class Seen(TypedDict):
    """What the peer's process writes of one photo: boxes x0 y0 x1 y1, numbers of classes, and scores."""

    boxes: list[list[float]]
    classes: list[float]
    scores: list[float]


def main() -> None:
    """Train the peer, look at `test` with both, and print the table."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("data", type=Path, help="the folder that holds bccd_blood/")
    made.add_argument("--epochs", type=int, default=24, help="of the peer's training")
    made.add_argument("--cache", type=Path, default=CACHE, help="environment, training and what was found")
    made.add_argument("--record", action="store_true", help="write the table to docs/explanation/boxes.md")
    arguments = made.parse_args()
    folder = (arguments.data / "bccd_blood").resolve()
    listed = list_boxes(folder, BoxReading("voc", classes=CLASSES, policy=policy_of({}, list(BoxFault))))
    photos = {part: [entry.load(("red", "green", "blue")) for entry in listed.chosen(part)] for part in PARTS}
    work = arguments.cache.resolve() / f"boxes-{arguments.epochs}"
    found = work / "found.json"
    if not found.is_file():
        plan = written(photos, folder, work, arguments.epochs)
        python = python_with("libreyolo", REQUIREMENTS, arguments.cache.resolve())
        run_module(python, ["benchmarks.peers.yolo", str(plan)], arguments.cache.resolve(), work / "yolo.log")
    told = json.loads(found.read_text(encoding="utf-8"))
    trained = f"{arguments.epochs} epochs, {told['cpu_seconds'] / 60:.0f} CPU min"
    lines = [
        f"{len(photos['test'])} photos of `test`.",
        "",
        "| system | weights, MB | trained on `train` | mean AP@0.5 | red cells | white cells | platelets | mean AP@0.5:0.95 | white cells exact | platelets exact | red cells MAPE |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        row(
            "YOLOX-nano, libreyolo 1.6.0",
            told["parameters"] * 4 / 1e6,
            trained,
            of_peer(photos, told["found"]),
        ),
        row(*of_package(photos["test"])),
    ]
    print("\n".join(lines))
    record("peer-boxes", lines, PAGE)


def written(photos: Photos, folder: Path, work: Path, epochs: int) -> Path:
    """The photos as a data set in YOLO's layout, and the plan of the peer's process beside it."""
    data, shown = work / "data", []
    for part in PARTS:
        files = []
        for photo in photos[part]:
            source = folder / "JPEGImages" / f"{photo.id}.jpg"
            link = data / part / "images" / source.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(source)
            height, width = next(iter(photo.planes.values())).shape
            files.append(
                BoxedFile(source.name, height, width, photo.boxes, photo.classes, [None] * len(photo.boxes))
            )
            shown += [str(link)] if part != "train" else []
        for name, content in write_boxes("yolo", files, CLASSES):
            path = data / part / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    listed = data / "data.yaml"
    listed.write_text(
        f"path: {data}\ntrain: train/images\nval: val/images\nnames: {list(CLASSES)}\n", encoding="utf-8"
    )
    plan = work / "plan.json"
    asked = {
        "data": str(listed), "classes": len(CLASSES), "images": shown, "epochs": epochs, "batch": BATCH, "side": SIDE,
        "out": str(work / "found.json"),
    }  # fmt: skip
    plan.write_text(json.dumps(asked), encoding="utf-8")
    return plan


def of_peer(photos: Photos, found: Mapping[str, Seen]) -> list[ComparedBoxes]:
    """What the peer found in `test`, counted from thresholds on that give the right numbers in `val`."""
    ranked = {Path(path).stem: as_boxes(one) for path, one in found.items()}
    limits = []
    for number, name in enumerate(CLASSES):
        # Photos without a box of a red cell are full of them: no number is told there.
        telling = [photo for photo in photos["val"] if name != CLASSES[0] or name in photo.classes]
        scores = [ranked[p.id].scores[ranked[p.id].classes == number] for p in telling]
        limits.append(unbiased_threshold(np.concatenate(scores), sum(p.classes.count(name) for p in telling)))
    compared = []
    for photo in photos["test"]:
        places = np.array([CLASSES.index(name) for name in photo.classes], np.int64)
        boxes = ranked[photo.id]
        counted = boxes.taken(boxes.scores >= np.array(limits)[boxes.classes])
        compared.append(ComparedBoxes(Boxes(photo.boxes, places, np.ones(len(places))), counted, boxes))
    return compared


def as_boxes(found: Seen) -> Boxes:
    """The peer's boxes of one photo, from x0 y0 x1 y1."""
    corners = np.array(found["boxes"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    return Boxes(corners, np.array(found["classes"], np.int64), np.array(found["scores"], np.float64))


def of_package(photos: Sequence[BoxedImage]) -> tuple[str, float, str, list[ComparedBoxes]]:
    """The row of the package: its name, MB of its weights, how it was trained, and what it found."""
    prepare_process()
    package = find_package("blood")
    engine = load_engine(package, resolve_engine(package, "auto", gpus=0), 1)
    with package_scorer(package, engine, DIAMETER) as score:
        scored = [score(photo) for photo in photos]
    compared = [one.compared for one in scored if isinstance(one, BoxesScored) and one.compared is not None]
    training = json.loads((package.folder / MANIFEST).read_text(encoding="utf-8"))["training"]
    trained = f"{training['steps']:,} steps, {training['minutes']:.0f} min by the clock"
    megabytes = package.file(package.engines["onnxruntime"]).stat().st_size / 1e6
    return f"**{package.name}** {package.version}", megabytes, trained, compared


def row(name: str, megabytes: float, trained: str, compared: Sequence[ComparedBoxes]) -> str:
    """A line of the table."""
    figures = box_figures(compared, CLASSES)

    def told(key: str, form: str) -> str:
        value = figures[key]
        return "" if value is None else format(value, form)

    precision = [told(key, ".3f") for key in ("map_50", *(f"map_50_{c}" for c in CLASSES), "map_50_95")]
    counts = [told(key, ".0%") for key in ("count_exact_WBC", "count_exact_Platelets", "count_mape_RBC")]
    return f"| {' | '.join([name, f'{megabytes:.1f}', trained, *precision, *counts])} |"


if __name__ == "__main__":
    main()
