"""From a checkpoint to a package: averaged weights, folded normalisation, ONNX, golden tensors, thresholds and
accuracy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellcount_core import __version__
from cellcount_core.domain.errors import ConfigFault, FieldFault
from cellcount_core.domain.fingerprint import RESULTS_VERSION
from cellcount_core.evaluation.evaluate import (
    Diameter,
    at_true_diameter,
    counting_of,
    evaluate,
    package_predictor,
    pixels_of,
)  # fmt: skip
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import Engine, load_engine, resolve_engine
from cellcount_core.models.engines.onnx import keep_onnxruntime_silent
from cellcount_core.models.families.onnx_graph import Weights, layer_weights, write_onnx
from cellcount_core.models.families.unet import fold_batch_norm, receptive_radius, stride
from cellcount_core.models.manifest import FORMAT, MANIFEST
from cellcount_core.models.package import Package, load_package, read_for_writing, write_package
from cellcount_core.objects.separators import build_separator
from cellcount_core.pipeline.field import planes_kit
from cellcount_core.pipeline.field import prepare as prepare_field
from cellcount_core.pipeline.maps import canvas_maps
from cellcount_core.tasks.object_size.looks import SIZE, tells_sizes
from cellcount_core.training.batches import Images, chances, load_images, make_batch, prepare
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.fit import SEPARATOR_START, fit_cores, fit_sizing, uncertainty
from cellcount_core.training.network import compiled, config_digest, prepare_backend, total_steps
from cellcount_core.training.start import (
    hold_start,
    kept_separator,
    kept_sizing,
    load_checkpoint,
    start_record,
    started,
)
from cellcount_core.training.variants import (
    FLOAT16,
    INT8,
    Tolerance,
    add_variant,
    calibration_tiles,
    golden_input,
    put_labels,
    write_golden,
    write_int8,
)
from cellcount_core.training.watching import read_curve

if TYPE_CHECKING:
    import keras


WEIGHTS = "network.weights.h5"
ONNX = "network.onnx"
GOLDEN = "golden.npz"
COUNTS = "counts.csv"
CARD = "README.md"
_GOLDEN_ATOL = 0.002
_CALIBRATION_BATCHES = 40
_CALIBRATION_IMAGES = 400
_FITTED_TRAINING_IMAGES = 100


def export_package(config: TrainConfig, images: Images, *, report: Callable[[str], None] = print) -> Path:
    """Write the package of the newest checkpoint into `config.package_dir`, and return that folder.

    An existing package there is replaced once the new one is complete; its README.md stays. Raises ConfigFault if
    there is no checkpoint, or if the folder holds something other than a package.
    """
    config = started(hold_start(config))
    final = Path(config.package_dir).expanduser().absolute()
    check_replaceable(final)
    step, network = averaged_network(config, images)
    folder = final.with_name(final.name + ".new")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folded_config, folded = fold_batch_norm(config.network, network)
    folded.save_weights(folder / WEIGHTS)
    package = _complete(config, images, folder, folded_config, layer_weights(folded), step, report)
    _write_counts(config, package, images.validation)
    if (final / CARD).is_file():
        shutil.copy(final / CARD, folder / CARD)
    shutil.rmtree(final, ignore_errors=True)
    folder.replace(final)
    report(f"package {package.name} {package.version} ({package.digest[:12]}) of step {step} in {final}")
    return final


def check_replaceable(folder: Path) -> None:
    """Raise ConfigFault if `folder` holds anything but a model package, because writing a new one would remove it."""
    if (
        folder.exists()
        and not (folder / MANIFEST).is_file()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise ConfigFault(
            f"package_dir {folder}: neither empty nor a model package; name a folder of the package's own"
        )


def averaged_network(config: TrainConfig, images: Images) -> tuple[int, keras.Model]:
    """The step of the newest checkpoint and its network in float32, with averaged weights if the run averages them.

    Averaged weights see other activations than those that gave the statistics of the batch normalisation, so the
    statistics are taken anew from training batches. Raises ConfigFault if there is no checkpoint.
    """
    plain = config.model_copy(update={"dtype": "float32"})
    network, trainee = compiled(plain, total_steps(config, len(images.train)))
    step = load_checkpoint(
        Path(config.work_dir).expanduser(), network, trainee.optimizer, config_digest(config)
    )
    if not step:
        raise ConfigFault(f"work_dir {config.work_dir}: no checkpoint there yet")
    if config.optimiser.ema:
        trainee.optimizer.finalize_variable_values(trainee.trainable_variables)
    norms = [layer for layer in network.layers if layer.name.endswith("_norm")]
    if norms:
        _calibrate(config, images.train, network, norms)
    return step, network


def _calibrate(
    config: TrainConfig, train: list[LabelledImage], network: keras.Model, norms: list[keras.Layer]
) -> None:
    samples = prepare(
        train[:_CALIBRATION_IMAGES], config.input.percentile, config.input.floor_sigmas, config.input.polarity
    )
    weights = chances(samples)
    for number in range(_CALIBRATION_BATCHES):
        inputs, _ = make_batch(samples, weights, config, (config.seed, 2, number))
        for layer in norms:
            # The k-th batch weighs 1/k: the statistics end as the plain mean over all batches.
            layer.momentum = number / (number + 1)
        network(inputs, training=True)


def _runner(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    keep_onnxruntime_silent()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda canvas: np.asarray(session.run(None, {name: np.ascontiguousarray(canvas[None])})[0][0])


def _complete(
    config: TrainConfig,
    images: Images,
    folder: Path,
    network: dict[str, object],
    weights: Weights,
    step: int,
    report: Callable[[str], None],
) -> Package:
    write_onnx(network, weights, folder / ONNX)
    run = _runner(folder / ONNX)
    spec = config.input.spec()
    total = stride(network)
    kept = kept_separator(config, images, report)
    separator = dict(kept) if kept else _first_separator(config)
    crops = golden_input(images.fit, spec, total)
    golden_maps = np.stack([run(crop) for crop in crops])
    write_golden(folder / GOLDEN, crops, golden_maps, build_separator(separator))
    section: dict[str, object] = {
        "stride": total, "receptive_radius": receptive_radius(network), "maps": list(config.maps),
        "separator": separator, "sizing": dict(kept_sizing(config)) if kept else {},
    }  # fmt: skip
    manifest: dict[str, object] = {
        "format": FORMAT,
        "name": config.name,
        "version": config.version,
        "family": "unet",
        "task": "instances",
        "object": config.object,
        "modality": list(config.data.modality),
        "description": config.description,
        "input": {
            "channels": [config.input.channel],
            "diameter_px": config.input.diameter_px,
            "normalisation": {
                "kind": "noise_floor", "percentile": config.input.percentile, "floor_sigmas": config.input.floor_sigmas,
                "polarity": config.input.polarity,
            },
        },
        "network": network,
        "instances": section,
        "engines": {"keras": {"file": WEIGHTS}, "onnxruntime": {"file": ONNX}},
        "golden": {"file": GOLDEN, "atol": _GOLDEN_ATOL},
        "accuracy": {},
        "training": _training(config, images, step),
    }  # fmt: skip
    if not kept and config.separator == "cores":
        fit = fitting_images(config, images)
        package = write_package(folder, manifest)
        engine = load_engine(package, "onnxruntime", 1)
        with closing(planes_kit(package, engine, counting_of("auto"))) as kit:
            found = fit_sizing(package, fit, lambda canvas: canvas_maps(canvas, package, kit.device), report)
        section["sizing"] = found
        fitted = fit_cores(*as_counted(write_package(folder, manifest), engine, fit, report), report)
        separator = {"kind": "cores", **fitted}
        put_labels(folder / GOLDEN, build_separator(separator))
        section["separator"] = separator
    if config.int8 == "auto":
        write_int8(network, weights, calibration_tiles(images.train, spec, total), folder / INT8.file)
    return finish_package(config, images, folder, manifest, report)


def finish_package(
    config: TrainConfig,
    images: Images,
    folder: Path,
    manifest: dict[str, object],
    report: Callable[[str], None],
) -> Package:
    """Write what a package states of itself, once its networks are in `folder` and its thresholds in `manifest`.

    These are the variants that pass, the interval, the domain, and the accuracy.
    """
    fitted_on = fitting_images(config, images)
    as_it_is: tuple[Diameter, ...] = ("model",)
    usual: tuple[Diameter, ...] = ("model", "auto") if _tells_size(config) else as_it_is
    # An estimate looks at many sizes, and Keras compiles for each: float16 is tried at one scale.
    tried = ((INT8, usual), (FLOAT16, as_it_is))
    for variant, diameters in tried if config.int8 == "auto" else tried[1:]:
        manifest = add_variant(
            folder, manifest, variant, fitted_on, report, diameters=diameters, gate=Tolerance()
        )
    package = write_package(folder, manifest)
    if images.fit is not images.train:
        engine = load_engine(package, resolve_engine(package, "auto", gpus=0), 1)
        manifest |= uncertainty(package, engine, images.train, images.fit)
        package = write_package(folder, manifest)
    manifest["accuracy"] = _measure(config, package, images.validation, report)
    return write_package(folder, manifest)


def refit_package(
    config: TrainConfig, images: Images, folder: Path, *, report: Callable[[str], None] = print
) -> Package:
    """Measure anew what the package in `folder` states of its counts, and give it the version `config.version`.

    Images are counted as this version of cellcount counts them. The interval and the domain are fitted on the images
    that `config` sets aside, and the accuracy is measured on its validation images. Networks, thresholds, golden
    tensors and the figures of variants stay. `training.refitted` in the manifest says what was done to which package.
    Nothing is written before everything is measured.

    Raises ConfigFault if the package has another name than the configuration, or already has that version.
    """
    before = load_package(folder)
    if before.name != config.name:
        raise ConfigFault(
            f"{folder}: a package named {before.name!r}; the configuration is of {config.name!r}"
        )
    if before.version == config.version:
        raise ConfigFault(
            f"{folder}: has version {config.version} already; other content is another version (--set version=…)"
        )
    manifest = read_for_writing(folder)
    if images.fit is not images.train:
        engine = load_engine(before, resolve_engine(before, "auto", gpus=0), 1)
        manifest |= uncertainty(before, engine, images.train, images.fit)
    manifest["accuracy"] = _measure(config, before, images.validation, report)
    manifest["version"] = config.version
    trained = manifest.get("training")
    manifest["training"] = {
        **(trained if isinstance(trained, dict) else {}),
        "refitted": {
            "from": {"version": before.version, "digest": before.digest},
            "sections": [name for name in ("interval", "domain", "accuracy") if name in manifest],
            "counted_by": f"cellcount {__version__}, results version {RESULTS_VERSION}",
        },
    }
    package = write_package(folder, manifest)
    report(f"interval before {before.interval}, now {package.interval}")
    report(f"package {package.name} {package.version} ({package.digest[:12]}) in {folder}")
    return package


def fitting_images(config: TrainConfig, images: Images) -> list[LabelledImage]:
    """The images that thresholds are fitted on: those set aside, and some training images beside them.

    Only a few numbers are fitted, so training images do little harm, while a few dozen images alone may come from two
    or three experiments and would bend the fit. If no image is set aside, training images are used alone.
    """
    trained = [image for image in images.train if image.id not in config.data.partial] or images.train
    some = trained[:: max(1, len(trained) // _FITTED_TRAINING_IMAGES)]
    return some if images.fit is images.train else [*images.fit, *some]


def _tells_size(config: TrainConfig) -> bool:
    """Whether images will be counted at the model's scale, as the network itself finds it."""
    return config.input.diameter_px is not None and SIZE in config.maps


def _first_separator(config: TrainConfig) -> dict[str, object]:
    if config.separator == "components":
        return {"kind": "components", "threshold": 0.5, "min_area": 0.0}
    return {"kind": "cores", **SEPARATOR_START}


def as_counted(
    package: Package, engine: Engine, images: Sequence[LabelledImage], report: Callable[[str], None]
) -> tuple[list[LabelledImage], list[NDArray[np.float32]]]:
    """The images and their maps (h, w, K) float32 as a run makes them: each at its own estimated size if the network
    can estimate sizes.

    An image that cannot be counted is left out, and a line of report says so.
    """
    kept: list[LabelledImage] = []
    maps: list[NDArray[np.float32]] = []
    with closing(planes_kit(package, engine, counting_of("auto"))) as kit:
        for image in images:
            try:
                found = prepare_field(kit, pixels_of(kit, image)).maps.whole()
            except FieldFault as fault:
                report(f"{image.id} is left out of the fit: {fault}")
                continue
            kept.append(image)
            maps.append(found)
    return kept, maps


def _measure(
    config: TrainConfig, package: Package, validation: list[LabelledImage], report: Callable[[str], None]
) -> dict[str, object]:
    name = resolve_engine(package, "auto", gpus=0)
    engine = load_engine(package, name, 1)
    with package_predictor(package, engine) as predict:
        as_is = evaluate(predict, validation).summary()
    report(f"validation as it is, {name}: {as_is}")
    figures: dict[str, object] = {
        "data": f"{config.data.title or config.data.kind}, split {config.data.validation_split}",
        "engine": name,
        **as_is,
    }
    if tells_sizes(package):
        with package_predictor(package, engine, "auto") as predict:
            own = evaluate(predict, validation).summary()
        report(f"validation at each image's own estimate, {name}: {own}")
        figures["at_estimated_diameter"] = own
    if package.input.diameter_px is not None:
        with at_true_diameter(package, engine) as predict:
            scaled = evaluate(predict, validation).summary()
        report(f"validation at the true median diameter, {name}: {scaled}")
        figures["at_true_diameter"] = scaled
    return figures


def _training(config: TrainConfig, images: Images, step: int) -> dict[str, object]:
    recipe = config.model_dump(
        mode="json", include={"optimiser", "loss", "augment", "batch", "crop_px", "dtype", "network"}
    )
    points = read_curve(Path(config.work_dir).expanduser())
    return {
        "data": f"{config.data.title or config.data.kind}, split {config.data.split}",
        "licence": config.data.licence,
        "images": len(images.train),
        "images_fit": len(images.fit),
        "steps": step,
        "minutes": round(points[-1].seconds / 60, 2) if points else None,
        "seed": config.seed,
        "recipe": recipe,
        **start_record(config),
    }


def _write_counts(config: TrainConfig, package: Package, validation: list[LabelledImage]) -> None:
    """Write `index,count` for each validation image to a CSV in the work folder."""
    engine = load_engine(package, resolve_engine(package, "auto", gpus=0), 1)
    with package_predictor(package, engine) as predict:
        lines = [f"{index},{int(predict(image).max(initial=0))}" for index, image in enumerate(validation)]
    (Path(config.work_dir).expanduser() / COUNTS).write_text(
        "\n".join(["index,count", *lines, ""]), encoding="utf-8"
    )


def package_now(config: TrainConfig, *, report: Callable[[str], None] = print) -> Path:
    """Write a package of the newest checkpoint, while the training run continues elsewhere or after it was stopped."""
    prepare_backend(config.threads)
    return export_package(config, load_images(config), report=report)
