"""Counts that a configuration file describes and nobody needs to watch: `cellcount nightly` for a scheduler,
and `cellcount submit`, which sends a count to a Ray cluster.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cellcount_core.cli.counting import many
from cellcount_core.cli.progress import Display, open_display
from cellcount_core.cli.settings import (
    Tree,
    build_job,
    parsed_assignment,
    read_tree,
    read_yaml,
    refuse_twins,
    set_at,
    settings_of,
)
from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.nightly.config import NightlyConfig
from cellcount_core.runners.places import is_relative
from cellcount_core.stores.open import path_below

if TYPE_CHECKING:
    from cellcount_core.config import JobConfig
    from cellcount_core.runners.submit import SubmitRequest


def nightly(config: Path, assignments: Sequence[str], display: Display) -> int:
    """Run one night, print its outcome and return its exit code."""
    from cellcount_core.nightly.night import run_night

    settings = nightly_config(config, assignments)
    with open_display(display) as events:
        events.stage(f"output {settings.output} (relative paths in {config} are taken from its own folder)")
        digest = run_night(settings, events)
    out = settings.output.rstrip("/")
    print(f"night {digest.night}: {digest.headline}")
    for line in (*digest.problems, *digest.empty, *digest.sentences, *digest.notices):
        print(f"  {line}")
    for reading in digest.flagged:
        print(
            f"  {reading.plate}: {reading.statistic} {reading.value:.4g} is outside {reading.low:.4g} to {reading.high:.4g}"
        )
    if digest.webhook:
        print(f"  webhook: {digest.webhook}")
    if digest.exit_code is ExitCode.DOUBTS:
        print(
            f"exit code {int(ExitCode.DOUBTS)}: {many(len(digest.doubted), 'plate')} in doubt (execution.strict)"
        )
    print(f"digest: {out}/nights/{digest.night}/digest.html; plates: {out}/nights/datasets.csv")
    return int(digest.exit_code)


def nightly_config(config: Path, assignments: Sequence[str]) -> NightlyConfig:
    """Return the settings of a nightly's YAML file with `--set` assignments on top.

    Relative roots, output and model package in the file are relative to the folder of the file, whatever
    folder the command is started in; those in `--set` are relative to the current folder. Raises
    ConfigFault, which lists every fault.
    """
    tree = read_tree(config, NightlyConfig)
    roots, model = tree.get("roots"), _section(_section(tree, "run"), "model")
    tree = {
        **tree,
        **({"output": _beside(config, tree["output"])} if "output" in tree else {}),
        **({"roots": [_beside(config, root) for root in roots]} if isinstance(roots, list) else {}),
    }
    package = model.get("package")
    if isinstance(package, str) and (config.parent / package).is_dir():
        model["package"] = _beside(config, package)
    return settings_of(tree, assignments, NightlyConfig, str(config))


def _section(tree: Tree, name: str) -> Tree:
    section = tree.get(name)
    return section if isinstance(section, dict) else {}


def _beside(config: Path, place: object) -> object:
    """`place` as seen from the folder that contains the file `config`."""
    return str(config.absolute().parent / place) if isinstance(place, str) and _is_relative(place) else place


def _is_relative(place: object) -> bool:
    return (
        isinstance(place, str)
        and "://" not in place
        and bool(place)
        and not Path(place).expanduser().is_absolute()
    )


@dataclass(frozen=True, slots=True)
class Sending:
    """What the command line of `submit` says."""

    config: Path
    address: str
    working_dir: Path
    assignments: Sequence[str]
    excludes: Sequence[str]
    submission_id: str | None


def submit_and_follow(sending: Sending) -> int:
    """Submit the job, follow its logs, and return its own exit code."""
    from cellcount_core.runners.submit import submit

    return submit(request_of(sending))


def submit_only(sending: Sending) -> int:
    """Submit the job without following its logs."""
    from cellcount_core.runners.submit import submit_detached

    submit_detached(request_of(sending))
    return int(ExitCode.OK)


def request_of(sending: Sending) -> SubmitRequest:
    """Return the request for a count. Raises ConfigFault if settings are not valid, or a place cannot be seen by the cluster."""
    from cellcount_core.runners.submit import EXCLUDES, SubmitRequest

    tree = read_yaml(sending.config)
    refuse_twins(sending.assignments)
    for assignment in sending.assignments:
        set_at(tree, *parsed_assignment(assignment))
    # Variables and ~ in paths are those of the machine that the job runs on.
    job = build_job(tree, str(sending.config))
    _refuse_unseen(job, sending)
    own = [
        path_below(str(sending.working_dir), one) for one in (job.input, job.output) if one.startswith("/")
    ]
    return SubmitRequest(
        config=sending.config,
        address=sending.address,
        working_dir=sending.working_dir,
        assignments=tuple(sending.assignments),
        submission_id=sending.submission_id or "",
        excludes=(*EXCLUDES, *(f"/{below}/" for below in own if below), *sending.excludes),
    )


def _refuse_unseen(job: JobConfig, sending: Sending) -> None:
    faults = [
        f"{name}: {path!r} is a relative path; on the cluster it would lie in Ray's own copy of {sending.working_dir.resolve()}, "
        "which nobody looks into and which goes away. Give a URL such as s3://bucket/prefix, or an absolute path that every "
        f"node sees (if all mount this disk: {os.path.normpath(sending.working_dir.resolve() / path)})"
        for name, path in (("input", job.input), ("output", job.output))
        if is_relative(path) and not path.startswith("$")
    ]
    for setting, package in (("package", job.run.model.package), ("objects", job.run.model.objects or "")):
        if "/" not in package or not is_relative(package) or _travels(sending.working_dir, package):
            continue
        faults.append(
            f"run.model.{setting}: {package!r} is not a folder below the working directory {sending.working_dir.resolve()}, so it "
            "would not reach the cluster; move it there, or give the absolute path of one that every node sees"
        )
    if faults:
        raise ConfigFault("\n".join(f"{sending.config}: {fault}" for fault in faults))


def _travels(working_dir: Path, package: str) -> bool:
    folder = working_dir / package
    return folder.is_dir() and path_below(str(working_dir), str(folder)) is not None
