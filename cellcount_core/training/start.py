"""Fine-tuning: a run that starts from a package's network, weights, scale and thresholds.

Packages hold networks whose batch normalisation is folded into the convolutions, so a fine-tuned network has none.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cellcount_core.domain.errors import ConfigFault, ModelFault
from cellcount_core.models.families.unet import parse_unet
from cellcount_core.models.manifest import MANIFEST
from cellcount_core.models.package import Package, find_package, load_package
from cellcount_core.tasks.instances.task import section_of
from cellcount_core.training.checkpoint import FILE
from cellcount_core.training.config import TrainConfig
from cellcount_core.training.images import Images

if TYPE_CHECKING:
    import keras

FEWEST_TO_FIT = 5
"""Thresholds fitted on fewer images follow their chances; those of the package that was started from are better then."""

COPY = "start"
"""Folder in `work_dir` that holds the package a run started from."""

_ENGINE = "keras"


def started(config: TrainConfig) -> TrainConfig:
    """The configuration with what it leaves to the package it starts from; the same one where it starts from none.

    Raises ConfigFault where the package cannot be trained further, or has another network or other maps than are asked for.
    """
    if not config.start_from:
        return config
    package = start_package(config)
    own = config.model_dump(exclude_unset=True)
    given = package.input
    taken: dict[str, object] = {
        "object": package.object_name, "separator": section_of(package).separator["kind"], **own, "network": dict(package.network),
        "maps": package.maps,
        "input": {
            "channel": given.channels[0], "diameter_px": given.diameter_px, "percentile": given.percentile,
            "floor_sigmas": given.floor_sigmas, "polarity": given.polarity, **config.input.model_dump(exclude_unset=True),
        },
    }  # fmt: skip
    try:
        return TrainConfig.model_validate(taken)
    except ValidationError as error:
        raise ConfigFault(f"start_from: package {package.name!r} and this configuration: {error}") from error


def start_package(config: TrainConfig) -> Package:
    """The package a run starts from. Raises ConfigFault saying why it cannot, ModelFault where there is none of that name."""
    package = find_package(config.start_from)
    where = f"start_from: package {package.name!r}"
    if package.family != "unet" or _ENGINE not in package.engines:
        raise ConfigFault(
            f"{where} has no network that can be trained (family {package.family!r}, engines {sorted(package.engines)})"
        )
    if len(package.input.channels) != 1:
        raise ConfigFault(f"{where} takes the channels {list(package.input.channels)}; training gives it one")
    if "maps" in config.model_fields_set and config.maps != package.maps:
        raise ConfigFault(
            f"{where} has the maps {list(package.maps)}, the configuration asks for {list(config.maps)}: leave `maps` out, "
            "or train a network of those maps from its beginning"
        )
    if config.network:
        _check_network(config, package, where)
    if Path(config.package_dir).expanduser().absolute() == package.folder.absolute():
        raise ConfigFault(
            f"package_dir {config.package_dir} is the package that start_from names: give the new one a folder of its own"
        )
    return package


def hold_start(config: TrainConfig) -> TrainConfig:
    """The configuration with `start_from` a copy of that package in `work_dir`: a long run must not find another one at its end.

    Raises ConfigFault where the run in `work_dir` started from a package that has been replaced since, and says what to do.
    """
    if not config.start_from:
        return config
    package = start_package(config)
    work_dir = Path(config.work_dir).expanduser().absolute()
    copy = work_dir / COPY
    if package.folder.absolute() == copy:
        return config
    if not (copy / MANIFEST).is_file() or load_package(copy).digest != package.digest:
        if (work_dir / FILE).is_file() and copy.is_dir():
            raise ConfigFault(
                f"work_dir {work_dir}: its run started from another package than {config.start_from!r} is now; to go on with it "
                f"set start_from={copy}, to start anew give another work_dir"
            )
        shutil.rmtree(copy, ignore_errors=True)
        work_dir.mkdir(parents=True, exist_ok=True)
        shutil.copytree(package.folder, copy)
    return config.model_copy(update={"start_from": str(copy)})


def _check_network(config: TrainConfig, package: Package, where: str) -> None:
    asked, has = asdict(parse_unet(config.network)), asdict(parse_unet(package.network))
    other = [f"{key} is {has[key]!r}, asked for {asked[key]!r}" for key in has if has[key] != asked[key]]
    if other:
        raise ConfigFault(f"{where} has another network: {'; '.join(other)}. Leave `network` out")


def load_start(config: TrainConfig, network: keras.Model) -> None:
    """Give a network just built the weights of the package a run starts from; nothing where it starts from none."""
    if not config.start_from:
        return
    package = start_package(config)
    path = package.file(package.engines[_ENGINE])
    try:
        network.load_weights(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise ModelFault(f"{path}: not the weights of the network the package describes: {error}") from error


def kept_separator(
    config: TrainConfig, images: Images, report: Callable[[str], None]
) -> Mapping[str, object] | None:
    """The thresholds of the package a run starts from, where too few images are set aside to fit new ones; else None."""
    if not config.start_from:
        return None
    aside = 0 if images.fit is images.train else len(images.fit)
    package = start_package(config)
    if aside >= FEWEST_TO_FIT or section_of(package).separator["kind"] != config.separator:
        return None
    report(
        f"{aside} images set aside to fit thresholds on (data.fit_share), less than {FEWEST_TO_FIT}: "
        f"those of {package.name!r} are kept"
    )
    return section_of(package).separator


def kept_sizing(config: TrainConfig) -> Mapping[str, object]:
    """What the package a run starts from looks at objects' size with, where its thresholds are kept."""
    return section_of(start_package(config)).sizing


def start_record(config: TrainConfig) -> dict[str, object]:
    """What a package tells of the one it was trained from."""
    if not config.start_from:
        return {}
    package = start_package(config)
    return {"started_from": {"name": package.name, "version": package.version, "digest": package.digest}}
