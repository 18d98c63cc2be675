"""Fit numbers of the shipped `nuclei` package's separator anew, and write all that rests on them; its networks stay.

    CELLCOUNT_DATA=DATA python models/refit_nuclei.py VERSION [--names outline edge_area edge_peak]

DATA is the folder that holds `dsb2018_nuclei/`. Fitted on the images that `conf/train_nuclei.yaml` sets aside and some that
trained, as in training, with float32's maps at each image's true size; nothing is fitted on its validation images. What is not
named stays as it is. Variants, interval, domain and accuracy are measured again. Needs Keras, for the variant in float16.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np

from cellcount_core.cli.settings import read_yaml
from cellcount_core.evaluation.evaluate import whole_maps
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import MANIFEST, load_package
from cellcount_core.objects.separators import build_separator
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.export import GOLDEN, at_scale, finish_package, fitting_images
from cellcount_core.training.fit import GRIDS, START, fit_cores
from cellcount_core.training.goldens import put_labels
from cellcount_core.training.images import load_images

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "models" / "nuclei"


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("version", help="of the new package")
    made.add_argument("--names", nargs="+", default=["outline", "edge_area", "edge_peak"], choices=list(GRIDS))
    arguments = made.parse_args()
    config = TrainConfig.model_validate(read_yaml(ROOT / "conf" / "train_nuclei.yaml"))
    images = load_images(config, report=print)
    package = load_package(FOLDER)
    engine = load_engine(package, "onnxruntime", 1)
    # Whole images, whose number of pixels differs: a full batch of each would be the same image many times.
    engine.batch = 1
    fit = fitting_images(config, images)
    maps = [
        whole_maps(
            at_scale(image, package.input.diameter_px).plane,
            lambda canvas: np.asarray(engine.run(canvas[None])[0]),
            package.input,
            package.stride,
        )
        for image in fit
    ]
    stated = {name: value for name, value in package.separator.items() if name != "kind"}
    start = {**START, **{name: float(str(value)) for name, value in stated.items()}}
    separator = {"kind": "cores", **fit_cores(fit, maps, print, start=start, names=arguments.names)}
    manifest = json.loads((FOLDER / MANIFEST).read_text(encoding="utf-8"))
    del manifest["files"]
    # Variants are judged anew; one that does not pass leaves nothing behind.
    manifest |= {"version": arguments.version, "separator": separator, "variants": {}}
    manifest["engines"] = {name: manifest["engines"][name] for name in ("keras", "onnxruntime")}
    manifest["golden"]["engines"] = {}
    put_labels(FOLDER / GOLDEN, build_separator(separator))
    written = finish_package(config, images, FOLDER, manifest, print)
    print(f"{FOLDER.relative_to(ROOT)}: {written.name} {written.version} {written.digest[:12]}")


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    main()
