"""Where a job reads and writes, what can be wrong with these places before anything is listed or started, and
what the workers of a run are told.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cellcount_core.config import JobConfig, RunConfig, StorageConfig
from cellcount_core.domain.errors import ConfigFault, NoInputFault, OutputFault, likely
from cellcount_core.domain.fields import Selection
from cellcount_core.output.runfile import RUN_KEY, RunFile
from cellcount_core.pipeline.context import RunContext
from cellcount_core.plan.fields import UNNAMED
from cellcount_core.stores.base import StorageOptions, Store
from cellcount_core.stores.open import open_store, path_below

_RAYS_COPY = "/runtime_resources/working_dir_files/"
_OWN_FOLDERS = {"run", "fields", "objects", "labels", "pictures"}


def storage_options(config: StorageConfig) -> StorageOptions:
    """The options of a store, from the configuration."""
    return StorageOptions(
        endpoint=config.endpoint,
        region=config.region,
        anonymous=config.anonymous,
        retries=config.retries,
        timeout_s=config.timeout_s,
        schemes=config.schemes,
    )


def open_job_input(job: JobConfig) -> Store:
    """Open the store of the job's input.

    Raises NoInputFault if the folder does not exist, and ConfigFault if it is a file or lies in Ray's copy
    of a working directory.
    """
    _refuse_rays_copy("input", job.input)
    source = open_store(job.input, storage_options(job.storage))
    if _is_local(source):
        _refuse_no_folder(Path(source.url))
    return source


def open_job_output(job: JobConfig, source: Store) -> Store:
    """Open the store of the job's output.

    An output inside the input is allowed, and is left out when the input is listed. Raises ConfigFault if
    the output is the input, if the input is one of the output's own folders, or if a new output lies
    inside the input only through links or "..", so that its name does not show it. Raises OutputFault if
    the output is a file.
    """
    _refuse_rays_copy("output", job.output)
    output = open_store(job.output, storage_options(job.output_storage or job.storage))
    if path_below(source.url, output.url) == "":
        raise ConfigFault(
            f"output must not be the input folder: {job.output} is {job.input}; for example {job.input.rstrip('/')}/counts"
        )
    if _is_local(output) and not Path(output.url, RUN_KEY).exists():
        _refuse_inside_unseen(job, source.url, output.url)
    own, _, _ = (path_below(output.url, source.url) or "").partition("/")
    if own in _OWN_FOLDERS:
        raise ConfigFault(
            f"the input {job.input} lies in {job.output.rstrip('/')}/{own}, where the output keeps files of its own; choose another output"
        )
    if _is_local(output) and Path(output.url).is_file():
        raise OutputFault(
            f"{output.url}: is a file; expected a folder for the tables, which need not exist yet"
        )
    return output


def _refuse_inside_unseen(job: JobConfig, source: str, output: str) -> None:
    below = path_below(source, output)
    if not below:
        return
    named = output.removeprefix(source.rstrip("/") + "/")
    if named == output or ".." in named.split("/"):
        raise ConfigFault(
            f"output {job.output} lies inside the input {job.input}: it is {os.path.realpath(output)}; choose a folder outside, or "
            f"name it as one inside: {job.input.rstrip('/')}/{below}"
        )


def _refuse_rays_copy(name: str, path: str) -> None:
    """A submitted job runs in Ray's copy of the working directory. What it writes there is lost, and other nodes cannot see it."""
    if "://" not in path and _RAYS_COPY in Path(path).absolute().as_posix():
        raise ConfigFault(
            f"{name}: {path!r} lies in Ray's own copy of the folder that this job was sent from ({Path(path).absolute()}), which goes "
            "away. Give a URL such as s3://bucket/prefix, or an absolute path that every node sees"
        )


def is_relative(path: str) -> bool:
    """Whether a place is a path that depends on the current folder."""
    return "://" not in path and not path.startswith(("/", "~"))


def _is_local(store: Store) -> bool:
    return "://" not in store.url


def _refuse_no_folder(folder: Path) -> None:
    if folder.is_file():
        raise ConfigFault(
            f"{folder}: is a file; expected the folder that holds the images "
            f"(one file alone: {folder.parent} with --set 'run.include=[{folder.name}]')"
        )
    if folder.exists() or folder.is_symlink():
        return
    above = next(parent for parent in folder.parents if parent.is_dir())
    raise NoInputFault(f"{folder}: there is no such folder{_sibling(above, folder)}")


def _sibling(above: Path, folder: Path) -> str:
    """A hint at the folder that may have been meant, if the first name that does not exist is similar to an existing one."""
    missing = folder.relative_to(above).parts[0]
    try:
        meant = likely(missing, [entry.name for entry in os.scandir(above) if entry.is_dir()])
    except OSError:
        return ""
    return meant or f"; {above} exists"


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run reads and writes."""

    input_url: str
    input_options: StorageOptions
    output_url: str
    output_options: StorageOptions


def make_context(run: RunFile, config: RunConfig, places: Places, readers: int) -> RunContext:
    """The context of `run` for its workers. `threads` is 1; pools replace it by their own number."""
    counted = selections(run.channels)
    by_name = {selection.name: selection for selection in counted}
    measured = tuple(by_name.get(name) or Selection(name, name) for name in run.schema.channels)
    return RunContext(
        input_url=places.input_url,
        input_options=places.input_options,
        output_url=places.output_url,
        output_options=places.output_options,
        run=config,
        fingerprint=run.fingerprint,
        package_digest=run.model.digest,
        engine=run.model.engine,
        counted=counted,
        measured=measured,
        schema=run.schema,
        plate_sizes=run.scales,
        plate_numbers=run.plate_numbers,
        shown_sizes=run.shown_sizes,
        threads=1,
        readers=readers,
    )


def selections(channels: Mapping[str, str]) -> tuple[Selection, ...]:
    """The counted channels, from the channel of each role in the order of the model's inputs. One without a name of its own goes by the
    role it plays."""
    return tuple(
        Selection(role if channel == UNNAMED else channel, channel) for role, channel in channels.items()
    )
