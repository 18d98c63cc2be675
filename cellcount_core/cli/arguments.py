"""Turn a command line into a job's configuration: a YAML file or INPUT OUTPUT, with options and `--set` on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from cellcount_core.cli.settings import Tree, assign_all, build_job, read_tree, set_at
from cellcount_core.config import JobConfig
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.images.imagefile import COLOURS
from cellcount_core.pipeline.context import package_of

_YAML = (".yaml", ".yml")


def job_from_arguments(
    *,
    source: str,
    output: str | None,
    layout: str | None = None,
    channels: Sequence[str] | None = None,
    measure: Sequence[str] | None = None,
    model: str | None = None,
    diameter: str | None = None,
    labels: bool = False,
    assignments: Sequence[str] | None = None,
    runner: str | None = None,
    address: str | None = None,
    actors: int | None = None,
    endpoint: str | None = None,
    anonymous: bool = False,
    max_failed: str | None = None,
    strict: bool = False,
    run: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
    origin: str = "command line",
) -> JobConfig:
    """Return the job that a command line describes. Options override the file, and `--set` overrides both.

    `run` is the run section to start from if there is no file: that of a run that is to be updated.
    `settings` are further values by name ("run.z"); like options they change nothing if they are None.
    `origin` is what error messages call arguments that come from no file. Raises ConfigFault if INPUT or
    OUTPUT is missing or a value is not valid.
    """
    tree, said_in = _base(source, output, origin)
    if run is not None:
        tree["run"] = deepcopy(dict(run))
    given: list[tuple[str, object]] = [
        ("run.layout.kind", layout),
        ("run.measure", list(measure) if measure else None),
        ("run.model.package", model),
        ("run.diameter", diameter),
        ("run.labels", "tiff" if labels else None),
        ("execution.runner", runner),
        ("execution.address", address),
        ("execution.actors", actors),
        ("execution.max_failed", max_failed),
        ("execution.strict", True if strict else None),
        ("storage.endpoint", endpoint),
        ("storage.anonymous", True if anonymous else None),
        *(settings or {}).items(),
    ]
    for path, value in given:
        if value is not None:
            set_at(tree, path.split("."), value)
    assign_all(tree, assignments or (), JobConfig)
    named: dict[str, str] = {}
    for text in channels or ():
        role, equals, name = text.partition("=")
        for each in (role,) if equals else _plain_roles(tree):
            channel = name if equals else text
            if named.setdefault(each, channel) != channel:
                raise ConfigFault(
                    f"--channel: the model's {each!r} is given twice, as {named[each]} and as {channel}; name one channel (--measure NAME "
                    "measures others too)"
                )
            set_at(tree, ["run", "channels", each], channel)
    return build_job(tree, said_in)


def task_settings(
    *,
    um_per_px: float | None,
    thresholds: Sequence[str] | None,
    controls: Sequence[str] | None,
    min_diameter: str | None,
    max_diameter: str | None,
    min_circularity: float | None,
    chamber: str | None,
    depth_um: float | None,
    dilution: float | None,
    per: str | None,
    objects: str | None,
    crop_px: int | None,
) -> dict[str, object]:
    """Return settings by name, as `job_from_arguments` takes them, from the options of viability and of classes.

    Raises ConfigFault if a threshold is not ROLE=VALUE, or a control not CLASS=WELL,WELL, or if one is given twice.
    """
    given: dict[str, object] = {
        "min_diameter": min_diameter,
        "max_diameter": max_diameter,
        "min_circularity": min_circularity,
        "chamber": chamber,
        "depth_um": depth_um,
        "dilution": dilution,
    }
    for role, value in _pairs(thresholds, "--threshold", "dead=350").items():
        given[f"thresholds.{role}"] = value
    for kind, wells in _pairs(controls, "--control", "live=A01,A02").items():
        given[f"controls.{kind}"] = [well.strip() for well in wells.split(",") if well.strip()]
    return {
        "run.um_per_px": um_per_px,
        **{f"run.viability.{name}": value for name, value in given.items()},
        "run.classes.per": per,
        "run.model.objects": objects,
        "run.classes.crop_px": crop_px,
    }


def _pairs(given: Sequence[str] | None, option: str, example: str) -> dict[str, str]:
    """The values of a repeatable option NAME=VALUE, by name. Raises ConfigFault if one has another form, or a name is given twice."""
    found: dict[str, str] = {}
    for text in given or ():
        name, value = _pair(text, option, example)
        if name in found:
            raise ConfigFault(
                f"{option} {name} is given twice, as {found[name]} and as {value}: give it once, for example {option} {example}"
            )
        found[name] = value
    return found


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name.strip() and value.strip()):
        raise ConfigFault(f"{option} {text!r}: expected NAME=VALUE, for example {example}")
    return name.strip(), value.strip()


@dataclass(frozen=True, slots=True)
class ToUpdate:
    """INPUT and OUTPUT of a run to update, and its run section (None if a file gives it or nothing was counted yet)."""

    source: str
    output: str | None
    run: Mapping[str, object] | None


def run_to_update(
    source: str,
    output: str | None,
    *,
    endpoint: str | None = None,
    anonymous: bool = False,
    assignments: Sequence[str] | None = None,
) -> ToUpdate:
    """Find what `--update` works on: the run that is in OUTPUT. INPUT may be left out; then it is the input
    of that run.

    Raises OutputFault if INPUT is left out and OUTPUT has no run.
    """
    if is_yaml(source):
        return ToUpdate(source, output, None)
    out = output or source
    tree: Tree = {"input": ".", "output": out, "storage": {"endpoint": endpoint, "anonymous": anonymous}}
    about_storage = [one for one in assignments or () if one.startswith(("storage.", "output_storage."))]
    assign_all(tree, about_storage, JobConfig)
    storage = build_job(tree, "cellcount count --update")
    from cellcount_core.output.runfile import RUN_KEY, read_run
    from cellcount_core.runners.places import storage_options
    from cellcount_core.stores.open import open_store

    store = open_store(out, storage_options(storage.output_storage or storage.storage))
    if output is not None and store.size_of(RUN_KEY) is None:
        return ToUpdate(source, output, None)
    kept = read_run(store)
    return ToUpdate(kept.input if output is None else source, out, kept.run)


def is_yaml(source: str) -> bool:
    """Whether INPUT is a configuration file."""
    return source.lower().endswith(_YAML) and not Path(source).is_dir()


def _plain_roles(tree: Tree) -> tuple[str, ...]:
    """The roles that `--channel NAME` without a role is for: the single one, or the colours of one file."""
    run = build_job({"input": "in", "output": "out", "run": _of_package(tree)}, "command line").run
    roles = package_of(run).input.channels
    if len(roles) != 1 and roles != COLOURS:
        raise ConfigFault(
            f"--channel: the model looks at several channels; name each as role=channel for {', '.join(roles)}"
        )
    return roles


def _of_package(tree: Tree) -> Tree:
    """The settings of a run that decide which channels are looked at."""
    run = tree.get("run")
    return (
        {name: run[name] for name in ("model", "classes", "channels") if name in run}
        if isinstance(run, dict)
        else {}
    )


def _base(source: str, output: str | None, origin: str) -> tuple[Tree, str]:
    if is_yaml(source):
        tree = read_tree(Path(source), JobConfig)
        if output is not None:
            tree["output"] = output
        return tree, source
    if output is None:
        raise ConfigFault(
            f"OUTPUT is missing: where should the tables of {source} go? For example: cellcount count {source} ./out"
        )
    return {"input": source, "output": output}, origin
