"""`cellcount nightly`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellcount_core.cli.progress import Display, open_display
from cellcount_core.cli.settings import read_settings
from cellcount_core.nightly.config import NightlyConfig


def nightly(config: Path, assignments: Sequence[str], display: Display) -> int:
    """Run one night, print its outcome and return its exit code."""
    from cellcount_core.nightly.night import run_night

    settings = nightly_config(config, assignments)
    with open_display(display) as events:
        digest = run_night(settings, events)
    out = settings.output.rstrip("/")
    print(f"night {digest.night}: {digest.headline}")
    for line in (*digest.problems, *digest.notices):
        print(f"  {line}")
    for reading in digest.flagged:
        print(
            f"  {reading.plate}: {reading.statistic} {reading.value:.4g} is outside {reading.low:.4g} to {reading.high:.4g}"
        )
    if digest.webhook:
        print(f"  webhook: {digest.webhook}")
    print(f"digest: {out}/nights/{digest.night}/digest.html; plates: {out}/nights/datasets.csv")
    return int(digest.exit_code)


def nightly_config(config: Path, assignments: Sequence[str]) -> NightlyConfig:
    """The settings of a YAML file with `--set` assignments on top. Raises ConfigFault listing every fault."""
    return read_settings(config, assignments, NightlyConfig)
