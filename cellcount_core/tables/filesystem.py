"""A store as a file system of pyarrow, so that its datasets read from every store that cellcount knows, with the same credentials.

Read-only. A file is read whole when it is opened: parts are a few MB, and one request is what a store is best at.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType, PyFileSystem

from cellcount_core.stores.base import Absent, Store


def store_filesystem(store: Store) -> PyFileSystem:
    """The store's objects as files; paths are its keys."""
    return PyFileSystem(_StoreHandler(store))


class _StoreHandler(FileSystemHandler):  # type: ignore[misc]
    """What pyarrow asks of a file system, answered by a store. Everything that writes is refused."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _StoreHandler) and self.store.url == other.store.url

    def __hash__(self) -> int:
        return hash(self.store.url)

    def get_type_name(self) -> str:
        return "cellcount-store"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> FileInfo:
        size = self.store.size_of(path)
        return FileInfo(path, FileType.NotFound) if size is None else FileInfo(path, FileType.File, size=size)

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        return [
            FileInfo(listed.key, FileType.File, size=listed.size)
            for batch in self.store.list(selector.base_dir)
            for listed in batch
        ]

    def open_input_file(self, path: str) -> pa.NativeFile:
        try:
            return pa.BufferReader(self.store.get(path))
        except Absent as error:
            raise FileNotFoundError(path) from error

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._refuse(path)

    def delete_dir(self, path: str) -> None:
        self._refuse(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._refuse(path)

    def delete_root_dir_contents(self) -> None:
        self._refuse("")

    def delete_file(self, path: str) -> None:
        self._refuse(path)

    def move(self, src: str, dest: str) -> None:
        self._refuse(src)

    def copy_file(self, src: str, dest: str) -> None:
        self._refuse(src)

    def open_output_stream(self, path: str, metadata: object) -> pa.NativeFile:
        self._refuse(path)

    def open_append_stream(self, path: str, metadata: object) -> pa.NativeFile:
        self._refuse(path)

    def _refuse(self, path: str) -> None:
        raise PermissionError(f"{self.store.url}/{path}: an output is read here, not written")
