"""Write a benchmark's table into a page of docs/explanation, with machine, date and commit."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_PAGES = Path(__file__).parents[1] / "docs" / "explanation"
PERFORMANCE = _PAGES / "performance.md"
RELIABILITY = _PAGES / "reliability.md"
CASES = _PAGES / "cases.md"


def record(section: str, table: Sequence[str], page: Path = PERFORMANCE) -> None:
    """Replace what stands between `<!-- section -->` and `<!-- /section -->` of the page by `table` and its provenance.

    Without `--record` on the command line nothing is written.
    """
    if "--record" not in sys.argv:
        return
    lines = [
        *table,
        "",
        f"{_machine()}; {datetime.date.today().isoformat()}; commit {_commit()};",
        f"`{_command()}`",
    ]
    block = f"<!-- {section} -->\n" + "\n".join(lines) + f"\n<!-- /{section} -->"
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"<!-- {section} -->.*?<!-- /{section} -->", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page.name} has no section <!-- {section} -->")
    page.write_text(pattern.sub(lambda _: block, text), encoding="utf-8")
    print(f"recorded in {page.name}: {section}")


def _machine() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=_PAGES
    )
    return done.stdout.strip()


def _command() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument != "--record"]
    folders = [argument for argument in arguments if Path(argument).is_dir()]
    shown = [
        argument if argument not in folders else "DATA" if argument == folders[0] else "FOLDER"
        for argument in arguments
    ]
    script = Path(sys.argv[0]).resolve().relative_to(_PAGES.parents[1])
    package = ".".join(script.parent.parts)
    return " ".join(["python", *(["-m", package] if script.name == "__main__.py" else [str(script)]), *shown])
