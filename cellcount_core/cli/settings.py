"""Settings from a YAML file and `--set` assignments, for every command that takes them; every fault in one message.

YAML is read with fewer guesses than YAML 1.1 makes: only true and false are truth values, `01`, `1e3` and `2026-11-30`
stay the text that they are (a setting that is a number takes them as numbers), and a key given twice is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

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
    """Keys are text; those given twice in one mapping are kept in `repeated`, in words."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (yaml's own name for it)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.repeated: dict[str, None] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        """See yaml: called for every mapping of the file."""
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
    """The value of a YAML text. Raises ConfigFault, beginning with `where`."""
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
    """The mapping in a YAML file. Raises ConfigFault naming file and line where it is not one, or where a key is given twice."""
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
    """The settings in a YAML file with `--set` assignments on top. Raises ConfigFault listing every fault."""
    return settings_of(read_tree(path, model), assignments, model, str(path))


def settings_of(tree: Tree, assignments: Sequence[str], model: type[Settings], origin: str) -> Settings:
    """The settings of `tree` (read by `read_tree`) with `--set` assignments on top. Raises ConfigFault listing every fault."""
    for assignment in assignments:
        assign(tree, assignment, model)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigFault(explain(error, model, origin)) from None


def read_tree(path: Path, model: type[BaseModel]) -> Tree:
    """The mapping in a YAML file, with the variables in its paths replaced: those of `model` that are a `Place`.

    Raises ConfigFault as `read_yaml` does, and naming each path and the variable that is not set.
    """
    return _expanded(read_yaml(path), model, str(path))


def assign(tree: Tree, assignment: str, model: type[BaseModel]) -> None:
    """Apply one `--set run.key=value`; the value is read as YAML, so numbers, lists and mappings work, and paths as in a file.

    Raises ConfigFault where the text is no assignment, runs through a value that is no mapping, or names a variable not set.
    """
    keys, written = parsed_assignment(assignment)
    alone: Tree = {}
    place(alone, keys, written)
    value: object = _expanded(alone, model, f"--set {assignment!r}")
    for key in keys:
        value = value[key] if isinstance(value, dict) else value
    place(tree, keys, value)


def parsed_assignment(assignment: str) -> tuple[list[str], object]:
    """The keys and the value, as written, of a `--set` text. Raises ConfigFault where it is no assignment."""
    path, equals, text = assignment.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ConfigFault(f"--set {assignment!r}: expected section.key=value, for example run.z=max")
    return keys, _parsed(text, f"--set {assignment!r}")


def place(tree: Tree, keys: Sequence[str], value: object) -> None:
    """Put `value` at the path `keys`, making the mappings on the way."""
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
    """Validate a configuration. Raises ConfigFault listing every fault with the nearest known key or value."""
    try:
        return JobConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigFault(explain(error, JobConfig, origin)) from None


def explain(error: ValidationError, model: type[BaseModel], origin: str) -> str:
    """One line a place: where, what was expected, what was found, the nearest known key."""
    places: dict[str, list[Mapping[str, object]]] = {}
    for fault in error.errors(include_url=False):
        places.setdefault(".".join(_words(fault["loc"])), []).append(dict(fault))
    lines = [f"  {_line(where, faults, model)}" for where, faults in places.items()]
    many = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
    return f"{origin}: {many}\n" + "\n".join(lines)


_TAGS = {
    *layouts.NAMES,
    "float",
    "int",
    "str",
    "constrained-float",
    "constrained-int",
    "ExpectGrid",
}


def _words(location: object) -> list[str]:
    words: list[str] = []
    tags = set(_TAGS)
    for part in map(str, location if isinstance(location, tuple) else ()):
        if part in tags:
            # The tag of a layout may also be the name of one of its settings, which stands behind it.
            tags.remove(part)
        elif not part.startswith(("literal[", "constrained-")):
            words.append(part)
    return words


def _line(where: str, faults: Sequence[Mapping[str, object]], model: type[BaseModel]) -> str:
    first = faults[0]
    if first["type"] == "extra_forbidden":
        parent, _, key = where.rpartition(".")
        return f"{where}: unknown key{nearest(key, _known_keys(model, parent))}"
    if first["type"] == "missing":
        return f"{where}: is needed and not given"
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        assert isinstance(context, dict)
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


def _expected(fault: Mapping[str, object]) -> str:
    if (words := _PLAIN.get(str(fault["type"]))) is not None:
        return words
    if fault["type"] == "union_tag_not_found":
        context = fault["ctx"]
        assert isinstance(context, dict)
        return f"should have the key {str(context['discriminator']).strip(chr(39))}"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
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
