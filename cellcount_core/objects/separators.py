"""The registry of separators, by the `kind` that stands in a package's `separator` section."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TypeVar

from cellcount_core.domain.errors import ModelFault, nearest
from cellcount_core.objects.components import ComponentsSeparator
from cellcount_core.objects.core_separator import CoresSeparator
from cellcount_core.objects.protocol import FieldParams, Separator
from cellcount_core.objects.watershed import WatershedSeparator

__all__ = ["KINDS", "FieldParams", "Separator", "build_separator", "of_whole_objects"]

_Kind = TypeVar("_Kind", ComponentsSeparator, WatershedSeparator)

KINDS = ("components", "cores", "watershed")
"""What `separator.kind` may say."""


def build_separator(spec: Mapping[str, object]) -> Separator:
    """The separator that a package's `separator` section asks for.

    Raises ModelFault for an unknown kind or parameter (with the nearest known one) and for a value out of its range.
    """
    kind = spec.get("kind")
    given = {name: value for name, value in spec.items() if name != "kind"}
    if kind == "components":
        return _build(ComponentsSeparator, given)
    if kind == "watershed":
        return _build(WatershedSeparator, given)
    if kind == "cores":
        return CoresSeparator.from_spec(given)
    raise ModelFault(f"separator.kind: no separator is called {kind!r}{nearest(str(kind), KINDS)}")


def of_whole_objects(spec: Mapping[str, object]) -> dict[str, object]:
    """A package's `separator` section that keeps no small parts of objects at the edge of an image."""
    return {name: value for name, value in spec.items() if name != "edge_area"}


def _build(separator: type[_Kind], given: Mapping[str, object]) -> _Kind:
    known = [field.name for field in fields(separator)]
    numbers: dict[str, float] = {}
    for name, value in given.items():
        if name not in known:
            raise ModelFault(f"separator.{name}: no such parameter{nearest(name, known)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ModelFault(f"separator.{name}: expected a number (got {value!r})")
        numbers[name] = value
    try:
        return separator(**numbers)
    except ValueError as error:
        raise ModelFault(f"separator.{error}") from error
