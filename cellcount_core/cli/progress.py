"""How a run shows its progress: a live line on a terminal, JSON lines elsewhere, or nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from cellcount_core.domain.fields import Receipt
    from cellcount_core.runners.events import Events, Progress
    from cellcount_core.runners.pool import Death, ShardTask

_LOG_EVERY_S = 5.0
_RUN_DIGITS = 12


class Display(StrEnum):
    """What is shown while counting."""

    AUTO = "auto"
    LINE = "line"
    JSON = "json"
    QUIET = "quiet"


@contextmanager
def open_display(choice: Display) -> Iterator[Events]:
    """Open the display that `choice` means; "auto" is a live line on a terminal and JSON lines elsewhere."""
    if choice is Display.AUTO:
        choice = Display.LINE if sys.stderr.isatty() else Display.JSON
    if choice is Display.QUIET:
        yield Quiet()
    elif choice is Display.JSON:
        yield JsonLines()
    else:
        line = LiveLine()
        try:
            yield line
        finally:
            line.close()


class Quiet:
    """Shows nothing except warnings."""

    def stage(self, text: str) -> None:
        """Not shown."""

    def begin(self, fields: int, already: int, run: str) -> None:
        """Not shown."""

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        """Not shown."""

    def death(self, task: ShardTask, death: Death) -> None:
        """Not shown."""

    def tick(self, progress: Progress) -> None:
        """Not shown."""

    def warn(self, text: str) -> None:
        """Print one line on standard error."""
        print(f"warning: {text}", file=sys.stderr)


class JsonLines:
    """One JSON object per line on standard error: stages, progress every few seconds, and every death and
    warning.

    Once counting has begun, each line carries `run`, the first digits of the fingerprint, as the metrics
    do.
    """

    def __init__(self) -> None:
        self._rate = Rate()
        self._told = 0.0
        self._run: dict[str, object] = {}

    def _say(self, event: str, **values: object) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        print(json.dumps({"time": stamp, "event": event, **self._run, **values}), file=sys.stderr, flush=True)

    def stage(self, text: str) -> None:
        """{"event": "stage", …}"""
        self._say("stage", stage=text)

    def begin(self, fields: int, already: int, run: str) -> None:
        """{"event": "begin", …}"""
        self._rate = Rate(fields, already)
        self._run = {"run": run[:_RUN_DIGITS]}
        self._say("begin", fields=fields, already=already)

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        """{"event": "shard", …}"""
        self._say(
            "shard",
            shard=receipt.shard,
            plates=receipt.plates,
            commit=receipt.commit.value,
            statuses=receipt.statuses,
            reasons=receipt.reasons,
            objects=receipt.objects,
            bytes_read=receipt.bytes_read,
            retries=receipt.retries,
            seconds=round(receipt.seconds, 3),
            host=receipt.host,
            pid=receipt.pid,
        )

    def death(self, task: ShardTask, death: Death) -> None:
        """{"event": "death", …}"""
        self._say(
            "death",
            shard=task.shard.number,
            plates=task.shard.plates,
            fields=len(task.shard.fields),
            mode=task.mode.value,
            reason=death.reason.value,
            detail=death.detail,
        )

    def tick(self, progress: Progress) -> None:
        """{"event": "progress", …} every few seconds"""
        now = time.monotonic()
        if now - self._told >= _LOG_EVERY_S:
            self._told = now
            self._say("progress", **self._rate.values(progress))

    def warn(self, text: str) -> None:
        """{"event": "warning", …}"""
        self._say("warning", text=text)


class LiveLine:
    """A progress bar with the fields that are done, failed and left, fields/s, megapixels/s and the remaining time."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._rate = Rate()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def stage(self, text: str) -> None:
        """Print a grey line above the bar."""
        self._console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)

    def begin(self, fields: int, already: int, run: str) -> None:
        """Draw the bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._rate = Rate(fields, already)
        self._bar = Bar(
            TextColumn("counting"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
            TextColumn("eta"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=False,
        )
        self._task = self._bar.add_task("counting", total=fields, completed=already, rates="")
        self._bar.start()

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        """Move the bar."""
        self._update(progress)

    def death(self, task: ShardTask, death: Death) -> None:
        """Print a yellow line above the bar."""
        self._console.print(
            f"shard {task.shard.number} ({_plates(task.shard.plates)}{len(task.shard.fields)} fields): {death.detail}",
            style="yellow",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def tick(self, progress: Progress) -> None:
        """Refresh the rates."""
        self._update(progress)

    def _update(self, progress: Progress) -> None:
        if self._bar is None or self._task is None:
            return
        values = self._rate.values(progress)
        failed = f"[red]{values['failed']} failed[/red] " if values["failed"] else ""
        missing = f"[yellow]{values['missing']} missing[/yellow] " if values["missing"] else ""
        text = (
            f"{failed}{missing}{values['fields_per_s']:.1f} fields/s {values['megapixels_per_s']:.1f} Mpx/s"
        )
        self._bar.update(self._task, completed=values["done"], rates=text)

    def warn(self, text: str) -> None:
        """Print a yellow line."""
        self._console.print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Stop the bar and leave it as it is."""
        if self._bar is not None:
            self._bar.stop()


def _plates(names: tuple[str, ...]) -> str:
    """ "plate P1, ", with how many more there are; "" where the layout names none."""
    more = f" and {len(names) - 1} more" if names[1:] else ""
    return f"plate {names[0]}{more}, " if names and names[0] else ""


class Rate:
    """Fields and megapixels per second since counting began, and what is left."""

    def __init__(self, fields: int = 0, already: int = 0) -> None:
        self._fields = fields
        self._already = already
        self._since = time.monotonic()

    def values(self, progress: Progress) -> dict[str, float]:
        """The numbers of a progress line; `eta_s` is -1 while no field is done."""
        seconds = max(1e-9, time.monotonic() - self._since)
        done = progress.statuses.total() + progress.in_hand
        left = self._fields - self._already - done
        rate = done / seconds
        return {
            "done": self._already + done,
            "ok": progress.statuses["ok"],
            "failed": progress.statuses["failed"],
            "missing": progress.statuses["missing"],
            "left": left,
            "objects": progress.objects,
            "fields_per_s": round(rate, 2),
            "megapixels_per_s": round(progress.pixels / 1e6 / seconds, 2),
            "eta_s": round(left / rate, 1) if rate > 0 else -1.0,
        }
