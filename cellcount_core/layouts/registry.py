"""All layouts. Settings, command line, help and documentation are derived from `NAMES`.

A new layout is a module of this package, which exports its `KIND`, and a name here. The modules are imported when a
configuration is read, not before: the command line shows the names in its help.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cellcount_core.layouts.base import AnyLayoutKind, Layout, LayoutSettings

NAMES = (
    "flat",
    "imagexpress",
    "harmony",
    "cellvoyager",
    "scanr",
    "incell",
    "hcsai",
    "cellomics",
    "evos",
    "ome-zarr",
    "ome-tiff",
    "sbs",
    "cytation",
    "leica",
    "micromanager",
    "almf",
    "incucyte",
    "squid",
    "pattern",
    "table",
    "loaddata",
    "columbus",
)
"""The layouts in the order of help and documentation: values of `--layout`, and names of the modules with "_" for "-"."""

CHOICES = ("auto", *NAMES)
"""The values of `--layout`: "auto" stands for one of the layouts, which is found out from the names of an input (auto.py)."""


@cache
def kinds() -> tuple[AnyLayoutKind, ...]:
    """The kinds of layout, in the order of `NAMES`."""
    return tuple(import_module(f"cellcount_core.layouts.{name.replace('-', '_')}").KIND for name in NAMES)


def kind_of(settings: LayoutSettings) -> AnyLayoutKind:
    """The kind of layout that `settings` belong to. "auto" is none: it is replaced by a layout when an input is listed."""
    for kind in kinds():
        if kind.name == settings.kind:
            return kind
    raise AssertionError(f"there is no layout {settings.kind!r}")


def build_layout(settings: LayoutSettings, root: str) -> Layout:
    """The layout of `settings`. `root` is the plate of files in the input folder itself, if names do not tell it.

    Raises ConfigFault for settings that cannot be used, such as a bad pattern or an unknown column of a table.
    """
    return kind_of(settings).of(settings, root)
