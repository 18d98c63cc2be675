"""`cellcount count`, `plan` and `retry`, and the lines that they and other commands print about a run."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cellcount_core.cli.progress import Display, open_display
from cellcount_core.cli.settings import assign_all, build_job
from cellcount_core.config import JobConfig, ViabilityConfig
from cellcount_core.domain.doubts import by_weight
from cellcount_core.domain.errors import ConfigFault, ExitCode, OutputFault, Reason, Remedy, Status, nearest
from cellcount_core.plan.findings import warned_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cellcount_core.domain.scales import PlateSize
    from cellcount_core.plan.findings import PlanSummary, PlateSummary
    from cellcount_core.reduce.summary import Summary
    from cellcount_core.runners.job import JobResult


_SHOWN_PLATES = 20
_SHOWN_SIZES = 3


def count(job: JobConfig, display: Display) -> int:
    """Run a job, print its outcome and return the exit code."""
    from cellcount_core.output.run_folder import InputChanged
    from cellcount_core.runners.job import run_job

    try:
        with open_display(display) as events:
            result = run_job(job, events)
    except InputChanged as fault:
        if fault.changes.elsewhere:
            raise OutputFault(f"{fault}\n{fault.changes.elsewhere}") from None
        raise OutputFault(
            f"{fault}\nTo count what is new or changed and keep the rest:\n  {follow_up('count', job)}\n"
            "or choose another output folder."
        ) from None
    print_result(job, result)
    return int(result.exit_code)


def update(job: JobConfig, display: Display) -> int:
    """Bring a run up to date with its input, print what was done and return the exit code."""
    from cellcount_core.runners.update import update_job

    with open_display(display) as events:
        result = update_job(job, events)
    since = result.changes
    if since is not None and since.none:
        print("nothing is new, changed or gone since this output was counted")
    elif since is not None:
        for line in since.lines():
            print(line)
        done = result.job.progress.statuses
        others = [
            f"{done[status.value]} {status.value}"
            for status in Status
            if status is not Status.OK and done[status.value]
        ]
        told = f" ({', '.join(others)})" if others else ""
        print(f"{many(done.total(), 'field')} updated{told}, {many(result.taken, 'row')} kept")
        if result.sizes and done.total():
            print(_kept_sizes(result.sizes))
        if since.gone.number:
            print(
                "fields whose files were removed stay as missing (absent): if they come back, --update counts them; if they are gone for "
                "good, counting into another output leaves them out"
            )
    print_result(job, result.job)
    return int(result.job.exit_code)


def _kept_sizes(sizes: Sequence[PlateSize]) -> str:
    """One sentence: at which object sizes new images were counted, and how to have the sizes estimated again."""
    shown = ", ".join(f"{size.diameter_px:.1f} px in plate {size.plate!r}" for size in sizes[:_SHOWN_SIZES])
    more = f", … and {len(sizes) - _SHOWN_SIZES} more" if sizes[_SHOWN_SIZES:] else ""
    return (
        f"new images were counted at the object sizes found before for their plate and image size ({shown}{more}); a count into another "
        "output estimates them again, from all images"
    )


def print_result(job: JobConfig, result: JobResult) -> None:
    """Print the counts, what failed and why, where the tables are, and what to do next."""
    summary = result.summary
    print(f"{total_line(summary)} ({result.seconds:.1f} s)")
    if gated := gated_line(job.run.viability, summary):
        print(gated)
    print_reasons(summary.reasons, summary.examples)
    print_doubts(summary)
    out = job.output.rstrip("/")
    objects = ", objects/" if summary.schema.objects else ""
    print(f"tables in {out}/: wells.parquet, plates.parquet, summary.csv, fields/{objects}")
    if result.exit_code is ExitCode.FAILURES:
        bad = summary.statuses.get("failed", 0) + summary.statuses.get("missing", 0)
        given = job.execution.max_failed
        limit = "" if given is None else f", --max-failed is {given}"
        print(f"exit code {int(ExitCode.FAILURES)}: {many(bad, 'field')} failed or missing{limit}")
        print_remedies(job, summary.reasons)
    if result.exit_code is ExitCode.DOUBTS:
        print(f"exit code {int(ExitCode.DOUBTS)}: {many(len(summary.doubts), 'plate')} in doubt (--strict)")
    steps = [follow_up("verify", job)]
    if summary.statuses.get(Status.OK.value, 0):
        steps.append(follow_up("pictures", job))
    print(f"next: {'; '.join(steps)}")


def follow_up(command: str, job: JobConfig) -> str:
    """A command line about the output of a job, with the options that are needed to reach it. "count" is the
    command that brings the output up to date.
    """
    storage, own = job.storage, job.output_storage
    reads = command in ("retry", "count")
    endpoint = storage.endpoint if own is None or reads else own.endpoint
    words = [
        "cellcount",
        command,
        *([job.input] if command == "count" else []),
        job.output.rstrip("/") or "/",
    ]
    words += ["--update"] if command == "count" else []
    words += ["--endpoint", endpoint] if endpoint else []
    if reads:
        sections = {"storage": storage} | ({} if own is None else {"output_storage": own})
        for section, settings in sections.items():
            given = settings.model_dump(mode="json", exclude_defaults=True)
            for name in ("endpoint", "region", "anonymous", "schemes"):
                if name in given and (section, name) != ("storage", "endpoint"):
                    words += ["--set", f"{section}.{name}={json.dumps(given[name])}"]
    return shlex.join(words)


def total_line(summary: Summary) -> str:
    """In words, what was found in how many fields."""
    from cellcount_core.reduce.summary import headline

    done = f"{summary.statuses.get('ok', 0)} of {many(summary.fields, 'field')}"
    if not summary.statuses.get(Status.OK.value, 0):
        return f"no field could be counted: {done}"
    found = headline(summary)
    return f"{found} in {done}" if found else done


def gated_line(gates: ViabilityConfig, summary: Summary) -> str:
    """In words, how many objects the gates of a viability run left out; "" if none."""
    number = summary.totals.get("gated_out")
    if not isinstance(number, int) or not number:
        return ""
    given = {
        "--min-diameter": gates.min_diameter,
        "--max-diameter": gates.max_diameter,
        "--min-circularity": gates.min_circularity,
    }
    named = ", ".join(f"{option} {value}" for option, value in given.items() if value is not None)
    return f"{many(number, 'object')} left out by the gates ({named})"


def print_reasons(reasons: Mapping[str, int], examples: Mapping[str, str]) -> None:
    """Print for each reason the number of fields, the code and its sentence, and below it what one field said."""
    for code, fields in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
        print(f"  {fields:>6} {Reason(code).status.value}: {code}. {Reason(code).sentence}")
        if code in examples:
            print(f"         {'for example ' if fields > 1 else ''}{examples[code]}")


def print_remedies(job: JobConfig, reasons: Mapping[str, int]) -> None:
    """Print what can be done about fields that were not counted, and which reasons each remedy may help with."""
    offers = {
        Remedy.RETRY: f"once the cause is removed: {follow_up('retry', job)}",
        Remedy.UPDATE: f"once their files are there, whole and of a kind that is read (see above): {follow_up('count', job)}",
        Remedy.REMOVE: f"once one of the two files is moved away or renamed: {follow_up('count', job)}",
        Remedy.SETTINGS: "with other settings (see above), into another output folder: an output keeps one set of settings",
    }
    for remedy, offer in offers.items():
        concerned = [(code, fields) for code, fields in reasons.items() if remedy in Reason(code).remedies]
        if concerned:
            print(f"{offer} ({', '.join(f'{fields} {code}' for code, fields in by_weight(dict(concerned)))})")


def print_doubts(summary: Summary) -> None:
    """Print what the fields warn of and which plates are in doubt, with what can be done about it."""
    from cellcount_core.reduce.summary import told_doubts

    for line in told_doubts(summary):
        print(f"  {line}")


def show_plan(job: JobConfig) -> int:
    """Print what a job would do and return the exit code."""
    from cellcount_core.runners.job import plan_job

    summary = plan_job(job, lambda text: print(text, file=sys.stderr))
    for line in plan_lines(summary):
        print(line)
    return int(ExitCode.OK)


def plan_lines(summary: PlanSummary) -> list[str]:
    """The plan as lines of text."""
    lines = [
        f"{many(summary.fields, 'field')} in {many(summary.shards, 'shard')}, {many(summary.sources, 'file')}, "
        f"{size_text(summary.size)} to read",
        f"channels: {_channels(summary)}",
        f"layout: {summary.layout}",
    ]
    lines += [
        f"plate {plate.plate!r}: {many(plate.fields, 'field')} in {many(plate.wells, 'well')}, {_sites(plate)}{_stated(summary, plate)}"
        for plate in summary.plates[:_SHOWN_PLATES]
    ]
    if len(summary.plates) > _SHOWN_PLATES:
        lines.append(f"… and {len(summary.plates) - _SHOWN_PLATES} more plates")
    lines += _scales(summary)
    lines += _plate_numbers(summary)
    lines += [
        f"cannot be counted: {many(fields, 'field')}, {code}: {Reason(code).sentence}"
        for code, fields in summary.reasons.items()
    ]
    lines += [
        f"left out: {many(files, 'file')}, {why} (for example {summary.ignored_examples[why]})"
        for why, files in summary.ignored.items()
        if not warned_of(why)
    ]
    if summary.unparsed:
        examples = ", ".join(summary.unparsed_examples[:3])
        lines.append(f"names that do not parse: {summary.unparsed} (for example {examples})")
    return [*lines, *(f"warning: {warning}" for warning in summary.warnings)]


def _scales(summary: PlanSummary) -> list[str]:
    told = [scale for scale in summary.scales if scale.diameter_px is not None]
    lines = [
        f"object size, plate {scale.plate!r}, {scale.width_px} x {scale.height_px} px: {scale.diameter_px:.1f} px (median of "
        f"{many(scale.objects, 'object')} in {many(scale.images, 'image')}, {_spread(scale)})"
        for scale in told[:_SHOWN_PLATES]
    ]
    return lines + ([f"… and {len(told) - _SHOWN_PLATES} more object sizes"] if told[_SHOWN_PLATES:] else [])


def _plate_numbers(summary: PlanSummary) -> list[str]:
    """What the run's task found out about each plate; that of all plates together is left out."""
    told = [
        one
        for one in summary.plate_numbers
        if one.plate and any(not name.endswith("_bits") for name in one.numbers)
    ]
    lines = [
        f"plate {one.plate!r}, from {many(one.objects, 'object')} in {many(one.fields, 'field')}: "
        + ", ".join(f"{name} {value:g}" for name, value in one.numbers.items() if not name.endswith("_bits"))
        for one in told[:_SHOWN_PLATES]
    ]
    return lines + ([f"… and {len(told) - _SHOWN_PLATES} more plates"] if told[_SHOWN_PLATES:] else [])


def _spread(scale: PlateSize) -> str:
    """The range of the sizes of the objects, and of the images' median sizes."""
    images = f"images' medians {scale.low_px:.1f} to {scale.high_px:.1f} px"
    if scale.small_px is None or scale.large_px is None:
        return images
    objects = f"most of {scale.small_px:.1f} to {scale.large_px:.1f} px"
    return objects if scale.images == 1 else f"{objects}, {images}"


def _channels(summary: PlanSummary) -> str:
    def called(channel: str, without: str) -> str:
        name = summary.channel_names.get(channel)
        return (channel or without) + (f" ({name})" if name else "")

    seen = ", ".join(called(channel, "(none in the names)") for channel in summary.channels_seen)
    counted = ", ".join(called(channel, "the image's own") for channel in summary.counted)
    return f"{seen}; counted: {counted}"


def _stated(summary: PlanSummary, plate: PlateSummary) -> str:
    """What metadata files state about the plate's shape and pixel size."""
    facts = summary.facts.get(plate.plate)
    if facts is None:
        return ""
    shape = f", {facts.rows} x {facts.columns} wells" if facts.rows and facts.columns else ""
    size = f", {facts.um_per_px:.4g} um/px" if facts.um_per_px is not None else ""
    return f"{shape}{size} ({facts.source})"


def many(number: int, thing: str) -> str:
    """ "1 field", "2 fields"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _sites(plate: PlateSummary) -> str:
    if plate.sites_min == plate.sites_max:
        return f"{many(plate.sites_min, 'site')} a well"
    return f"{plate.sites_min} to {plate.sites_max} sites a well (median {plate.sites_median})"


def size_text(size: int) -> str:
    """A number of bytes with its unit: "1.2 GB"."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


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
    """Try the failed fields of a run again, print the outcome and return the exit code.

    Raises ConfigFault if a reason is not one that fields fail for, or an assignment sets something that
    must stay as it was.
    """
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
            f"{many(result.hopeless.total(), 'field')} left ({_listed(result.hopeless)}): trying the same files again would give the same result"
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
    assign_all(tree, assignments, JobConfig)
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
                f"--reason {reason}: is not a reason for which a field fails{nearest(reason, _COUNTABLE)}"
            )


def _listed(reasons: Mapping[str, int]) -> str:
    return ", ".join(
        f"{fields} {reason}"
        for reason, fields in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    )
