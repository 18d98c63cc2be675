"""From a configuration to its layout. A new layout is a module and a line here."""

from __future__ import annotations

from typing import assert_never

from cellcount_core.domain.config import (
    FlatLayout,
    ImageXpressLayout,
    LayoutConfig,
    PatternLayout,
    TableLayout,
)
from cellcount_core.layouts.base import Layout
from cellcount_core.layouts.flat import Flat
from cellcount_core.layouts.imagexpress import ImageXpress
from cellcount_core.layouts.manifest import Manifest, check_manifest
from cellcount_core.layouts.pattern import compile_pattern


def build_layout(config: LayoutConfig, root: str) -> Layout | Manifest:
    """The layout of `config`; `root` is the plate of files that lie in the input itself, where names give none. Raises ConfigFault where it cannot be one (a bad pattern, an unknown manifest column)."""
    match config:
        case FlatLayout():
            return Flat(root)
        case ImageXpressLayout():
            return ImageXpress(root)
        case PatternLayout():
            return compile_pattern(config, root)
        case TableLayout():
            return check_manifest(config, root)
        case unknown:
            assert_never(unknown)
