"""YOLOX-nano as libreyolo 1.6.0 (MIT) has it: trained from nothing on images with boxes, then finding boxes in others.

    python -m benchmarks.peers.yolo PLAN

Run by `benchmarks.peers.boxes`, with the interpreter of libreyolo's own environment; nothing of cellcount is imported here. PLAN is a JSON
with `data` (the YAML of a data set in YOLO's layout), `images` (those to look at), `epochs`, `batch`, `side` (px) and `out` (a JSON: for each image its boxes
x0 y0 x1 y1, classes and scores; and the CPU time that training took).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

REQUIREMENTS = ("libreyolo==1.6.0",)
"""What pip installs into its environment; it brings PyTorch, which on Linux comes with CUDA's libraries (several GB)."""

SIZE = "n"
SETTINGS = {"optimizer": "adamw", "lr0": 0.001, "warmup_epochs": 1, "no_aug_epochs": 6, "ema_decay": 0.998}
"""What differs from its defaults, which are made for 300 epochs: so it learns more in a tenth of them."""

LOWEST, OVERLAP, MOST = 0.01, 0.65, 300
"""Least score of a box, the overlap above which one of two is dropped, and most boxes of an image."""


def main(plan: Path) -> None:
    """Train and look, as `plan` says."""
    import torch
    from libreyolo import LibreYOLOX  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    asked = json.loads(plan.read_text(encoding="utf-8"))
    # No file is named, so weights begin at random and none are looked for.
    model = LibreYOLOX(size=SIZE, nb_classes=asked["classes"], device="cpu")
    began = time.process_time()
    model.train(
        data=asked["data"],
        epochs=asked["epochs"],
        batch=asked["batch"],
        imgsz=asked["side"],
        device="cpu",
        workers=0,
        seed=0,
        pretrained=False,
        amp=False,
        eval_interval=asked["epochs"],
        **SETTINGS,
        project=str(Path(asked["out"]).parent / "runs"),
        exist_ok=True,
    )
    seconds = time.process_time() - began
    model.model.eval()
    found = {}
    for image in asked["images"]:
        result = model(image, conf=LOWEST, iou=OVERLAP, imgsz=asked["side"], max_det=MOST)
        one = (result[0] if isinstance(result, list) else result).boxes
        found[image] = {"boxes": one.xyxy.tolist(), "classes": one.cls.tolist(), "scores": one.conf.tolist()}
    told = {
        "cpu_seconds": seconds,
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "found": found,
    }
    Path(asked["out"]).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
