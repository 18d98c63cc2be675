"""From a checkpoint to a package: averaged weights, folded normalisation, ONNX, golden tensors, thresholds and accuracy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellcount_core import __version__
from cellcount_core.domain.columns import Value
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fingerprint import RESULTS_VERSION
from cellcount_core.domain.trust import TAUGHT_NOTHING
from cellcount_core.evaluation.evaluate import (
    in_turn,
    objects_of,
    package_scorer,
    stated_figures,
    true_size_scorer,
)
from cellcount_core.labelled.image import Pictured
from cellcount_core.models.engines import Engine, load_engine, resolve_engine
from cellcount_core.models.engines.onnx import keep_onnxruntime_silent
from cellcount_core.models.families import family_named
from cellcount_core.models.families.onnx_graph import layer_weights
from cellcount_core.models.manifest import FORMAT, MANIFEST
from cellcount_core.models.package import Package, load_package, read_for_writing, write_package
from cellcount_core.tasks.task import task_of
from cellcount_core.training.batches import statistics_batches
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.learning import Lesson, Say, data_digest
from cellcount_core.training.network import compiled, config_digest, prepare_backend, total_steps
from cellcount_core.training.start import hold_start, load_checkpoint, load_lesson, start_record, started
from cellcount_core.training.variants import (
    FLOAT16,
    FLOAT16_VECTOR,
    INT8,
    INT8_VECTOR,
    Tolerance,
    add_variant,
    put_arrays,
    read_golden,
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


def export_package(config: TrainConfig, lesson: Lesson, *, report: Say = print) -> Path:
    """Write the package of the newest checkpoint into `config.package_dir`, and return that folder.

    An existing package there is replaced once the new one is complete; its README.md stays. Raises ConfigFault if
    there is no checkpoint, or if the folder holds something other than a package.
    """
    config = started(hold_start(config))
    final = Path(config.package_dir).expanduser().absolute()
    check_replaceable(final)
    step, network = averaged_network(config, lesson)
    folder = final.with_name(final.name + ".new")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lesson.finish(network)
    folded_config, folded = family_named(config.family).fold(config.network, network)
    folded.save_weights(folder / WEIGHTS)
    package = _complete(config, lesson, folder, folded_config, folded, step, report)
    _write_counts(config, package, lesson)
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


def averaged_network(config: TrainConfig, lesson: Lesson) -> tuple[int, keras.Model]:
    """The step of the newest checkpoint and its network in float32, with averaged weights if the run averages them.

    Averaged weights see other activations than those that gave the statistics of the batch normalisation, so the
    statistics are taken anew from training batches. Raises ConfigFault if there is no checkpoint.
    """
    plain = config.model_copy(update={"dtype": "float32"})
    network, trainee = compiled(plain, total_steps(config, len(lesson.train)))
    step = load_checkpoint(
        Path(config.work_dir).expanduser(),
        network,
        trainee.optimizer,
        config_digest(config),
        data_digest(lesson, config.partial()),
    )
    if not step:
        raise ConfigFault(f"work_dir {config.work_dir}: no checkpoint there yet")
    if config.optimiser.ema:
        trainee.optimizer.finalize_variable_values(trainee.trainable_variables)
    norms = [layer for layer in network.layers if layer.name.endswith("_norm")]
    if norms:
        _calibrate(config, lesson, network, norms)
    return step, network


def _calibrate(config: TrainConfig, lesson: Lesson, network: keras.Model, norms: list[keras.Layer]) -> None:
    weights = lesson.statistics_chances(_CALIBRATION_IMAGES)
    for number, inputs in enumerate(statistics_batches(lesson, weights, config, _CALIBRATION_BATCHES)):
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


def _by_keras(network: keras.Model) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    return lambda canvas: np.asarray(network.predict_on_batch(canvas[None]), np.float32)[0]


def _complete(
    config: TrainConfig,
    lesson: Lesson,
    folder: Path,
    network: dict[str, object],
    folded: keras.Model,
    step: int,
    report: Say,
) -> Package:
    family = family_named(config.family)
    as_graph = family.has_graph(network)
    if as_graph:
        weights = layer_weights(folded)
        (folder / ONNX).write_bytes(family.graph(network, weights, "resize").SerializeToString())
    run = _runner(folder / ONNX) if as_graph else _by_keras(folded)
    total = family.stride(network)
    section = lesson.section({"stride": total, "receptive_radius": family.radius(network)}, report)
    crops = lesson.golden_crops(total)
    put_arrays(folder / GOLDEN, {"input": crops, "maps": np.stack([run(crop) for crop in crops])})
    manifest: dict[str, object] = {
        "format": FORMAT,
        "name": config.package_name(),
        "version": config.version,
        "family": config.family,
        "task": config.task,
        "object": config.object,
        "modality": list(config.modalities()),
        "description": described(config),
        "input": {
            "channels": list(config.input.channels),
            "diameter_px": config.input.diameter_px,
            "normalisation": {
                "kind": "noise_floor", "percentile": config.input.percentile, "floor_sigmas": config.input.floor_sigmas,
                "polarity": config.input.polarity,
            },
        },
        "network": network,
        config.task: section,
        "engines": {"keras": {"file": WEIGHTS}, **({"onnxruntime": {"file": ONNX}} if as_graph else {})},
        "golden": {"file": GOLDEN, "atol": _GOLDEN_ATOL},
        "accuracy": {},
        "training": _training(config, lesson, step),
    }  # fmt: skip
    package = write_package(folder, manifest)
    float32 = "onnxruntime" if as_graph else "keras"
    section |= lesson.fitted(package, load_engine(package, float32, 1), report)
    put_found(lesson, section, folder)
    if config.int8 == "auto" and as_graph:
        write_int8(
            network, weights, lesson.calibration_tiles(total), folder / INT8.file, family=config.family
        )
    return finish_package(config, lesson, folder, manifest, report)


def described(config: TrainConfig) -> str:
    """The description of a package, behind a warning if there is nothing that it could learn."""
    why = config.taught_nothing()
    return f"Not to be counted with: {why}. {config.description}".rstrip() if why else config.description


def put_found(lesson: Lesson, section: Mapping[str, object], folder: Path) -> None:
    """Store in a package's golden file what the task finds in its golden maps with the thresholds of a section."""
    found = lesson.golden_arrays(section, read_golden(folder / GOLDEN, "maps"))
    put_arrays(folder / GOLDEN, {**found})


def finish_package(
    config: TrainConfig, lesson: Lesson, folder: Path, manifest: dict[str, object], report: Say
) -> Package:
    """Write what a package states of itself, once its networks are in `folder` and its thresholds in `manifest`.

    These are the variants that pass, the interval, the domain, and the accuracy.
    """
    # An estimate of the size looks at many sizes, and Keras compiles for each: float16 is tried at one scale.
    whole = family_named(config.family).radius(config.network) == 0
    int8, float16 = (INT8_VECTOR, FLOAT16_VECTOR) if whole else (INT8, FLOAT16)
    tried = [(int8, lesson.diameters())] if config.int8 == "auto" else []
    tried.append((float16, lesson.diameters()[:1]))
    # Variants are held against the graph in float32.
    for variant, diameters in tried if family_named(config.family).has_graph(config.network) else ():
        manifest = add_variant(
            folder, manifest, variant, lesson.fitting_images(), report, diameters=diameters, gate=Tolerance()
        )
    package = write_package(folder, manifest)
    engine = load_engine(package, resolve_engine(package, "auto", gpus=0), 1)
    manifest |= lesson.uncertainty(package, engine)
    package = write_package(folder, manifest)
    manifest["accuracy"] = _measure(config, package, lesson, report)
    package = write_package(folder, manifest)
    lesson.tell(package, engine, report)
    return package


def refit_package(config: TrainConfig, lesson: Lesson, folder: Path, *, report: Say = print) -> Package:
    """Measure anew what the package in `folder` states of its counts, and give it the version `config.version`.

    Images are counted as this version of cellcount counts them. The interval and the domain are fitted on the images
    that `config` sets aside, and the accuracy is measured on its validation images. Networks, thresholds, golden
    tensors and the figures of variants stay. `training.refitted` in the manifest says what was done to which package.
    Nothing is written before everything is measured.

    Raises ConfigFault if the package has another name than the configuration, or already has that version.
    """
    before = load_package(folder)
    if before.name != config.package_name():
        raise ConfigFault(
            f"{folder}: a package named {before.name!r}; the configuration is of {config.package_name()!r}"
        )
    if before.version == config.version:
        raise ConfigFault(
            f"{folder}: has version {config.version} already; other content is another version (--set version=…)"
        )
    manifest = read_for_writing(folder)
    engine = load_engine(before, resolve_engine(before, "auto", gpus=0), 1)
    manifest |= lesson.uncertainty(before, engine)
    manifest["accuracy"] = _measure(config, before, lesson, report)
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


def _measure(config: TrainConfig, package: Package, lesson: Lesson, report: Say) -> dict[str, object]:
    name = resolve_engine(package, "auto", gpus=0)
    engine = load_engine(package, name, 1)
    first, *others = lesson.diameters()
    with package_scorer(package, engine, first) as score:
        as_counted = stated_figures(package, list(in_turn(score, lesson.validation)))
    how = "as it is" if first == "model" else f"at a diameter of {first:g} px"
    report(f"validation {how}, {name}: {_in_words(as_counted)}")
    figures: dict[str, object] = {
        "data": config.measured_on(),
        "engine": name,
        **({TAUGHT_NOTHING: why} if (why := config.taught_nothing()) else {}),
        **({} if first == "model" else {"diameter_px": first}),
        **as_counted,
    }
    if "auto" in others:
        with package_scorer(package, engine, "auto") as score:
            own = stated_figures(package, list(in_turn(score, lesson.validation)))
        report(f"validation at each image's own estimate, {name}: {_in_words(own)}")
        figures["at_estimated_diameter"] = own
    if package.input.diameter_px is not None:
        with true_size_scorer(package, engine) as score:
            scaled = stated_figures(package, list(in_turn(score, lesson.validation)))
        report(f"validation at the true median diameter, {name}: {_in_words(scaled)}")
        figures["at_true_diameter"] = scaled
    if apart := lesson.measured_apart():
        figures["sources"] = {
            name: _of_source(package, engine, lesson, images, name, report) for name, images in apart.items()
        }
    return figures


def _of_source(
    package: Package, engine: Engine, lesson: Lesson, images: Sequence[Pictured], name: str, report: Say
) -> Mapping[str, Value]:
    """The figures of one source's validation images, as the package is used: at their own estimate, if it tells sizes."""
    diameters = lesson.diameters()
    with package_scorer(package, engine, "auto" if "auto" in diameters else diameters[0]) as score:
        figures = stated_figures(package, list(in_turn(score, images)))
    report(f"validation, source {name}: {_in_words(figures)}")
    return figures


def _in_words(figures: Mapping[str, Value]) -> str:
    """ "f1_50 0.8412, count_bias -0.0213"; figures that are not defined are left out."""
    return ", ".join(
        f"{name} {round(value, 4) if isinstance(value, float) else value}"
        for name, value in figures.items()
        if value is not None
    )


def _training(config: TrainConfig, lesson: Lesson, step: int) -> dict[str, object]:
    own = set(type(config).model_fields) - set(TrainConfig.model_fields)
    recipe = config.model_dump(
        mode="json", include={"optimiser", "batch", "crop_px", "dtype", "network", *own - {"beside"}}
    )
    points = read_curve(Path(config.work_dir).expanduser())
    return {
        **config.sources_told(),
        "images": len(lesson.train),
        "images_fit": len(lesson.fit),
        "steps": step,
        "minutes": round(points[-1].seconds / 60, 2) if points else None,
        "seed": config.seed,
        "recipe": recipe,
        **start_record(config),
    }


def _write_counts(config: TrainConfig, package: Package, lesson: Lesson) -> None:
    """Write `index,count` for each validation image to a CSV in the work folder, where the task counts objects."""
    engine = load_engine(package, resolve_engine(package, "auto", gpus=0), 1)
    if not task_of(package).columns(package, ()).object_count:
        return
    with package_scorer(package, engine, lesson.diameters()[0]) as score:
        lines = [
            f"{index},{objects_of(score(image)).counted}" for index, image in enumerate(lesson.validation)
        ]
    (Path(config.work_dir).expanduser() / COUNTS).write_text(
        "\n".join(["index,count", *lines, ""]), encoding="utf-8"
    )


def package_now(config: TrainConfig, *, report: Say = print) -> Path:
    """Write a package of the newest checkpoint, while the training run continues elsewhere or after it was stopped."""
    prepare_backend(config.threads)
    config = hold_start(config)
    return export_package(config, load_lesson(config), report=report)
