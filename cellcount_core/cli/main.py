"""The `cellcount` command: its list of commands, and how a run that goes wrong ends as one message and an exit code. What each command
takes stands in the modules of commands; everything heavy is imported by the command that needs it, when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from io import TextIOWrapper
from typing import Annotated

import typer
from typer.exceptions import TyperException

from cellcount_core import __version__
from cellcount_core.cli import count_commands, input_commands, output_commands, package_commands
from cellcount_core.domain.errors import ExitCode, RunFault

app = typer.Typer(
    name="cellcount",
    help="Counts cells in microscope images at plate scale.\n\n"
    "Example: cellcount count ./plate ./out --layout imagexpress --channel w1",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(count_commands.count)
app.command(short_help="Try the failed fields of a finished run again.")(count_commands.retry)
app.command(short_help="Say what a count would do, without doing it.")(count_commands.plan)
app.command(short_help="Tell all that is wrong with an input before it is counted.")(input_commands.check)
app.add_typer(input_commands.layout, name="layout")
app.command()(output_commands.reduce)
app.command(short_help="Prove the ledger of a finished run.")(output_commands.verify)
app.command(short_help="Write the counts as a plain CSV, or boxes for other tools.")(output_commands.export)
app.command(short_help="Tell how well counts follow a dilution series.")(output_commands.dilution)
app.command("check-classes", short_help="Tell which images of class folders show the same.")(
    package_commands.check_classes
)
app.command("check-boxes", short_help="Tell every fault of a data set of boxes.")(
    package_commands.check_boxes
)
app.command(short_help="Draw the plate map and a few fields with outlines.")(output_commands.pictures)
app.command()(package_commands.models)
app.command()(output_commands.demo)
app.command()(package_commands.train)
app.command(short_help="Measure a model package on images of which the truth is known.")(
    package_commands.evaluate
)
app.command(short_help="Count what came since the last night.")(count_commands.nightly)
app.command(short_help="Submit a count to a Ray cluster and follow it.")(count_commands.submit)


def _version(value: bool) -> None:
    if value:
        print(f"cellcount {__version__}")
        raise typer.Exit(0)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Counts cells in microscope images at plate scale."""


@cache
def _command() -> Callable[..., int | None]:
    """All commands with their options, put together once for all calls of `main` in a process."""
    return typer.main.get_command(app)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every fault of a run is one message, not a traceback."""
    try:
        arguments = sys.argv[1:] if argv is None else argv
        result = _command()(args=arguments or ["--help"], standalone_mode=False, prog_name="cellcount")
    except RunFault as fault:
        print(f"cellcount: {fault}", file=sys.stderr)
        return int(fault.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("cellcount: stopped; the same command goes on where this one stopped", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except (OSError, MemoryError) as error:
        print(f"cellcount: {_of_the_system(error)}", file=sys.stderr)
        return int(ExitCode.STORAGE)
    except RuntimeError as error:
        if not any(words in str(error) for words in ("can't start new thread", "home directory")):
            raise
        print(f"cellcount: {_of_the_system(error)}", file=sys.stderr)
        return int(ExitCode.STORAGE)
    except typer.Exit as leaving:
        return int(leaving.exit_code)
    except TyperException as error:
        print(
            f"cellcount: {error.format_message()} ({_command_of(error)} --help tells what there is)",
            file=sys.stderr,
        )
        return int(ExitCode.CONFIG)
    return int(result or 0)


def _of_the_system(error: OSError | MemoryError | RuntimeError) -> str:
    """What the operating system refused, in one line with a way out; no library's words about it are a message of ours."""
    import errno
    import tempfile

    if isinstance(error, MemoryError):
        return "out of memory; give the process more (ulimit -v, the job's limit), or fewer at once (--actors 1, execution.threads=1)"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "a path begins with ~ and the home folder is not known; set HOME, or write the path out"
    if isinstance(error, RuntimeError):
        return "no thread can be started; allow more processes (ulimit -u, the container's limit on pids)"
    where = f"{error.filename}: " if error.filename else ""
    said = f"{where}{error.strerror or error}"
    if "No usable temporary directory" in said:
        return "no temporary folder can be written; set TMPDIR to one that can"
    temporary = (
        ""
        if tempfile.tempdir is None
        else f" (temporary files are in {tempfile.tempdir}; TMPDIR names another place)"
    )
    ways = {
        errno.ENOSPC: f"make room{temporary}",
        errno.EDQUOT: f"the quota is used up{temporary}",
        errno.EMFILE: "allow more open files (ulimit -n)",
        errno.ENFILE: "the system's open files are used up",
        errno.EACCES: f"check who may read and write there{temporary}",
        errno.EPERM: f"check who may read and write there{temporary}",
        errno.EROFS: f"it cannot be written{temporary}",
    }
    way = ways.get(error.errno or 0)
    return said + (f"; {way}" if way else "")


def _command_of(error: TyperException) -> str:
    """The command that was misused ("cellcount count"), as far as it was understood."""
    context: object = getattr(error, "ctx", None)
    return str(getattr(context, "command_path", "cellcount"))


def script() -> None:
    """Entry point of the installed `cellcount` command."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that cannot show "µ" shows something else for it.
        sys.stdout.reconfigure(errors="replace")
    sys.exit(main())
