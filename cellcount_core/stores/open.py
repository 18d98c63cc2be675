"""Open the store of a path or URL, and compare places. The library of a scheme is loaded only when a URL of that scheme is opened."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cellcount_core.domain.errors import ConfigFault, likely
from cellcount_core.stores.base import USUAL_SCHEMES, StorageOptions, Store, checked_key
from cellcount_core.stores.local import open_local

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-:]*?)://(.*)$", re.DOTALL)
_SECRET_PARAMETER = re.compile(
    r"[?&][\w.\-]*(secret|token|password|passwd|signature|credential|key)[\w.\-]*=", re.I
)
_BUCKET = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._\-]{1,254}$")


def open_store(url: str | os.PathLike[str], options: StorageOptions) -> Store:
    """Return the store below `url`: a path, `file://`, `s3://bucket/prefix`, or another scheme that `options`
    allow and fsspec knows.

    Nothing is contacted yet. Raises ConfigFault if the scheme is not allowed, not known or its package is
    not installed; if the URL contains a user, password or signature; or if the bucket name is not a valid
    one.
    """
    text = os.fspath(url)
    if not text.strip():
        raise ConfigFault("the location is empty: expected a path or a URL such as 's3://bucket/prefix'")
    if (found := _SCHEME.match(text)) is None:
        refuse_one_slash(text)
        _refuse_scheme("file", options.schemes)
        return open_local(text)
    scheme, rest = found.group(1).lower(), found.group(2)
    _refuse_secrets(scheme, rest)
    _refuse_scheme(scheme, options.schemes)
    if scheme == "file":
        return open_local(_local_path(rest))
    if scheme == "s3":
        return _open_s3(rest, options)
    return _open_generic(scheme, text, options)


_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/([^/].*)", re.DOTALL)


def refuse_one_slash(text: str) -> None:
    """Raise ConfigFault for a URL that lacks a slash ("s3:/bucket"), unless there is a folder of such a name here."""
    found = _ONE_SLASH.fullmatch(text)
    if found is not None and not Path(f"{found[1]}:").exists():
        raise ConfigFault(f"{text!r}: a URL has two slashes: did you mean {f'{found[1]}://{found[2]}'!r}?")


def asked_for(url: str | os.PathLike[str], *, endpoint: str | None = None) -> StorageOptions:
    """Options for a place that a person typed at the command line or in a script: the scheme of `url` is
    allowed in addition to the usual ones.
    """
    found = _SCHEME.match(os.fspath(url))
    own = (found.group(1).lower(),) if found is not None else ()
    return StorageOptions(endpoint=endpoint, schemes=tuple(dict.fromkeys((*USUAL_SCHEMES, *own))))


def name_of(url: str) -> str:
    """Return the name of the folder, bucket or prefix at `url` (a URL as stores return it). For a link it is
    the name of the folder that the link leads to.

    Bytes that are not UTF-8 are shown as backslash escapes. The top of a file system has no name and is
    called "root".
    """
    path = url.partition("://")[2] if _SCHEME.match(url) else os.path.realpath(url)
    name = path.rstrip("/").rpartition("/")[2]
    return name.encode("utf-8", "backslashreplace").decode("utf-8") or "root"


def real_url(url: str) -> str:
    """Return `url` (as stores return it) with links and ".." resolved, so that a place has one name however it is reached."""
    return url if _SCHEME.match(url) else os.path.realpath(url)


def path_below(root: str, place: str) -> str | None:
    """Return the path of `place` below `root` ('/'-separated), "" if they are the same place, None if `place`
    lies elsewhere.

    Both are URLs as stores return them. Folders are compared by identity, not by spelling, so links, "..",
    relative paths and bind mounts make no difference. A place that does not exist yet is where it would be
    created.
    """
    if _SCHEME.match(root) or _SCHEME.match(place):
        return _below(place.rstrip("/"), lambda above: above == root.rstrip("/"))
    try:
        there = Path(root).stat()
    except OSError:
        return _below(os.path.realpath(place), lambda above: above == os.path.realpath(root))

    def is_root(above: str) -> bool:
        try:
            return os.path.samestat(Path(above).stat(), there)
        except OSError:
            return False

    found = _below(os.path.realpath(place), is_root)
    # A link inside the root may lead out of it: what stands behind it is listed below the root all the same.
    return found if found is not None else _below(open_local(place).url, is_root)


def _below(place: str, is_root: Callable[[str], bool]) -> str | None:
    above, names = place, list[str]()
    while not is_root(above):
        parent, slash, name = above.rpartition("/")
        if not slash:
            return None
        if name in ("", ".."):
            return None
        names.append(name)
        above = parent or "/"
    return "/".join(reversed(names))


def _refuse_scheme(scheme: str, allowed: Sequence[str]) -> None:
    if scheme in allowed:
        return
    listed = ", ".join(allowed)
    raise ConfigFault(
        f"{scheme + '://'!r} is not among storage.schemes, which allow {listed}{likely(scheme, allowed)}; "
        f"to read or write there: --set 'storage.schemes=[{listed}, {scheme}]'"
    )


def _refuse_secrets(scheme: str, rest: str) -> None:
    if "@" in rest.split("/", 1)[0] or _SECRET_PARAMETER.search(rest):
        raise ConfigFault(
            f"the {scheme}:// URL carries a user, password, key or signature; leave it out, credentials come from "
            "the environment, ~/.aws or the machine's role"
        )


def _local_path(rest: str) -> str:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise ConfigFault(f"'file://{rest}' names the host {host!r}; did you mean 'file:///{rest}'?")
    return slash + path


def _open_s3(rest: str, options: StorageOptions) -> Store:
    bucket, _, prefix = rest.partition("/")
    if not _BUCKET.match(bucket):
        raise ConfigFault(f"'s3://{rest}' must be like 's3://bucket/prefix' (got the bucket {bucket!r})")
    prefix = prefix.strip("/")
    from cellcount_core.stores.s3 import S3Store

    return S3Store(bucket, checked_key(prefix) if prefix else "", options)


def _open_generic(scheme: str, url: str, options: StorageOptions) -> Store:
    from cellcount_core.stores.generic import GenericStore, known_schemes

    if scheme not in known_schemes():
        raise ConfigFault(f"{url!r}: no store is known for {scheme + '://'!r}")
    return GenericStore(url, options)
