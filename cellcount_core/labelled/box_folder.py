"""Files of boxes put where a user wants them: all of them or none, and never among the files of another run.

A folder of boxes is read by its content alone: labels that are left from another run would be read as boxes of this one, with other
classes. So each folder says in a small file of which run it is (`OWNER`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from cellcount_core.domain.errors import ConfigFault, OutputFault

OWNER = ".cellcount-export"
"""Name of the file in an exported folder that says of which run and format the folder is, and which files were written."""

_ENDINGS = frozenset({".json", ".xml", ".txt", ".yaml", ".yml", ".csv", ".zip"})
"""Endings of names that are meant as a file's."""

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class _Owner:
    """Of which run (its fingerprint) and format a folder is, and the files that an export wrote to it, each with its SHA-256 ("" where an
    export that did not end may have written it or not)."""

    run: str
    kind: str
    files: Mapping[str, str]

    def text(self) -> str:
        return json.dumps({"run": self.run, "kind": self.kind, "files": dict(self.files)}, indent=1) + "\n"


def is_file_name(path: Path) -> bool:
    """Whether the path is meant as a file: its name ends as that of a text or JSON file does, and it is no folder that is there."""
    return path.suffix.lower() in _ENDINGS and not path.is_dir()


def put_boxes(place: Path, kind: str, run: str, files: Iterable[tuple[str, bytes]]) -> int:
    """Write `files` (names and content) into the folder `place`, and return how many. `run` is the run's fingerprint.

    COCO, which is one file, is written to `place` itself if that is the name of a JSON file. The folder is made, or is empty, or is an
    earlier export of the same run and format, of which what is no longer true is removed; images in it stay. Nothing is changed before
    all files are written beside it. Raises ConfigFault if the place cannot take them, OutputFault if a file cannot be written.
    """
    if is_file_name(place):
        return _put_file(place, kind, files)
    before = _checked(place, kind, run)
    stage = place.parent / f".{place.name}.{uuid4().hex[:8]}.part"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        stage.mkdir()
        owner = _Owner(run, kind, _staged(stage, files))
        (stage / OWNER).write_text(owner.text(), encoding="utf-8")
        if place.is_dir() and any(place.iterdir()):
            _replace(place, stage, owner, before)
        else:
            if place.is_dir():
                place.rmdir()
            stage.rename(place)
    except OSError as error:
        raise OutputFault(f"{place}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return len(owner.files)


def put_file(file: Path, body: bytes) -> None:
    """Write one file, whole or not at all; one that is there is replaced. Raises OutputFault if it cannot be written."""
    try:
        if file.exists() and not file.is_file():
            # /dev/stdout and the like: there is nothing to put in their place.
            file.write_bytes(body)
            return
        # What a link leads to is written, and the link stays.
        target = file.resolve()
        stage = target.with_name(f".{target.name}.{uuid4().hex[:8]}.part")
        try:
            stage.write_bytes(body)
            stage.replace(target)
        finally:
            stage.unlink(missing_ok=True)
    except OSError as error:
        raise OutputFault(f"{file}: cannot be written: {error.strerror}") from error


def _put_file(file: Path, kind: str, files: Iterable[tuple[str, bytes]]) -> int:
    if kind != "coco" or file.suffix.lower() != ".json":
        raise ConfigFault(
            f"{file}: the name of a folder expected: --to {kind} writes "
            + ("boxes.json, or a file named .json" if kind == "coco" else "many files, one for each image")
        )
    [(_, body)] = files
    if file.exists() and file.read_bytes() != body:
        raise ConfigFault(
            f"{file}: is there already, and its content is not what would be written; name another file, or remove it"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    put_file(file, body)
    return 1


def _checked(place: Path, kind: str, run: str) -> frozenset[str]:
    """The files that an earlier export of the same run and format wrote to `place`; none if that is new or empty. Images may lie there."""
    if not place.exists():
        return frozenset()
    if not place.is_dir():
        raise ConfigFault(f"{place}: is a file; --to {kind} writes a folder")
    owner = _owner(place)
    if owner is None:
        there = sorted(path.name for path in place.iterdir())
        if not there:
            return frozenset()
        shown = ", ".join(there[:_SHOWN]) + (" …" if len(there) > _SHOWN else "")
        raise ConfigFault(
            f"{place}: holds files that are not of an export of this run ({shown}), and boxes of two kinds in one folder are read as one "
            "data set; name a new folder"
        )
    if (owner.run, owner.kind) != (run, kind):
        whose = "of this run" if owner.run == run else f"of another run ({owner.run[:12]})"
        raise ConfigFault(
            f"{place}: holds an export {whose} as {owner.kind}; boxes of two exports in one folder are read as one data set; name a new folder"
        )
    for name, digest in owner.files.items():
        if digest and (place / name).is_file() and _digest((place / name).read_bytes()) != digest:
            raise ConfigFault(
                f"{place / name}: was changed since it was exported, and exporting again would lose that; name a new folder"
            )
    return frozenset(owner.files)


def _owner(place: Path) -> _Owner | None:
    try:
        data = json.loads((place / OWNER).read_text(encoding="utf-8"))
        return _Owner(
            str(data["run"]),
            str(data["kind"]),
            {str(name): str(digest) for name, digest in data["files"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _staged(stage: Path, files: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Write the files and give their names, each with its SHA-256."""
    written: dict[str, str] = {}
    for name, body in files:
        path = stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # "x": two names that a file system takes for one (A.xml, a.xml) must not become one file.
            with path.open("xb") as sink:
                sink.write(body)
        except FileExistsError:
            raise ConfigFault(
                f"{name}: two images would be written to this name; export them with --to coco"
            ) from None
        written[name] = _digest(body)
    return written


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _replace(place: Path, stage: Path, owner: _Owner, before: frozenset[str]) -> None:
    """Put the staged files in place of those of an earlier export of the same run."""
    # Should this stop in between, the next export finds every file that either of the two wrote.
    both = _Owner(owner.run, owner.kind, dict.fromkeys({*owner.files, *before}, ""))
    (place / OWNER).write_text(both.text(), encoding="utf-8")
    root = place.resolve()
    for name in before - set(owner.files):
        # The list is a file that anybody may write: nothing outside of the folder is removed.
        if root in (old := root / name).resolve().parents:
            old.unlink(missing_ok=True)
    for name in owner.files:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).replace(place / name)
    (stage / OWNER).replace(place / OWNER)
