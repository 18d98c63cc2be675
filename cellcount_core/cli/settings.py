"""A job's configuration from a YAML file, command-line options and `--set` assignments; every fault in one message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cellcount_core.domain.errors import ConfigFault, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

    from cellcount_core.domain.config import JobConfig

Tree = dict[str, object]


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file. Raises ConfigFault naming file and line where it is not one."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigFault(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigFault(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigFault(
            f"{path}: expected a mapping with keys like input, output, run; got {type(data).__name__}"
        )
    return data


def assign(tree: Tree, assignment: str) -> None:
    """Apply one `--set run.key=value`; the value is read as YAML, so numbers, lists and mappings work.

    Raises ConfigFault where the text is no assignment or runs through a value that is no mapping.
    """
    import yaml

    path, equals, text = assignment.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise ConfigFault(f"--set {assignment!r}: expected section.key=value, for example run.z=max")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigFault(f"--set {assignment!r}: the value is not valid YAML: {error}") from error
    place(tree, keys, value)


def place(tree: Tree, keys: Sequence[str], value: object) -> None:
    """Put `value` at the path `keys`, making the mappings on the way."""
    for position, key in enumerate(keys[:-1]):
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigFault(
                f"{'.'.join(keys[: position + 1])} is {inner!r}, so {'.'.join(keys)} cannot be set"
            )
        tree = inner
    tree[keys[-1]] = value


def build_job(tree: Mapping[str, object], origin: str) -> JobConfig:
    """Validate a configuration. Raises ConfigFault listing every fault with the nearest known key or value."""
    from pydantic import ValidationError

    from cellcount_core.domain.config import JobConfig

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
    "flat",
    "imagexpress",
    "pattern",
    "table",
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
    first_expected, *others = dict.fromkeys(_expected(str(fault["msg"])) for fault in faults)
    expected = [first_expected, *(other.removeprefix("should be ") for other in others)]
    value = first.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) or value is None else ""
    return f"{where or 'configuration'}: {', or '.join(expected)}{shown}"


def _expected(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input ").partition(", unable to parse")[0]
    return message[:1].lower() + message[1:]


def _known_keys(model: type[BaseModel], path: str) -> list[str]:
    from pydantic import BaseModel

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


def _models_in(annotation: object) -> list[type[BaseModel]]:
    from typing import get_args

    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
