"""Read settings from a YAML file and `--set` assignments, for every command that takes them, and report all
faults in one message.

YAML is read with fewer guesses than YAML 1.1 makes. Only true and false are truth values. `01`, `1e3` and
`2026-11-30` stay text (a setting that is a number still accepts them as numbers). A key that is given
twice is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cellcount_core.config import JobConfig
from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.domain.settings import PLACE, expanded
from cellcount_core.layouts import registry as layouts

Tree = dict[str, object]
Settings = TypeVar("Settings", bound=BaseModel)

_MERGE = "tag:yaml.org,2002:merge"
_STR = "tag:yaml.org,2002:str"
_NO_NAME = 'in "<unicode string>", '


class _Loader(yaml.SafeLoader):
    """Keys are always text. Keys that occur twice in one mapping are kept in `repeated`, in words."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (yaml's own name for it)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: dict[str, None] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """Called by yaml for every mapping of the file."""
        lines: dict[str, list[int]] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                key.tag = _STR
                lines.setdefault(key.value, []).append(key.start_mark.line + 1)
        for name, given in lines.items():
            if len(given) > 1:
                self.repeated[f"{name!r} in lines {', '.join(map(str, given[:-1]))} and {given[-1]}"] = None
        return super().construct_mapping(node, deep)


for _tag, _form, _first in (
    (_MERGE, r"<<", "<"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"-?(?:0|[1-9][0-9]*)", "-0123456789"),
    ("tag:yaml.org,2002:float", r"-?(?:0|[1-9][0-9]{0,5})\.(?:0|[0-9]{0,5}[1-9])", "-0123456789"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_form})$"), list(_first))


def _parsed(text: str, where: str) -> object:
    """The value of a YAML text. Raises ConfigFault, whose message begins with `where`, if it is not valid."""
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigFault(
            f"{where}: not valid YAML: line {line} holds the character U+{error.character:04X}, which no text may hold"
        ) from error
    try:
        data: object = loader.get_single_data()
    except yaml.YAMLError as error:
        tab = ". Lines are indented by spaces" if "'\\t'" in str(error) else ""
        raise ConfigFault(f"{where}: not valid YAML: {str(error).replace(_NO_NAME, '')}{tab}") from error
    finally:
        loader.dispose()
    if loader.repeated:
        raise ConfigFault(f"{where}: given twice: {'; '.join(loader.repeated)}. Keep one of each")
    return data


def read_yaml(path: Path) -> Tree:
    """Return the mapping in a YAML file.

    Raises ConfigFault, which names the file and line, if the file cannot be read, is not a mapping, or
    gives a key twice.
    """
    try:
        data = _parsed(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as error:
        raise ConfigFault(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigFault(f"{path}: not valid YAML: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigFault(
            f"{path}: expected a mapping with keys like input, output, run; got {type(data).__name__}"
        )
    return data


def read_settings(path: Path, assignments: Sequence[str], model: type[Settings]) -> Settings:
    """Return the settings in a YAML file with `--set` assignments on top. Raises ConfigFault, which lists every fault."""
    return settings_of(read_tree(path, model), assignments, model, str(path))


def settings_of(tree: Tree, assignments: Sequence[str], model: type[Settings], origin: str) -> Settings:
    """Return the settings of `tree` (as read by `read_tree`) with `--set` assignments on top. Raises
    ConfigFault, which lists every fault.
    """
    assign_all(tree, assignments, model)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigFault(explain(error, model, origin)) from None


def read_tree(path: Path, model: type[BaseModel]) -> Tree:
    """Return the mapping in a YAML file, and replace environment variables in those settings of `model` that
    are a `Place`.

    Raises ConfigFault as `read_yaml` does, and if a variable is not set (it names every such path).
    """
    return _expanded(read_yaml(path), model, str(path))


def assign_all(tree: Tree, assignments: Sequence[str], model: type[BaseModel]) -> None:
    """Apply the `--set` assignments of a command line to `tree`, one after the other. Raises ConfigFault as `assign` and `refuse_twins`."""
    refuse_twins(assignments)
    for assignment in assignments:
        assign(tree, assignment, model)


def refuse_twins(assignments: Sequence[str]) -> None:
    """Raise ConfigFault if two assignments give one key different values, or a later one replaces the section of an earlier one.

    The last would count, and nobody would be told that the first did not.
    """
    given: list[tuple[list[str], object]] = []
    for assignment in assignments:
        keys, value = parsed_assignment(assignment)
        for earlier, known in given:
            if earlier[: len(keys)] == keys and (earlier != keys or known != value):
                name, again = ".".join(earlier), ".".join(keys)
                told = (
                    f"as {known!r} and as {value!r}"
                    if earlier == keys
                    else f"the second time with all of {again}"
                )
                raise ConfigFault(f"--set {name} is given twice, {told}: give it once")
        given.append((keys, value))


def assign(tree: Tree, assignment: str, model: type[BaseModel]) -> None:
    """Apply one `--set run.key=value` to `tree`. The value is read as YAML, so numbers, lists and mappings
    work; variables in paths are replaced as in a file.

    Raises ConfigFault if the text is not an assignment, the path goes through a value that is not a
    mapping, or a variable is not set.
    """
    keys, written = parsed_assignment(assignment)
    alone: Tree = {}
    set_at(alone, keys, written)
    value: object = _expanded(alone, model, f"--set {assignment!r}")
    for key in keys:
        value = value[key] if isinstance(value, dict) else value
    try:
        set_at(tree, keys, value)
    except ConfigFault as fault:
        raise ConfigFault(f"{fault}{_elsewhere(keys[-1], model)}") from None


def parsed_assignment(assignment: str) -> tuple[list[str], object]:
    """Split the text of a `--set` into its keys and its value, in which nothing is replaced. Raises
    ConfigFault if it is not an assignment.
    """
    path, equals, text = assignment.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ConfigFault(f"--set {assignment!r}: expected section.key=value, for example run.z=max")
    return keys, _parsed(text, f"--set {assignment!r}")


def set_at(tree: Tree, keys: Sequence[str], value: object) -> None:
    """Set the value at the path `keys`, and create the mappings on the way. Raises ConfigFault if something on the way is not a mapping."""
    for position, key in enumerate(keys[:-1]):
        # A section that is there and empty has its defaults.
        inner = tree[key] = {} if tree.get(key) is None else tree[key]
        if not isinstance(inner, dict):
            raise ConfigFault(
                f"{'.'.join(keys[: position + 1])} is {inner!r}, so {'.'.join(keys)} cannot be set"
            )
        tree = inner
    tree[keys[-1]] = value


def build_job(tree: Mapping[str, object], origin: str) -> JobConfig:
    """Check a configuration and return it as a job. Raises ConfigFault, which lists every fault with the nearest known key or value."""
    try:
        return JobConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigFault(explain(error, JobConfig, origin)) from None


def explain(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    """Say what is wrong, one line for each setting: where, what was expected, what was found, and the nearest known key."""
    places: dict[str, list[ErrorDetails]] = {}
    for fault in error.errors(include_url=False):
        places.setdefault(".".join(_words(fault["loc"])), []).append(fault)
    lines = [f"  {_line(where, faults, model)}" for where, faults in places.items()]
    many = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
    return f"{origin}: {many}\n" + "\n".join(lines)


_TAGS = {
    *layouts.CHOICES,
    "float",
    "int",
    "str",
    "constrained-float",
    "constrained-int",
    "ExpectGrid",
}


def _words(location: tuple[int | str, ...]) -> list[str]:
    words: list[str] = []
    tags = set(_TAGS)
    for part in map(str, location):
        if part in tags:
            # The tag of a layout may also be the name of one of its settings, which stands behind it.
            tags.remove(part)
        elif not part.startswith(("literal[", "constrained-")):
            words.append(part)
    return words


def _line(where: str, faults: Sequence[ErrorDetails], model: type[BaseModel]) -> str:
    first = faults[0]
    if first["type"] == "extra_forbidden":
        parent, _, key = where.rpartition(".")
        return f"{where}: unknown key{nearest(key, _known_keys(model, parent))}"
    if first["type"] == "missing":
        return f"{where}: is required"
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        return f"{where}: must be one of {', '.join(tags)} (got {context['tag']!r}){nearest(str(context['tag']), tags)}"
    first_expected, *others = dict.fromkeys(map(_expected, faults))
    expected = [first_expected, *(other.removeprefix("should be ") for other in others)]
    value = first.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) or value is None else ""
    return f"{where or 'configuration'}: {', or '.join(expected)}{shown}"


_PLAIN = {
    "tuple_type": "should be a list such as [a, b]",
    "list_type": "should be a list such as [a, b]",
    "dict_type": "should be keys and values such as {key: value}",
    "model_type": "should be a section: keys and values such as {key: value}",
    "model_attributes_type": "should be a section: keys and values such as {key: value}",
    "string_type": "should be a text, which goes in quotes where YAML takes it for something else",
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "too_short": "should not be empty",
    "finite_number": "should be a finite number",
}
"""What pydantic says in words of Python, by its types of faults."""


def _expected(fault: ErrorDetails) -> str:
    if (words := _PLAIN.get(fault["type"])) is not None:
        return words
    if fault["type"] == "union_tag_not_found":
        return f"should have the key {str(fault['ctx']['discriminator']).strip(chr(39))}"
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message.partition(", unable to parse")[0]
    return message[:1].lower() + message[1:]


def _known_keys(model: type[BaseModel], path: str) -> list[str]:
    current: list[type[BaseModel]] = [model]
    for key in [part for part in path.split(".") if part]:
        inner: list[type[BaseModel]] = []
        for one in current:
            if key in one.model_fields:
                inner += [
                    kind
                    for kind in _models_in(one.model_fields[key].annotation)
                    if issubclass(kind, BaseModel)
                ]
        current = inner
    return sorted({key for one in current for key in one.model_fields})


def _elsewhere(key: str, model: type[BaseModel]) -> str:
    """Which settings have a key of that name, as a hint; "" if none has."""
    places = sorted(set(_places_of(key, [model], "")))
    return f"; {' and '.join(places)} can be" if places else ""


def _places_of(key: str, models: Sequence[type[BaseModel]], path: str) -> list[str]:
    found = []
    for one in models:
        for name, field in one.model_fields.items():
            where = f"{path}.{name}" if path else name
            found += [where] if name == key else []
            found += _places_of(key, _models_in(field.annotation), where)
    return found


def _expanded(tree: Tree, model: type[BaseModel], origin: str) -> Tree:
    faults: list[str] = []
    found = _walk(tree, [model], "", faults)
    if faults:
        raise ConfigFault("\n".join(f"{origin}: {fault}" for fault in faults))
    return found


def _walk(tree: Tree, models: Sequence[type[BaseModel]], path: str, faults: list[str]) -> Tree:
    found: Tree = {}
    for key, value in tree.items():
        where = f"{path}.{key}" if path else key
        fields = [one.model_fields[key] for one in models if key in one.model_fields]
        inner = [kind for field in fields for kind in _models_in(field.annotation)]
        if any(PLACE in field.metadata or _holds_place(field.annotation) for field in fields):
            found[key] = _replaced(value, where, faults)
        elif isinstance(value, dict) and inner:
            found[key] = _walk(value, inner, where, faults)
        else:
            found[key] = value
    return found


def _holds_place(annotation: object) -> bool:
    return annotation == PLACE or any(map(_holds_place, get_args(annotation)))


def _replaced(value: object, where: str, faults: list[str]) -> object:
    if isinstance(value, list):
        return [_replaced(one, where, faults) for one in value]
    if not isinstance(value, str):
        return value
    try:
        return expanded(value, os.environ)
    except ValueError as fault:
        faults.append(f"{where}: {fault}")
        return value


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
