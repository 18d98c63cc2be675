"""A real Ray head node on loopback with token authentication, ended by its own process id."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
_START_S = 600.0


@dataclass(frozen=True)
class RayHead:
    """Addresses of the dashboard, the cluster and its metrics; the environment of a client that holds the cluster's token."""

    address: str
    environment: dict[str, str]
    cluster: str = ""
    metrics: str = ""


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def ray_head(cpus: int = 2) -> Iterator[RayHead]:
    """Start a head with `python` of this environment on its PATH; it is gone when the context ends."""
    folder = Path(tempfile.mkdtemp(prefix="cc-ray-"))
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    dashboard, cluster, metrics = free_port(), free_port(), free_port()
    command = [
        str(BIN / "ray"), "start", "--head", "--block", f"--port={cluster}", f"--num-cpus={cpus}",
        "--node-ip-address=127.0.0.1", f"--metrics-export-port={metrics}",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}",
        f"--object-store-memory={128 << 20}", "--disable-usage-stats", f"--temp-dir={folder / 'ray'}",
    ]  # fmt: skip
    log = (folder / "head.log").open("wb")
    head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{dashboard}"
        _wait_until_up(address, head, folder / "head.log")
        yield RayHead(address, environment, f"127.0.0.1:{cluster}", f"http://127.0.0.1:{metrics}/metrics")
    finally:
        _end(head)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_up(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    patience = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(f"{address}/api/version", timeout=2):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            pass
        if head.poll() is not None or time.monotonic() > patience:
            raise RuntimeError(f"the Ray head did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.25)


def _end(head: subprocess.Popen[bytes]) -> None:
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(timeout=300)
    except subprocess.TimeoutExpired:
        head.kill()
        head.wait(timeout=120)
