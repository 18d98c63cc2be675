"""Fit numbers of the shipped `nuclei` package's separator anew, and write all that rests on them; its networks stay.

    CELLCOUNT_DATA=DATA python models/refit_nuclei.py VERSION [--names foreground outline ...] [--dry]

DATA is the folder that holds `dsb2018_nuclei/`. Fitted on the images that `conf/train_nuclei.yaml` sets aside and some that
trained, as in training, but as they are counted: by the engine `auto` means on a CPU, each at its own estimated size. Nothing is
fitted on the validation images. What is not named stays as it is. Variants, interval, domain and accuracy are measured again. Needs Keras, for the variant in float16.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cellcount_core.cli.settings import read_yaml
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import load_package
from cellcount_core.models.package import read_for_writing
from cellcount_core.tasks.instances.fit import SEPARATOR_GRIDS, SEPARATOR_START, as_counted, fit_cores, score
from cellcount_core.tasks.instances.learn import InstancesConfig, InstancesLearning
from cellcount_core.tasks.instances.task import section_of
from cellcount_core.training.export import finish_package, put_found

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "models" / "nuclei"


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("version", help="of the new package")
    made.add_argument("--names", nargs="+", default=list(SEPARATOR_GRIDS), choices=list(SEPARATOR_GRIDS))
    made.add_argument("--dry", action="store_true", help="print what would be fitted and write nothing")
    arguments = made.parse_args()
    config = InstancesConfig.model_validate(read_yaml(ROOT / "conf" / "train_nuclei.yaml"))
    lesson = InstancesLearning().load(config, print)
    package = load_package(FOLDER)
    engine = load_engine(package, resolve_engine(package, "auto", gpus=0), 1)
    # Whole images, whose number of pixels differs: a full batch of each would be the same image many times.
    engine.batch = 1

    fit, maps = as_counted(package, engine, lesson.fitting_images(), print)
    stated = {name: value for name, value in section_of(package).separator.items() if name != "kind"}
    before = {name: float(str(value)) for name, value in stated.items() if value is not None}
    start = {**{name: SEPARATOR_START[name] for name in arguments.names}, **before}
    fitted = fit_cores(fit, maps, print, start=start, names=arguments.names)
    for name, numbers in ((package.version, before), (arguments.version, fitted)):
        found = score(fit, maps, numbers)
        print(
            f"{name}: AP@0.5 {found.ap():.3f}, AP@0.9 {found.ap(0.9):.3f}, mean AP {found.mean_ap():.3f}, "
            f"count MAPE {found.count_mape():.1%}, count bias {found.count_bias():+.1%}"
        )
    if arguments.dry:
        return
    separator = {"kind": "cores", **fitted}
    manifest = read_for_writing(FOLDER)
    # Variants are judged anew; one that does not pass leaves nothing behind.
    manifest |= {"version": arguments.version, "variants": {}}
    manifest["instances"] |= {"separator": separator}
    manifest["engines"] = {name: manifest["engines"][name] for name in ("keras", "onnxruntime")}
    manifest["golden"]["engines"] = {}
    put_found(lesson, manifest["instances"], FOLDER)
    written = finish_package(config, lesson, FOLDER, manifest, print)
    print(f"{FOLDER.relative_to(ROOT)}: {written.name} {written.version} {written.digest[:12]}")


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    main()
