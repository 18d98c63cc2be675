"""`cellcount submit`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cellcount_core.cli.settings import build_job, parsed_assignment, place, read_yaml
from cellcount_core.domain.errors import ConfigFault, ExitCode
from cellcount_core.runners.places import is_relative
from cellcount_core.stores.open import path_below

if TYPE_CHECKING:
    from cellcount_core.config import JobConfig
    from cellcount_core.runners.submit import SubmitRequest


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
    """Submit, follow the logs, return the job's own exit code."""
    from cellcount_core.runners.submit import submit

    return submit(request_of(sending))


def submit_only(sending: Sending) -> int:
    """Submit without following the logs."""
    from cellcount_core.runners.submit import submit_detached

    submit_detached(request_of(sending))
    return int(ExitCode.OK)


def request_of(sending: Sending) -> SubmitRequest:
    """The request for a count. Raises ConfigFault for settings that are not valid and for places that the cluster cannot see."""
    from cellcount_core.runners.submit import EXCLUDES, SubmitRequest

    tree = read_yaml(sending.config)
    for assignment in sending.assignments:
        place(tree, *parsed_assignment(assignment))
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
    package = job.run.model.package
    if "/" in package and is_relative(package) and not _travels(sending.working_dir, package):
        faults.append(
            f"run.model.package: {package!r} is no folder below the working directory {sending.working_dir.resolve()}, so it "
            "would not reach the cluster; move it there, or give the absolute path of one that every node sees"
        )
    if faults:
        raise ConfigFault("\n".join(f"{sending.config}: {fault}" for fault in faults))


def _travels(working_dir: Path, package: str) -> bool:
    folder = working_dir / package
    return folder.is_dir() and path_below(str(working_dir), str(folder)) is not None
