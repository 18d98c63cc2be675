"""`cellcount submit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cellcount_core.domain.errors import ExitCode

if TYPE_CHECKING:
    from cellcount_core.runners.submit import SubmitRequest


def submit_and_follow(
    config: Path, address: str, working_dir: Path, assignments: Sequence[str], submission_id: str | None
) -> int:
    """Submit, follow the logs, return the job's own exit code."""
    from cellcount_core.runners.submit import submit

    return submit(_request(config, address, working_dir, assignments, submission_id))


def submit_only(
    config: Path, address: str, working_dir: Path, assignments: Sequence[str], submission_id: str | None
) -> int:
    """Submit without following the logs."""
    from cellcount_core.runners.submit import submit_detached

    submit_detached(_request(config, address, working_dir, assignments, submission_id))
    return int(ExitCode.OK)


def _request(
    config: Path, address: str, working_dir: Path, assignments: Sequence[str], submission_id: str | None
) -> SubmitRequest:
    from cellcount_core.runners.submit import SubmitRequest

    return SubmitRequest(
        config=config,
        address=address,
        working_dir=working_dir,
        assignments=tuple(assignments),
        submission_id=submission_id or "",
    )
