"""`python -m cellcount_core.cli`: the same as the `cellcount` command."""

from __future__ import annotations

from cellcount_core.cli.main import script

script()
