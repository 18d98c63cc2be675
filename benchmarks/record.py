"""Write a table into a page of docs/explanation, with machine, date, commit and the command that printed it.

    python -m benchmarks.record [--data FOLDER] [--section NAME] evaluate PACKAGE [DATA] --suite NAME …

Benchmarks call `record` and write where `--record` is given. As a command it runs one suite of `cellcount evaluate` and records its
table: FOLDER is where the command runs, so that the paths in it and in the table are relative to the data.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cellcount_core.cli.main import main

_PAGES = Path(__file__).resolve().parents[1] / "docs" / "explanation"
PERFORMANCE = _PAGES / "performance.md"
RELIABILITY = _PAGES / "reliability.md"
CASES = _PAGES / "cases.md"
PLATES = _PAGES / "plates.md"


def record(section: str, table: Sequence[str], page: Path = PERFORMANCE) -> None:
    """Write the table of a benchmark into its section, if `--record` stands on the command line."""
    if "--record" in sys.argv:
        write_section(section, table, _command(), page)


def write_section(section: str, table: Sequence[str], command: str, page: Path = PERFORMANCE) -> None:
    """Replace what stands between `<!-- section -->` and `<!-- /section -->` of the page by `table` and its provenance."""
    lines = [
        *table,
        "",
        f"{_machine()}; {datetime.date.today().isoformat()}; commit {_commit()};",
        f"`{command}`",
    ]
    block = f"<!-- {section} -->\n" + "\n".join(lines) + f"\n<!-- /{section} -->"
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(rf"<!-- {section} -->.*?<!-- /{section} -->", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page.name} has no section <!-- {section} -->")
    page.write_text(pattern.sub(lambda _: block, text), encoding="utf-8")
    print(f"recorded in {page.name}: {section}")


def record_suite(arguments: Sequence[str], section: str) -> None:
    """Run `cellcount ARGUMENTS`, which name one suite, and record its table. Section "" is the one called as the suite."""
    if list(arguments).count("--suite") != 1:
        raise SystemExit("one --suite expected: a table has a command of its own")
    suite = arguments[list(arguments).index("--suite") + 1]
    with tempfile.TemporaryDirectory() as out:
        code = main([*arguments, "--out", out])
        if code:
            raise SystemExit(code)
        table = (Path(out) / f"{suite}.md").read_text(encoding="utf-8").splitlines()
    write_section(section or suite, table, shlex.join(["cellcount", *arguments]))


def passed(*held: bool) -> str:
    """The last column of a table: whether the row's bars are met."""
    return "yes" if all(held) else "**no**"


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


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, default=Path(), help="the folder that the command runs in")
    made.add_argument(
        "--section", default="", help="section of performance.md, if it is not called as the suite"
    )
    made.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of cellcount: evaluate …")
    return made.parse_args()


if __name__ == "__main__":
    asked = _arguments()
    os.chdir(asked.data)
    record_suite(asked.arguments, asked.section)
