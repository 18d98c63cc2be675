"""Write a model package: the manifest last, with the digest of every file beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from cellcount_core.models.manifest import (
    MANIFEST,
    manifest_data,
    manifest_text,
    parse_manifest,
    read_manifest,
)
from cellcount_core.models.package import Package, load_package


def read_for_writing(folder: Path) -> dict[str, object]:
    """The manifest of a package as `write_package` takes it: plain data of the present format, without "files"."""
    data = manifest_data(read_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST)))
    del data["files"]
    return data


def write_package(folder: Path, manifest: Mapping[str, object]) -> Package:
    """Write `package.json` into `folder`, listing every other file there, and load the package.

    `manifest` is the content without "files", of any format that is read; it is written in the present one. Raises ModelFault if the
    result is not a valid package.
    """
    files = {
        path.name: "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in (MANIFEST, "README.md")
    }
    whole = parse_manifest({**manifest, "files": files}, str(folder / MANIFEST))
    (folder / MANIFEST).write_text(manifest_text(whole), encoding="utf-8")
    return load_package(folder)
