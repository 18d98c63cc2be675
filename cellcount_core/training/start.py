"""How a run begins: with the images it names, and with the weights of a package (fine-tuning) or where it was stopped (checkpoints).

A checkpoint is one file that holds weights, optimiser and step, and is always replaced whole. Packages hold networks
whose batch normalisation is folded into the convolutions, so a fine-tuned network has none.

A package of another task gives the body of its network: all layers but the last, which makes the maps. That network has learned to see
cells and where they end, so what it is taught anew takes a fraction of the steps and images.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from cellcount_core.domain.errors import ConfigFault, ModelFault
from cellcount_core.models.families import LOGITS, family_named
from cellcount_core.models.manifest import MANIFEST
from cellcount_core.models.package import Package, find_package, load_package
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.learning import Lesson, Say, learning_of

if TYPE_CHECKING:
    import keras


CHECKPOINT = "checkpoint.npz"
_DATA = "data"


def save_checkpoint(
    work_dir: Path,
    step: int,
    network: keras.Model,
    optimiser: keras.optimizers.Optimizer,
    digest: str,
    data: str,
) -> None:
    """Write the state after `step` steps, with the digests of the configuration and of the labelled images. A reader sees either the old
    file or the new one, never a part."""
    from keras import ops

    arrays = {f"w{i:04d}": ops.convert_to_numpy(v) for i, v in enumerate(network.weights)}
    arrays |= {f"o{i:04d}": ops.convert_to_numpy(v) for i, v in enumerate(optimiser.variables)}
    arrays |= {f"s{i:04d}": ops.convert_to_numpy(v) for i, v in enumerate(random_states(network))}
    arrays |= {"step": np.int64(step), "digest": np.array(digest), _DATA: np.array(data)}
    temporary = work_dir / "checkpoint.tmp.npz"
    np.savez(temporary, allow_pickle=False, **arrays)
    temporary.replace(work_dir / CHECKPOINT)


def load_checkpoint(
    work_dir: Path, network: keras.Model, optimiser: keras.optimizers.Optimizer, digest: str, data: str
) -> int:
    """Load the newest checkpoint into network and optimiser, and return its step; 0 if there is none.

    Raises ConfigFault if the checkpoint was written by another configuration, or on other labelled images (`data` is their digest).
    """
    path = work_dir / CHECKPOINT
    if not path.is_file():
        return 0
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["digest"]) != digest:
            raise ConfigFault(
                f"{path}: the checkpoint of another configuration; give another work_dir or remove it"
            )
    check_same_data(work_dir, data)
    with np.load(path, allow_pickle=False) as stored:
        parts = (("w", network.weights), ("o", optimiser.variables), ("s", random_states(network)))
        for prefix, variables in parts:
            for index, variable in enumerate(variables):
                variable.assign(stored[f"{prefix}{index:04d}"])
        return int(stored["step"])


def random_states(network: keras.Model) -> list[keras.Variable]:
    """The states of the random generators inside a network: those of its dropout. They are no weights, and a run goes on with them."""
    weights = {id(variable) for variable in network.weights}
    return [variable for variable in network.variables if id(variable) not in weights]


def check_same_data(work_dir: Path, data: str) -> None:
    """Raise ConfigFault if the run in `work_dir` was trained on other labelled images than those of which `data` is the digest.

    Says nothing of a checkpoint that does not know its images, as those of earlier versions do not.
    """
    path = work_dir / CHECKPOINT
    if not path.is_file():
        return
    with np.load(path, allow_pickle=False) as stored:
        before = str(stored[_DATA]) if _DATA in stored else data
    if before != data:
        raise ConfigFault(
            f"{path}: this run was trained on other data: images, labels or data.partial have changed since, so it is neither "
            f"gone on with nor given back as if nothing had happened; to train on what is there now give another work_dir, or remove {path}"
        )


COPY = "start"
"""Folder in `work_dir` that holds a copy of the package the run started from."""

_ENGINE = "keras"


def started(config: TrainConfig) -> TrainConfig:
    """Fill in what the configuration leaves to the package it starts from: of a package of another task, the network alone. Without
    `start_from` it is returned unchanged.

    Raises ConfigFault if the package cannot be trained further, or if the configuration asks for another network or
    other maps than it has.
    """
    if not config.start_from:
        return config
    package = start_package(config)
    taken = config.model_dump(exclude_unset=True)
    if package.task == config.task:
        given, own = package.input, taken
        taken = {
            "object": package.object_name, **learning_of(config.task).taken(config, package), **own, "network": dict(package.network),
            "input": {
                "channels": given.channels, "diameter_px": given.diameter_px, "percentile": given.percentile,
                "floor_sigmas": given.floor_sigmas, "polarity": given.polarity, **config.input.model_dump(exclude_unset=True),
            },
        }  # fmt: skip
    else:
        taken["network"] = {**package.network, "outputs": len(config.outputs())}
    try:
        return type(config).model_validate(taken)
    except ValidationError as error:
        raise ConfigFault(f"start_from: package {package.name!r} and this configuration: {error}") from error


def load_lesson(config: TrainConfig, *, report: Say | None = None) -> Lesson:
    """Read the images that a configuration names, as its task does. Raises ConfigFault as `Learning.load` and `started` do."""
    return learning_of(config.task).load(started(config), report or (lambda _: None))


def start_package(config: TrainConfig) -> Package:
    """Find the package a run starts from.

    Raises ConfigFault saying why it cannot be trained further, and ModelFault if there is no package of that name.
    """
    package = find_package(config.start_from)
    where = f"start_from: package {package.name!r}"
    if package.family != config.family or _ENGINE not in package.engines:
        raise ConfigFault(
            f"{where} has no network that can be trained (family {package.family!r}, engines {sorted(package.engines)})"
        )
    inputs = family_named(config.family).parse(package.network).inputs
    if inputs != len(config.input.channels):
        raise ConfigFault(
            f"{where} looks at {inputs} channels, the configuration at {len(config.input.channels)} ({', '.join(config.input.channels)})"
        )
    if config.network:
        _check_network(config, package, where)
    if Path(config.package_dir).expanduser().absolute() == package.folder.absolute():
        raise ConfigFault(
            f"package_dir {config.package_dir} is the package that start_from names: give the new one a folder of its own"
        )
    return package


def hold_start(config: TrainConfig) -> TrainConfig:
    """Copy the package a run starts from into `work_dir`, and return the configuration with `start_from` naming the
    copy.

    A long run must not find another package there at its end. Raises ConfigFault, saying what to do, if the run in
    `work_dir` started from a package that has been replaced since.
    """
    if not config.start_from:
        return config
    package = start_package(config)
    work_dir = Path(config.work_dir).expanduser().absolute()
    copy = work_dir / COPY
    if package.folder.absolute() == copy:
        return config
    if not (copy / MANIFEST).is_file() or load_package(copy).digest != package.digest:
        if (work_dir / CHECKPOINT).is_file() and copy.is_dir():
            raise ConfigFault(
                f"work_dir {work_dir}: its run started from another package than {config.start_from!r} is now; to go on with it "
                f"set start_from={copy}, to start anew give another work_dir"
            )
        shutil.rmtree(copy, ignore_errors=True)
        work_dir.mkdir(parents=True, exist_ok=True)
        shutil.copytree(package.folder, copy)
    return config.model_copy(update={"start_from": str(copy)})


def _check_network(config: TrainConfig, package: Package, where: str) -> None:
    parse = family_named(config.family).parse
    asked, has = (parse(network).settings() for network in (config.network, package.network))
    if package.task != config.task:
        has["outputs"] = len(config.outputs())
    other = [f"{key} is {has[key]!r}, asked for {asked[key]!r}" for key in has if has[key] != asked[key]]
    if other:
        raise ConfigFault(f"{where} has another network: {'; '.join(other)}. Leave `network` out")


def load_start(config: TrainConfig, network: keras.Model) -> None:
    """Load the weights of the starting package into a newly built network: of a package of another task, all but those of the last layer.
    Does nothing without `start_from`.

    Raises ModelFault if the file does not hold the weights of the network the package describes.
    """
    if not config.start_from:
        return
    package = start_package(config)
    path = package.file(package.engines[_ENGINE])
    same = package.task == config.task
    given = network if same else family_named(config.family).build(package.network, "float32")
    try:
        given.load_weights(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise ModelFault(f"{path}: not the weights of the network the package describes: {error}") from error
    if given is not network:
        for layer in network.layers:
            if layer.weights and layer.name != LOGITS:
                layer.set_weights(given.get_layer(layer.name).get_weights())


def start_record(config: TrainConfig) -> dict[str, object]:
    """What the new package's manifest says of the package it was trained from; empty without `start_from`."""
    if not config.start_from:
        return {}
    package = start_package(config)
    taken = "all layers" if package.task == config.task else "all layers but the last"
    return {
        "started_from": {
            "name": package.name, "version": package.version, "digest": package.digest, "layers": taken,
        }
    }  # fmt: skip
