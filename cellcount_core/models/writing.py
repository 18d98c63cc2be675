"""Write a model package: the manifest last, with the digest of every file beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from cellcount_core.models.package import MANIFEST, Package, load_package


def write_package(folder: Path, manifest: Mapping[str, object]) -> Package:
    """Write `package.json` into `folder`, listing every other file there, and load the package.

    `manifest` is the content without "files". Raises ModelFault where the result is not a valid package.
    """
    files = {
        path.name: "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in (MANIFEST, "README.md")
    }
    text = json.dumps({**manifest, "files": files}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return load_package(folder)
