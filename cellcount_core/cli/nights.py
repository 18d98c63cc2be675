"""`cellcount nightly`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellcount_core.cli.counting import many
from cellcount_core.cli.progress import Display, open_display
from cellcount_core.cli.settings import Tree, read_tree, settings_of
from cellcount_core.domain.errors import ExitCode
from cellcount_core.nightly.config import NightlyConfig


def nightly(config: Path, assignments: Sequence[str], display: Display) -> int:
    """Run one night, print its outcome and return its exit code."""
    from cellcount_core.nightly.night import run_night

    settings = nightly_config(config, assignments)
    with open_display(display) as events:
        events.stage(f"output {settings.output} (relative paths in {config} are taken from its own folder)")
        digest = run_night(settings, events)
    out = settings.output.rstrip("/")
    print(f"night {digest.night}: {digest.headline}")
    for line in (*digest.problems, *digest.empty, *digest.sentences, *digest.notices):
        print(f"  {line}")
    for reading in digest.flagged:
        print(
            f"  {reading.plate}: {reading.statistic} {reading.value:.4g} is outside {reading.low:.4g} to {reading.high:.4g}"
        )
    if digest.webhook:
        print(f"  webhook: {digest.webhook}")
    if digest.exit_code is ExitCode.DOUBTS:
        print(
            f"exit code {int(ExitCode.DOUBTS)}: {many(len(digest.doubted), 'plate')} in doubt (execution.strict)"
        )
    print(f"digest: {out}/nights/{digest.night}/digest.html; plates: {out}/nights/datasets.csv")
    return int(digest.exit_code)


def nightly_config(config: Path, assignments: Sequence[str]) -> NightlyConfig:
    """The settings of a YAML file with `--set` assignments on top.

    Relative roots, output and model package of the file lie where the file does, whatever folder the command is started in; those
    of `--set` are relative to that folder. Raises ConfigFault listing every fault.
    """
    tree = read_tree(config, NightlyConfig)
    roots, model = tree.get("roots"), _section(_section(tree, "run"), "model")
    tree = {
        **tree,
        **({"output": _beside(config, tree["output"])} if "output" in tree else {}),
        **({"roots": [_beside(config, root) for root in roots]} if isinstance(roots, list) else {}),
    }
    package = model.get("package")
    if isinstance(package, str) and (config.parent / package).is_dir():
        model["package"] = _beside(config, package)
    return settings_of(tree, assignments, NightlyConfig, str(config))


def _section(tree: Tree, name: str) -> Tree:
    section = tree.get(name)
    return section if isinstance(section, dict) else {}


def _beside(config: Path, place: object) -> object:
    """`place` as seen from the folder of the file `config`."""
    return str(config.absolute().parent / place) if isinstance(place, str) and _is_relative(place) else place


def _is_relative(place: object) -> bool:
    return (
        isinstance(place, str)
        and "://" not in place
        and bool(place)
        and not Path(place).expanduser().is_absolute()
    )
