"""`cellcount retry`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellcount_core.cli.counting import many, print_result
from cellcount_core.cli.progress import Display, open_display
from cellcount_core.cli.settings import assign, build_job
from cellcount_core.config import JobConfig
from cellcount_core.domain.errors import ConfigFault, Reason, Status, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

_COUNTABLE = [reason.value for reason in Reason if reason.status in (Status.FAILED, Status.MISSING)]


def retry(
    out: str,
    *,
    source: str | None,
    reasons: Sequence[str],
    assignments: Sequence[str],
    runner: str | None,
    address: str | None,
    actors: int | None,
    endpoint: str | None,
    display: Display,
) -> int:
    """Do the failed fields of a run once more, print what came of it and return the exit code."""
    from cellcount_core.runners.retry import retry_job

    _refuse_unknown(reasons)
    given = {"runner": runner, "address": address, "actors": actors}
    execution = {name: value for name, value in given.items() if value is not None}
    job = _job(out, source, execution, assignments, endpoint)
    with open_display(display) as events:
        result = retry_job(job, events, set(reasons) or None)
    if result.retried:
        print(
            f"{result.mended} of {many(result.retried.total(), 'field')} tried again {'is' if result.mended == 1 else 'are'} "
            f"counted now (they were {_listed(result.retried)})"
        )
    else:
        print("no field to try again" + (f" of reason {', '.join(reasons)}" if reasons else ""))
    if result.hopeless:
        print(
            f"{many(result.hopeless.total(), 'field')} left ({_listed(result.hopeless)}): the same files once more would come to the same"
        )
    print_result(job, result.job)
    return int(result.job.exit_code)


def _job(
    out: str,
    source: str | None,
    execution: Mapping[str, object],
    assignments: Sequence[str],
    endpoint: str | None,
) -> JobConfig:
    from cellcount_core.output.runfile import read_run
    from cellcount_core.stores.open import open_store

    tree: dict[str, object] = {"output": out, "execution": dict(execution), "storage": {"endpoint": endpoint}}
    for assignment in assignments:
        if not assignment.startswith(("execution.", "storage.", "output_storage.")):
            raise ConfigFault(
                f"--set {assignment!r}: a retry counts as the run did; only execution, storage and output_storage can be set"
            )
        assign(tree, assignment, JobConfig)
    # Storage settings decide how the run is found at all, so they are checked first.
    storage = build_job({**tree, "input": source or "."}, "cellcount retry")
    from cellcount_core.runners.places import storage_options

    options = storage_options(storage.output_storage or storage.storage)
    run = read_run(open_store(out, options))
    return build_job({**tree, "input": source or run.input, "run": dict(run.run)}, "cellcount retry")


def _refuse_unknown(reasons: Sequence[str]) -> None:
    for reason in reasons:
        if reason not in _COUNTABLE:
            raise ConfigFault(
                f"--reason {reason}: is no reason of a field that failed{nearest(reason, _COUNTABLE)}"
            )


def _listed(reasons: Mapping[str, int]) -> str:
    return ", ".join(
        f"{fields} {reason}"
        for reason, fields in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    )
