"""Drivers as processes of their own: started, killed at a chosen request to the store, and how they ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cellcount_core.domain.errors import Reason
from tests.s3_proxy import Instead, Request

LONGEST_S = 600.0
"""Where nothing more will come: far longer than anything takes on a machine with other work."""

_GONE_S = 120.0


@dataclass(frozen=True)
class Ended:
    """How a driver ended: exit code, seconds since it was waited for, and the events and other lines it logged."""

    code: int
    seconds: float
    events: list[dict[str, object]]
    words: list[str]

    def deaths(self, reason: Reason) -> int:
        """Attempts that gave no receipt for this reason."""
        return sum(event["event"] == "death" and event["reason"] == reason for event in self.events)


def arguments(
    source: str | Path, output: str | Path, *settings: str, endpoint: str | None = None
) -> list[str]:
    """`cellcount count` on an ImageXpress plate with the `threshold` package; what comes last of two equal settings holds."""
    at = [] if endpoint is None else ["--endpoint", endpoint]
    last = {setting.partition("=")[0]: setting for setting in settings}
    assignments = [part for setting in last.values() for part in ("--set", setting)]
    command = ["count", str(source), str(output), "--layout", "imagexpress", "--model", "threshold"]
    return [*command, "--progress", "json", *at, *assignments]


def start(arguments: list[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """The command as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "cellcount_core.cli", *arguments],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(driver: subprocess.Popen[str]) -> Ended:
    """Wait for it; it is ended where it takes too long."""
    began = time.monotonic()
    try:
        lines = driver.communicate(timeout=LONGEST_S)[1].splitlines()
    finally:
        driver.kill()
        driver.wait()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    seconds = time.monotonic() - began
    return Ended(driver.returncode, seconds, events, [line for line in lines if not line.startswith("{")])


def kill(pid: int) -> None:
    """SIGKILL, and wait until that process does nothing more."""
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + _GONE_S
    while is_alive(pid):
        assert time.monotonic() < until, f"process {pid} goes on after a SIGKILL"
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether there is such a process that is not yet dead, whoever has to reap it."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Moment:
    """A request at which somebody is killed: the first of `method` for an object whose key ends in `ending`.

    `heard`: the store still does what was asked, and nobody is left to hear of it; otherwise it is never asked.
    """

    method: str
    ending: str
    heard: bool = False

    def is_at(self, request: Request) -> bool:
        """Whether this is such a request."""
        return request.prefix is None and request.method == self.method and request.key.endswith(self.ending)


@dataclass
class KillsAt:
    """For a proxy: kills the process that makes the request of each moment, once for each."""

    moments: list[Moment]
    killed: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: Request) -> Instead | None:
        with self._lock:
            moment = next((moment for moment in self.moments if moment.is_at(request)), None)
            if moment is None:
                return None
            try:
                pid = request.client_pid()
            except ProcessLookupError:
                return None  # Another moment has killed who asks: this one is for who asks again.
            if pid in self.killed:
                return None
            self.moments.remove(moment)
            kill(pid)
            self.killed.append(pid)
        return None if moment.heard else Instead(503)
