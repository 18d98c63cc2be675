"""The base class of all sections of settings, and what the paths in them mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from cellcount_core.domain.errors import likely

PLACE = "place"
Place = Annotated[str, PLACE]
"""A path or URL: where it stands in a file, `expanded` is what it means."""

_VARIABLE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w*)\}|(\{[^}]*\}?))")


def expanded(place: str, variables: Mapping[str, str]) -> str:
    """`place` with `$NAME` and `${NAME}` replaced by variables, and a leading `~` by the home folder; `$$` stands for a plain `$`.

    Raises ValueError naming the variable if it is empty or not among `variables`, or if the home folder is not known.
    """

    def value(found: re.Match[str]) -> str:
        plain, bare, braced, other = found.groups()
        if plain:
            return "$"
        name = bare or braced or ""
        if other is not None or not name:
            raise ValueError(
                f"{place!r}: only $NAME and ${{NAME}} are replaced (got {found.group()!r}); '$$' stands for a plain '$'"
            )
        if variables.get(name) == "":
            raise ValueError(
                f"{place!r} names the environment variable {name}, which is empty; '$$' stands for a plain '$'"
            )
        if name not in variables:
            raise ValueError(
                f"{place!r} names the environment variable {name}, which is not set"
                + likely(name, variables)
                + "; '$$' stands for a plain '$'"
            )
        return variables[name]

    text = _VARIABLE.sub(value, place)
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ValueError(f"{place!r}: the home folder of {text.partition('/')[0]!r} is not known") from None


def _is_number(annotation: object) -> bool:
    """Whether a setting is a number. One that is told in a text too says itself what it expects."""
    parts = get_args(annotation)
    return annotation in (int, float) or (str not in parts and any(map(_is_number, parts)))


class Section(BaseModel):
    """A section of a settings file. Unknown keys are refused, a key that is left empty has its default, and a number is accepted as a name.

    `true` and `false` are not accepted as numbers, and numbers must be finite.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        fields = cls.model_fields
        if wrong := [
            f"{key}: {str(value).lower()}"
            for key, value in given.items()
            if isinstance(value, bool) and key in fields and _is_number(fields[key].annotation)
        ]:
            raise ValueError(f"true and false are not numbers ({', '.join(wrong)})")
        return {
            key: value
            for key, value in given.items()
            if value is not None or key not in fields or type(None) in get_args(fields[key].annotation)
        }
