"""Submit a job to a Ray cluster, follow its logs and return its exit code.

A submission has a name. It is either given, or derived from the configuration's text, the `--set`
assignments, the entry point and the uploaded files. If a job with this name is running, its logs are
followed. If it ended, it is submitted again as `<name>-2`, `<name>-3`, …: a run continues where it
stopped, and a finished one only checks whether input and output are unchanged, which takes seconds. A name
that was given is not run again once it succeeded.

Token authentication follows Ray's own environment (RAY_AUTH_MODE, RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH); no
token is read, stored or sent by anything else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import shlex
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from cellcount_core.domain.errors import ConfigFault, CredentialsFault, Interrupted, RunFault, StorageFault

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_IMAGES = ("tif", "tiff", "png", "jpg", "jpeg", "jfif", "bmp")

EXCLUDES = (
    ".git/", ".venv*/", "/data/", "/shared/", "/out/", "/demo/", "/runs/", "__pycache__/", "*.pyc",
    ".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".hypothesis/",
    *("*." + "".join(f"[{letter}{letter.upper()}]" for letter in suffix) for suffix in _IMAGES),
)  # fmt: skip
"""What stays at home, as in .gitignore; the working directory's own .gitignore and .rayignore hold too. Images are read from the input."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_CONNECT_S = 10.0
_POLL_S = 0.5
_READ_WHOLE = 1 << 20
_NAMED_PATHS = 5
_EXIT_CODE_S = 15.0
_TAIL_TRIES = 5
_NOT_FOUND = 127
_AUTH_VARIABLES = (
    "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=<file with the cluster's token> (or RAY_AUTH_TOKEN)"
)


@dataclass(frozen=True, slots=True)
class SubmitRequest:
    """What to submit, and where.

    `config` is a YAML file inside `working_dir`, which is uploaded. `address` is the dashboard of the head
    node ("http://head:8265"). `assignments` are texts of `--set`. `submission_id` is the job's name (""
    derives one). `entrypoint` is the command to which the config's path and the assignments are appended;
    it is looked up on the head's PATH. Files that match `excludes` are not uploaded.
    """

    config: Path
    address: str
    working_dir: Path = Path()
    assignments: tuple[str, ...] = ()
    submission_id: str = ""
    entrypoint: tuple[str, ...] = ("python", "-m", "jobs.count")
    excludes: tuple[str, ...] = EXCLUDES


class Submitted(Enum):
    """What `start` did with a request."""

    NEW = "submitted"
    AGAIN = "submitted again; it goes on where the last one stopped"
    LOOKS = "submitted again; what is counted already stays as it is"
    ATTACHED = "already running; attached to it"
    DONE = "already succeeded; a name given with --id is not run again, give another one (or none) to have it looked at again"


def submit(request: SubmitRequest, output: TextIO | None = None) -> int:
    """Submit a job, write its logs to `output` (stdout if None) and return its own exit code.

    If the job was ended by signal n, the code is 128 + n. Ctrl-C leaves the job running. Raises
    StorageFault if the cluster cannot be reached, CredentialsFault if it refuses the token, ConfigFault if
    the request cannot be submitted, Interrupted after Ctrl-C or if the job was stopped, and RunFault if
    the job failed before its command ended.
    """
    client = _connect(request.address)
    name = _start(client, request)
    return _follow(client, name, request, output or sys.stdout)


def submit_detached(request: SubmitRequest) -> str:
    """Submit a job without following it, and return its name. Raises as `submit` does, except for what happens to the job later."""
    client = _connect(request.address)
    name = _start(client, request)
    _say(f"cellcount: {_ways(name, request.address)}")
    return name


def submission_name(request: SubmitRequest) -> str:
    """The name of a request: the given one, or the config's name with a digest of everything that is sent
    (its text, the assignments, the entry point, and the files of the working directory).

    Raises ConfigFault if the config cannot be read, or if Ray's URLs cannot contain the name.
    """
    if request.submission_id:
        if not _NAME.fullmatch(request.submission_id):
            raise ConfigFault(
                f"--id {request.submission_id!r}: expected letters, digits, '.', '_' and '-' only, at most 100, "
                "beginning with a letter or digit"
            )
        return request.submission_id
    try:
        text = request.config.read_bytes()
    except OSError as error:
        raise ConfigFault(f"{request.config}: cannot be read: {error.strerror}") from error
    sent = sorted((path, _digest(file)) for path, file in sent_files(request.working_dir, request.excludes))
    decided = json.dumps([hashlib.sha256(text).hexdigest(), request.assignments, request.entrypoint, sent])
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", request.config.stem).strip("-_") or "config"
    return f"cellcount-{stem[:40]}-{hashlib.sha256(decided.encode()).hexdigest()[:12]}"


def sent_files(working_dir: Path, excludes: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The files of the working directory that are sent, by their path below it ('/'-separated): all except
    those that match `excludes`.

    Patterns are those of .gitignore, without "!" and "**". .gitignore files themselves are not applied
    here: files that they exclude are not sent, but still count in the derived name.
    """
    for folder, folders, files in os.walk(working_dir):
        below = Path(folder).relative_to(working_dir)
        inside = f"{below.as_posix()}/" if below.parts else ""
        folders[:] = [name for name in folders if not _left_out(f"{inside}{name}/", excludes)]
        for name in files:
            if not _left_out(f"{inside}{name}", excludes):
                yield f"{inside}{name}", Path(folder) / name


def _left_out(path: str, excludes: Sequence[str]) -> bool:
    is_folder, name = path.endswith("/"), path.rstrip("/").rpartition("/")[2]
    for pattern in excludes:
        if pattern.endswith("/") and not is_folder:
            continue
        plain = pattern.rstrip("/")
        matched, form = (path.rstrip("/"), plain.lstrip("/")) if "/" in plain else (name, plain)
        if fnmatchcase(matched, form):
            return True
    return False


def _digest(file: Path) -> str:
    """A digest of a small file's bytes, or of a large one's size and time. "" if the file cannot be read; then it is not sent either."""
    try:
        found = file.stat()
        if found.st_size > _READ_WHOLE:
            return f"{found.st_size} {found.st_mtime_ns}"
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _largest(request: SubmitRequest) -> str:
    """In words, what takes up most of what is sent, by the first folder of the path."""
    sizes: Counter[str] = Counter()
    for path, file in sent_files(request.working_dir, request.excludes):
        top, slash, _ = path.partition("/")
        with suppress(OSError):
            sizes[top + slash] += file.stat().st_size
    total = sum(sizes.values()) / 1e6
    named = ", ".join(f"{top} ({size / 1e6:.1f} MB)" for top, size in sizes.most_common(_NAMED_PATHS))
    return f"{total:.1f} MB, most of it in {named}" if named else "no file"


def entrypoint_command(request: SubmitRequest) -> str:
    """The shell command that the head node runs in the uploaded working directory.

    Raises ConfigFault if the config is not inside the working directory.
    """
    folder = request.working_dir.resolve()
    try:
        config = request.config.resolve().relative_to(folder)
    except ValueError:
        raise ConfigFault(
            f"{request.config}: lies outside the working directory {folder}, so it would not reach the cluster; "
            "move it there, or name another --working-dir"
        ) from None
    words = [*request.entrypoint, config.as_posix()]
    for assignment in request.assignments:
        words += ["--set", assignment]
    return shlex.join(words)


def _connect(address: str) -> JobSubmissionClient:
    url = _dashboard_url(address)
    _check_reachable(url)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    # It tells of every closed connection, also where that is how a job's logs end.
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    try:
        # Ray lets RAY_ADDRESS and RAY_API_SERVER_ADDRESS override the argument; here the argument is what was asked for.
        with _environment({"RAY_API_SERVER_ADDRESS": url}):
            return JobSubmissionClient(url)
    except AuthenticationError as error:
        raise _refused(url) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise StorageFault(f"{url}: no Ray job server answers there: {_first_line(error)}") from error


def _dashboard_url(address: str) -> str:
    scheme, separator, _ = address.partition("://")
    if not separator:
        return f"http://{address}".rstrip("/")
    if scheme not in ("http", "https"):
        raise ConfigFault(
            f"--address {address!r}: jobs are sent to the dashboard of the head, like 'http://head:8265' (got {scheme}://)"
        )
    return address.rstrip("/")


def _check_reachable(url: str) -> None:
    """Check that the head node answers. Ray's own client would wait without a limit."""
    try:
        with urllib.request.urlopen(f"{url}/api/version", timeout=_CONNECT_S):  # noqa: S310 (http or https, see _dashboard_url)
            pass
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise StorageFault(
            f"{url}: cannot be reached within {_CONNECT_S:.0f} s ({reason}); is the head running, with its dashboard on this port?"
        ) from error


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(client: JobSubmissionClient, request: SubmitRequest) -> str:
    from ray.exceptions import AuthenticationError

    name = submission_name(request)
    command = entrypoint_command(request)
    try:
        name, outcome = _start_or_attach(client, request, name, command)
    except AuthenticationError as error:
        raise _refused(request.address) from error
    except ValueError as error:
        if "exceeds the maximum size" in str(error):
            raise _too_large(request, _first_line(error)) from error
        raise ConfigFault(f"{request.working_dir}: cannot be uploaded: {_first_line(error)}") from error
    except (OSError, RuntimeError) as error:
        if "status code 413" in str(error):
            raise _too_large(request, "413 request entity too large") from error
        raise StorageFault(
            f"{request.address}: the job could not be submitted: {_first_line(error)}"
        ) from error
    _say(f"cellcount: job {name}: {outcome.value}")
    return name


def _too_large(request: SubmitRequest, said: str) -> ConfigFault:
    return ConfigFault(
        f"{request.working_dir}: too large to be sent to {request.address} ({said}): {_largest(request)}. Leave out what the job "
        "does not need: --exclude '/folder/' or '*.ext' (repeatable), or a line in .rayignore, or name a smaller --working-dir"
    )


def _start_or_attach(
    client: JobSubmissionClient, request: SubmitRequest, name: str, command: str
) -> tuple[str, Submitted]:
    from ray.job_submission import JobStatus

    last, attempt = _newest(client, name)
    succeeded = last is not None and last.status == JobStatus.SUCCEEDED
    if succeeded and request.submission_id:
        return _attempt_name(name, attempt), Submitted.DONE
    if last is not None and not last.status.is_terminal():
        return _attempt_name(name, attempt), Submitted.ATTACHED
    chosen = _attempt_name(name, attempt + 1)
    try:
        client.submit_job(
            entrypoint=command,
            submission_id=chosen,
            runtime_env={
                "working_dir": str(request.working_dir.resolve()),
                "excludes": list(request.excludes),
            },
            metadata={"cellcount_name": name},
        )
    except RuntimeError:
        # Another submitter of the same name was faster: its job is ours.
        if not any(job.submission_id == chosen for job in client.list_jobs()):
            raise
        return chosen, Submitted.ATTACHED
    if last is None:
        return chosen, Submitted.NEW
    return chosen, Submitted.LOOKS if succeeded else Submitted.AGAIN


def _newest(client: JobSubmissionClient, name: str) -> tuple[JobDetails | None, int]:
    """The last attempt under a name, and its number; (None, 0) if there is none."""
    jobs = {job.submission_id: job for job in client.list_jobs()}
    number = 0
    while _attempt_name(name, number + 1) in jobs:
        number += 1
    return (jobs[_attempt_name(name, number)], number) if number else (None, 0)


def _attempt_name(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _follow(client: JobSubmissionClient, name: str, request: SubmitRequest, output: TextIO) -> int:
    from aiohttp import ClientError
    from ray.exceptions import AuthenticationError

    try:
        asyncio.run(_copy_logs(client, name, output))
        return _exit_code(_wait_for_end(client, name), request)
    except KeyboardInterrupt:
        raise Interrupted(f"job {name} goes on without you; {_ways(name, request.address)}") from None
    except AuthenticationError as error:
        raise _refused(request.address) from error
    except (OSError, RuntimeError, ClientError) as error:
        raise StorageFault(
            f"{request.address}: the connection to job {name} was lost ({_first_line(error)}); it may still be running; "
            f"{_ways(name, request.address)}"
        ) from error


async def _copy_logs(client: JobSubmissionClient, name: str, output: TextIO) -> None:
    """Copy the logs until the job has ended. A tail that breaks off is begun again; what was written is left out."""
    from aiohttp import ClientError

    written = failures = 0
    while True:
        seen = 0
        try:
            async for chunk in client.tail_job_logs(name):
                fresh = chunk[max(0, written - seen) :]
                seen += len(chunk)
                written = max(written, seen)
                output.write(fresh)
                output.flush()
        except (OSError, RuntimeError, ClientError):
            failures += 1
            if failures >= _TAIL_TRIES:
                raise
        if client.get_job_status(name).is_terminal():
            return
        await asyncio.sleep(_POLL_S)


def _wait_for_end(client: JobSubmissionClient, name: str) -> JobDetails:
    """The job's details, once its exit code is known or should be."""
    patience = time.monotonic() + _EXIT_CODE_S
    while True:
        info = client.get_job_info(name)
        if info.driver_exit_code is not None or (info.status.is_terminal() and time.monotonic() > patience):
            return info
        time.sleep(_POLL_S)


def _exit_code(info: JobDetails, request: SubmitRequest) -> int:
    from ray.job_submission import JobStatus

    name, code = info.submission_id, info.driver_exit_code
    if info.status == JobStatus.STOPPED:
        raise Interrupted(f"job {name} was stopped; submit it again and it goes on where it stopped")
    if code is None:
        if info.status == JobStatus.SUCCEEDED:
            return 0
        raise RunFault(
            f"job {name} failed before its command could end: {info.message or 'Ray gives no reason'}"
        )
    if code == _NOT_FOUND:
        _say(
            f"cellcount: the head does not find {request.entrypoint[0]!r} on its PATH; start the head with the environment's bin "
            "folder on PATH, in which cellcount's requirements are installed"
        )
    return 128 - code if code < 0 else code


def _refused(address: str) -> CredentialsFault:
    return CredentialsFault(
        f"{address}: the cluster refuses this client's token; set {_AUTH_VARIABLES} as on the head"
    )


def _ways(name: str, address: str) -> str:
    url = shlex.quote(_dashboard_url(address))
    return (
        f"the same command attaches to it again; `ray job logs --follow --address {url} {name}` shows its logs; "
        f"`ray job stop --address {url} {name}` stops it"
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:400] if lines else type(error).__name__


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
