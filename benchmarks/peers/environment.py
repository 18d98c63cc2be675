"""Environments of the systems that do not share ours: made once with pip in the cache folder, at pinned versions."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALL_SECONDS = 900

ONE_THREAD: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
}
"""What every system's process is given: one thread for every library that asks the environment, and no GPU."""


class SystemFailed(Exception):
    """A system could not be installed or run; the message is one line for the table."""


def python_with(name: str, requirements: Sequence[str], cache: Path) -> Path:
    """The interpreter of the environment `name`, which holds exactly what `requirements` asked pip for.

    Made, or made anew where the requirements changed, in `cache`. Raises SystemFailed with pip's last words.
    """
    folder = cache / f"{name}-venv"
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    if folder.exists():
        shutil.rmtree(folder)
    print(f"{name}: installing {', '.join(requirements)} into {folder.name}", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    try:
        for command in (
            [sys.executable, "-m", "venv", "--without-pip", str(folder)],
            [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *requirements],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.CalledProcessError as error:
        raise SystemFailed(f"does not install: {last_line(error.stderr)}") from error
    except subprocess.TimeoutExpired as error:
        raise SystemFailed(f"does not install within {INSTALL_SECONDS} s") from error
    stamp.write_text(wanted, encoding="utf-8")
    return python


def worker(python: Path, arguments: Sequence[str], cache: Path, log: Path) -> None:
    """Run `benchmarks.peers.worker`. See `run_module`."""
    run_module(python, ["benchmarks.peers.worker", *arguments], cache, log)


def run_module(python: Path, words: Sequence[str], cache: Path, log: Path) -> None:
    """Run a module of this project (its name, then its arguments) with one thread, its output in `log`.

    Raises SystemFailed with its last line, or the signal that ended it.
    """
    settings = {**os.environ, **ONE_THREAD, "PYTHONPYCACHEPREFIX": str(cache / "pycache")}
    # Start-up is measured, so every system's modules are compiled once and kept.
    settings.pop("PYTHONDONTWRITEBYTECODE", None)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            [str(python), "-m", *words],
            cwd=ROOT,
            env=settings,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode < 0:
        raise SystemFailed(f"ended by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        raise SystemFailed(last_line(log.read_text(encoding="utf-8", errors="replace")))


def last_line(text: str | None) -> str:
    """The last line of an output that says something, cut to 160 characters."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1][:160] if lines else "no message"
