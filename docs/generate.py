"""Writes the generated pages of docs/reference/ from the code: `python docs/generate.py`. A test checks that they are up to date.

config.md comes from config.py, the layouts, nightly/config.py and docs/meanings.yaml, tables.md from the schema of a run, exit-codes.md and reasons.md from
domain/errors.py, warnings.md from domain/doubts.py, cli.md from the command line itself, python.md from the docstrings of the public functions.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel

import cellcount_core
from cellcount_core import config as settings
from cellcount_core.cli.main import app
from cellcount_core.domain import columns as tables
from cellcount_core.domain import doubts, total_columns
from cellcount_core.domain import errors as faults
from cellcount_core.layouts.auto import AutoSettings
from cellcount_core.layouts.base import LayoutSettings
from cellcount_core.layouts.registry import kinds
from cellcount_core.models.package import find_package, shipped_packages
from cellcount_core.nightly import config as nights
from cellcount_core.pipeline.rows import run_schema
from cellcount_core.tasks.task import TASKS, task_of

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py from the code; edit there. -->\n\n"

_EXITS = {
    faults.ExitCode.OK: "All that was asked for was done. Failed and missing fields are at most `execution.max_failed`, none if that is null.",
    faults.ExitCode.INTERNAL: "A fault of cellcount itself, with a traceback; please report it.",
    faults.ExitCode.CONFIG: "Configuration, command line, input or plan that cannot be run; nothing was counted.",
    faults.ExitCode.FAILURES: "More fields failed or are missing than `execution.max_failed`, any if that is null. With null the run is complete and its tables are written; with a limit it stopped early unless all was done. Of `cellcount check`: the input has faults.",
    faults.ExitCode.STORAGE: "A store or cluster cannot be reached, throttles for good, or is full.",
    faults.ExitCode.CREDENTIALS: "No credentials were found, or those found are refused.",
    faults.ExitCode.OUTPUT: "The output folder belongs to another run or cannot be written.",
    faults.ExitCode.MODEL: "The model package cannot be loaded, or does not give its golden tensors.",
    faults.ExitCode.LEDGER: "The output contradicts its own plan or digests, or is not complete.",
    faults.ExitCode.BUSY: "Another run is at work on this output, or took it over; nothing that was committed is lost.",
    faults.ExitCode.DOUBTS: "All was counted, and a plate is in doubt as a whole (`doubt` in plates.parquet; the last lines of the command say why and what to do). Only with `--strict` (`execution.strict`, of a nightly run too); the tables are written.",
    faults.ExitCode.NOTHING: "A nightly run found nothing to count in a root: the wrong folder or depth, or nothing that `run` would look at. What other roots held was counted.",
    faults.ExitCode.INTERRUPTED: "Stopped on request; the same command goes on where this one stopped.",
}
_OF_A_JOB = ("run", "execution", "storage", "output_storage")
_INNER: dict[str, type[BaseModel]] = {
    "run.model": settings.ModelConfig,
    "run.viability": settings.ViabilityConfig,
    "run.classes": settings.RunClassesConfig,
}
"""Sections within a section: their settings stand in the table of the outer one."""

_NIGHTLY: dict[str, type[BaseModel]] = {
    "complete": nights.Complete,
    "budget": nights.NightBudget,
    "history": nights.History,
    "webhook": nights.Webhook,
}


def config_page() -> str:
    """Every setting with type, default and meaning. Raises ValueError where docs/meanings.yaml misses one or has one too many."""
    meanings = dict(yaml.safe_load((HERE / "meanings.yaml").read_text(encoding="utf-8")))
    text = [
        "# Configuration\n",
        "A job is a YAML file (`cellcount count CONFIG.yaml`) or a command line. Unknown keys are refused. Any setting can be given",
        "as `--set section.key=value`. Only `run` decides numbers: with the model and the listing of the input it makes the run's",
        "fingerprint. Commented examples are in [conf/](../../conf/).\n",
        "## The job\n",
        *_settings(settings.JobConfig, "", meanings, skip=_OF_A_JOB),
        "| `output_storage` | storage section or null | `null` | " + meanings.pop("output_storage") + " |\n",
    ]
    for name, section in (
        ("run", settings.RunConfig),
        ("execution", settings.ExecutionConfig),
        ("storage", settings.StorageConfig),
    ):
        text += [f"## {name}\n", f"{_sentence(section)}\n", *_settings(section, f"{name}.", meanings), ""]
    text += ["## Layouts\n", "### auto\n", f"{_sentence(AutoSettings)}\n"]
    for kind in kinds():
        text += [f"### {kind.name}\n", f"{_sentence(kind.settings)}\n"]
        if len(kind.settings.model_fields) > 1:
            text += [*_settings(kind.settings, f"run.layout:{kind.name}.", meanings, skip=("kind",)), ""]
    text += [
        "## A nightly\n",
        "What `cellcount nightly CONFIG.yaml` is told, beside `run`, `execution`, `storage` and `output_storage` as above, which hold for",
        "every plate. An example is [conf/nightly.yaml](../../conf/nightly.yaml).\n",
        *_settings(nights.NightlyConfig, "nightly:", meanings, skip=(*_OF_A_JOB, *_NIGHTLY)),
        "",
    ]
    for name, section in _NIGHTLY.items():
        text += [
            f"### {name}\n",
            f"{_sentence(section)}\n",
            *_settings(section, f"nightly:{name}.", meanings),
            "",
        ]
    if meanings:
        raise ValueError(f"docs/meanings.yaml: no such settings: {', '.join(sorted(meanings))}")
    return NOTE + "\n".join(text).rstrip() + "\n"


def _settings(
    section: type[BaseModel], prefix: str, meanings: dict[str, str], skip: Sequence[str] = ()
) -> Iterator[str]:
    yield "| setting | type | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        if name in skip:
            continue
        if key in _INNER:
            yield from list(_settings(_INNER[key], f"{key}.", meanings))[2:]
            continue
        if key not in meanings:
            raise ValueError(f"docs/meanings.yaml: {key} has no meaning")
        default = (
            "needed"
            if field.is_required()
            else f"`{_shown(field.default)}`"
            if field.default != ""
            else "empty"
        )
        shown_key = f"run.layout.{name}" if prefix.startswith("run.layout:") else key.removeprefix("nightly:")
        yield f"| `{shown_key}` | {_type(field.annotation, field.metadata)} | {default} | {meanings.pop(key)} |"
        if key == "run.expect":
            yield from list(_settings(settings.ExpectGrid, "run.expect.", meanings))[2:]


def _type(annotation: object, metadata: Sequence[object] = ()) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0], inner[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(one) for one in inner))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return "mapping"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "layout" if issubclass(annotation, LayoutSettings) else "grid"
    assert isinstance(annotation, type)
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names[annotation] + _limits(metadata)


def _limits(metadata: Sequence[object]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    known: list[object] = []
    for item in metadata:
        known += getattr(item, "metadata", None) or [item]
    found = [
        f"{sign} {getattr(item, name):g}"
        for item in known
        for name, sign in signs.items()
        if getattr(item, name, None) is not None
    ]
    return f" {', '.join(found)}" if found else ""


def _shown(value: object) -> str:
    if isinstance(value, BaseModel):
        return "{" + ", ".join(f"{name}: {_shown(inner)}" for name, inner in value.model_dump().items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _sentence(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split())


def tables_page() -> str:
    """Every column of every table, of each task: objects are named Nuclei, and one channel w1 is measured."""
    schema = _example("instances")
    text = [
        "# Tables\n",
        f"Schema version {tables.SCHEMA_VERSION}; it stands in the metadata of every file, units, meanings and rules of merging in that of every column.",
        "A run's `run/run.json` holds its schema: every column that its tables have, and how fields are merged into wells and plates.",
        "Measured columns carry the object name of the model's package (here `Nuclei`) and the name of the channel (here `w1`).",
        "Rows are in key order: plate, well, site, time point, then object number. Equal runs give equal rows, and equal bytes of wells, plates and summary.\n",
    ]
    pages = (
        ("fields/*.parquet", "One row an expected field.", tables.fields_columns(schema)),
        ("objects/*.parquet", "One row an object of an `ok` field.", tables.objects_columns(schema)),
        ("wells.parquet", "One row a well and time point.", total_columns.wells_columns(schema)),
        ("plates.parquet", "One row a plate.", total_columns.plates_columns(schema)),
    )
    for name, meaning, columns in pages:
        text += [f"## {name}\n", f"{meaning}\n", *_columns(columns), ""]
    for name in TASKS:
        if name != "instances":
            text += _of_task(_example(name), schema)
    text += ["## Rules of merging\n", "| rule | what wells, plates and summary say |", "|---|---|"]
    text += [f"| {rule.value} | {_RULES[rule]} |" for rule in tables.Merge if rule is not tables.Merge.NONE]
    return NOTE + "\n".join(text).rstrip() + "\n"


def _example(task: str) -> tables.Schema:
    """The schema of a run of a task: of the shipped package of it with the most channels, else for the section that the task gives as an example."""
    if (
        shipped := max(
            (one for one in shipped_packages() if one.task == task and task != "instances"),
            key=lambda one: len(one.input.channels),
            default=None,
        )
    ) is not None:
        return run_schema(shipped, shipped.input.channels, ("w1",))
    bare = replace(find_package("nuclei"), task=task)
    return run_schema(replace(bare, section=task_of(bare).example), ("w1",), ("w1",))


def _columns(columns: Sequence[tables.Column]) -> list[str]:
    return [
        "| column | type | unit | null | merged as | meaning |",
        "|---|---|---|---|---|---|",
        *(
            f"| `{column.name}` | `{column.kind.value}` | {column.unit} | {column.null.value} | {_rule(column)} | {column.meaning} |"
            for column in columns
        ),
    ]


def _of_task(schema: tables.Schema, common: tables.Schema) -> list[str]:
    """The columns that a task has and counting objects has not."""
    classes = ", ".join(f"`{name}`" for name in schema.classes)
    own = [column for column in schema.fields if column not in common.fields]
    merged = [
        column
        for column in total_columns.wells_columns(schema)
        if column not in total_columns.wells_columns(common)
    ]
    cells = [
        column
        for column in schema.objects
        if column.name not in {each.name.replace("Nuclei", schema.object_name) for each in common.objects}
    ]
    without = "" if schema.objects else ", and no columns of objects, their size and the scale"
    told = f" (here of the classes {classes})" if classes else ""
    return [
        f"## Task {schema.task}\n",
        f"Beside the columns that all fields have, a run of the task `{schema.task}`{told} has these{without}.\n",
        "fields:\n", *_columns(own), "", *(["objects:\n", *_columns(cells), ""] if cells else []), "wells and plates:\n", *_columns(merged), "",
    ]  # fmt: skip


_RULES = {
    tables.Merge.COUNT: "the sum over counted fields, mean and standard deviation of a field, and the number a mm²",
    tables.Merge.SHARED: "the value, if all fields of the well (or plate, or run) have the same one, counted or not; else null. Columns of a plate map (`Metadata_…`)",
    tables.Merge.SUM: "the sum over counted fields",
    tables.Merge.SHARE: "the sum over counted fields, and its ratio to another column with the Wilson interval of 95 %",
    tables.Merge.PERCENT: "the first of two columns in percent of both, each summed over counted fields, with the Wilson interval of 95 %, the number it rests on, and warnings in words",
    tables.Merge.RATIO: "one column over another, each summed over counted fields; null where one of them is not known",
    tables.Merge.BINS: "the sum over counted fields, bin by bin",
    tables.Merge.MOMENTS: "mean and standard deviation over all objects (a column of objects) or over fields (a column of fields)",
    tables.Merge.VECTOR: "the mean over counted fields of each element, in a column for each class",
    tables.Merge.TALLY: "how many counted fields have which value, as JSON",
    tables.Merge.NAMES: "for each class how many counted fields have it, and their share with the Wilson interval of 95 %",
    tables.Merge.AREA: "the imaged area of the counted fields",
}


def _rule(column: tables.Column) -> str:
    return "" if column.merge is tables.Merge.NONE else column.merge.value


def exit_codes_page() -> str:
    """Every exit code."""
    lines = [f"| {code.value} | {code.name.lower()} | {_EXITS[code]} |" for code in faults.ExitCode]
    return NOTE + "\n".join(["# Exit codes\n", "| code | name | meaning |", "|---|---|---|", *lines]) + "\n"


def reasons_page() -> str:
    """Every reason code."""
    lines = [f"| `{code.value}` | {code.status.value} | {code.sentence} |" for code in faults.Reason]
    opening = (
        "A field that is not `ok` has one of these in its `reason` column; `reason_detail` says what was found and what was expected,\n"
        "`source` names the file. Such a field has no count: null, never 0.\n"
    )
    return (
        NOTE
        + "\n".join(["# Reasons\n", opening, "| reason | status | meaning |", "|---|---|---|", *lines])
        + "\n"
    )


def warnings_page() -> str:
    """Every warning code."""
    lines = [f"| `{code.value}` | {code.meaning} |" for code in doubts.Doubt]
    opening = (
        "A counted field lists codes in its `warnings` column, some with what they are about behind a colon (`channel_missing:w2`).\n"
        "`fields_warned` and `warnings` of wells, plates and `summary.json` count the fields of each code; `doubt` of plates.parquet is the\n"
        "code that makes a plate doubtful as a whole. The last lines of `cellcount count` and `cellcount verify` say them in words.\n"
    )
    return NOTE + "\n".join(["# Warnings\n", opening, "| code | meaning |", "|---|---|", *lines]) + "\n"


def cli_page() -> str:
    """Every command with its arguments and options, as the command line declares them."""
    text = [
        "# Command line\n",
        "`cellcount COMMAND --help` prints the same. [Exit codes](exit-codes.md). Options win over a configuration file, `--set` wins over both.\n",
    ]
    group = typer.main.get_command(app)
    for name, command in _commands(group):
        help_text = re.sub(r"\n(Examples?:)\n*", r"\n\1", str(command.help or "")).strip()
        prose, _, examples = help_text.partition("Example")
        text += [f"## cellcount {name}\n", " ".join(prose.split()) + "\n"]
        shown = [
            line.strip()
            for line in examples.replace("s:", ":", 1).partition(":")[2].splitlines()
            if line.strip()
        ]
        text += ["```", *shown, "```\n"] if shown else []
        parameters = [parameter for parameter in command.params if parameter.name != "help"]
        text += ["| argument or option | meaning |", "|---|---|"] if parameters else []
        for parameter in parameters:
            label = (
                parameter.opts[0]
                if parameter.opts[0].startswith("-")
                else (parameter.metavar or parameter.name.upper())
            )
            text.append(f"| `{label}` | {getattr(parameter, 'help', '') or ''} |")
        text.append("")
    return NOTE + "\n".join(text).rstrip() + "\n"


def _commands(
    group: typer.core.TyperGroup, before: str = ""
) -> Iterator[tuple[str, typer.core.TyperCommand]]:
    """Yield every command with its name, those of groups within ("layout test") too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def python_page() -> str:
    """What `import cellcount_core` offers: each function and class with its signature and docstring, as it stands in the code."""
    text = [
        "# Python\n",
        "`import cellcount_core as cc`. [How to use it](../how-to/use-from-python.md), and a [notebook](../tutorial/counting-in-python.ipynb).",
        "The examples run as they stand (with `from cellcount_core import *`): they are tests.\n",
    ]
    for name in _PUBLIC:
        offered = getattr(cellcount_core, name)
        text += [f"## {name}\n", *_documented(f"cc.{name}", offered)]
        if isinstance(offered, type):
            members = [each for each in vars(offered).items() if not each[0].startswith("_")]
            for member, held in members:
                if isinstance(held, property) and held.fget is not None:
                    text += [f"- `.{member}`: {_flat(held.fget)}"]
                elif inspect.isfunction(held):
                    text += [f"- `.{member}{_signature(held)}`: {_flat(held)}"]
            text.append("")
    return NOTE + "\n".join(text).rstrip() + "\n"


_PUBLIC = (
    "count", "plan", "run", "open", "evaluate", "Result", "Output", "DoubtfulCount", "made_up_image", "made_up_plate",
    "made_up_labelled",
)  # fmt: skip
"""In the order in which a reader needs them."""


def _documented(name: str, offered: object) -> Iterator[str]:
    if inspect.isfunction(offered):
        yield f"```python\n{name}{_signature(offered)}\n```\n"
    prose, _, examples = (inspect.getdoc(offered) or "").partition("\n>>>")
    yield prose.strip() + "\n"
    if examples:
        yield f"```pycon\n>>>{examples.rstrip()}\n```\n"


def _signature(function: Callable[..., object]) -> str:
    """As it is called: names, types and defaults, an argument a line where there are many."""
    found = inspect.signature(function)
    words = []
    keyword = False
    for each in found.parameters.values():
        if each.name == "self":
            continue
        if each.kind is each.KEYWORD_ONLY and not keyword:
            keyword = True
            words.append("*")
        default = "" if each.default is each.empty else f" = {each.default!r}"
        words.append(f"{each.name}: {each.annotation}{default}")
    whole = f"({', '.join(words)}) -> {found.return_annotation}"
    return (
        whole
        if len(whole) < 90
        else "(\n" + "".join(f"    {word},\n" for word in words) + f") -> {found.return_annotation}"
    )


def _flat(function: Callable[..., object]) -> str:
    return " ".join((inspect.getdoc(function) or "").split())


PAGES: Mapping[str, Callable[[], str]] = {
    "reference/config.md": config_page,
    "reference/tables.md": tables_page,
    "reference/exit-codes.md": exit_codes_page,
    "reference/reasons.md": reasons_page,
    "reference/warnings.md": warnings_page,
    "reference/cli.md": cli_page,
    "reference/python.md": python_page,
}
"""Path below docs/ of every generated page, and what writes it."""


def main() -> None:
    """Write all generated pages."""
    for path, page in PAGES.items():
        (HERE / path).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
