"""An output folder opened for reading: `cellcount_core.open("out")`."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType, PyFileSystem

from cellcount_core.domain.errors import ConfigFault, NoRunFault, nearest
from cellcount_core.domain.fields import Source
from cellcount_core.output.labels import label_key
from cellcount_core.output.parts import FIELDS, OBJECTS
from cellcount_core.output.runfile import RUN_KEY, RunFile, read_run
from cellcount_core.output.schema import read_table_bytes
from cellcount_core.stores.base import Absent, StorageOptions, Store
from cellcount_core.stores.open import asked_for, open_store

if TYPE_CHECKING:
    import numpy as np
    import pandas
    import polars
    from numpy.typing import NDArray


OutputTable = Literal["fields", "objects", "wells", "plates"]


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a run, opened for reading. Nothing is read before it is asked for; what is read is not kept.

    `fields` and `objects` are Arrow datasets over the parts, which may be larger than memory; `wells` and `plates` are Arrow
    tables; `summary` and `run` hold what summary.json and run/run.json say. Every table has its units and meanings in its
    metadata. `to_pandas` and `to_polars` give a whole table as a data frame, where that library is installed.
    """

    store: Store

    @property
    def fields(self) -> ds.Dataset:
        """One row a field, as a pyarrow dataset over the parts in key order. Raises NoRunFault where there is no part."""
        return self._parts(FIELDS)

    @property
    def objects(self) -> ds.Dataset:
        """One row an object, as a pyarrow dataset over the parts in key order. Raises NoRunFault where there is no part."""
        return self._parts(OBJECTS)

    @property
    def wells(self) -> pa.Table:
        """One row a well and time point. Raises NoRunFault before the run was reduced."""
        return read_table_bytes("wells.parquet", self._file("wells.parquet"))

    @property
    def plates(self) -> pa.Table:
        """One row a plate. Raises NoRunFault before the run was reduced."""
        return read_table_bytes("plates.parquet", self._file("plates.parquet"))

    @property
    def summary(self) -> dict[str, object]:
        """The content of summary.json. Raises NoRunFault before the run was reduced."""
        summary: dict[str, object] = json.loads(self._file("summary.json"))
        return summary

    @property
    def run(self) -> RunFile:
        """The content of run.json: configuration, fingerprint, model, versions."""
        return read_run(self.store)

    def to_pandas(self, table: OutputTable) -> pandas.DataFrame:
        """One of the tables, whole, as a pandas data frame. Raises MissingLibrary where pandas is not installed."""
        _needs("pandas", table)
        return self._table(table).to_pandas()

    def to_polars(self, table: OutputTable) -> polars.DataFrame:
        """One of the tables, whole, as a polars data frame. Raises MissingLibrary where polars is not installed."""
        _needs("polars", table)
        import polars

        return polars.DataFrame(polars.from_arrow(self._table(table)))

    def label_image(self, key: str, index: int = -1) -> NDArray[np.integer]:
        """The label image (H, W) of the field whose first counted file is `key` (of an array file, its image `index`, from 0): 0
        for the background, 1 to n for its objects.

        Raises NoRunFault where there is none: `run.labels` is "tiff" in runs that write them.
        """
        import tifffile

        image: NDArray[np.integer] = tifffile.imread(
            io.BytesIO(self._file(label_key(Source("", 0, key, index))))
        )
        return image

    def _table(self, table: OutputTable) -> pa.Table:
        if table in ("fields", "objects"):
            return self._parts(table).to_table()
        if table in ("wells", "plates"):
            return read_table_bytes(f"{table}.parquet", self._file(f"{table}.parquet"))
        raise ConfigFault(f"no table {table!r}{nearest(table, get_args(OutputTable))}")

    def _file(self, key: str) -> bytes:
        try:
            return self.store.get(key)
        except Absent as error:
            raise NoRunFault(
                f"{self.store.url}: {key} is not there; `cellcount count` writes it at its end, `cellcount reduce` again"
            ) from error

    def _parts(self, folder: str) -> ds.Dataset:
        keys = sorted(
            listed.key
            for batch in self.store.list(folder)
            for listed in batch
            if listed.key.endswith(".parquet")
        )
        if not keys:
            raise NoRunFault(f"{self.store.url}: {folder}/ holds no part yet")
        return ds.dataset(keys, format="parquet", filesystem=store_filesystem(self.store))


class MissingLibrary(ConfigFault, ImportError):
    """A library that is not installed is needed for what was asked."""


def _needs(library: str, table: str) -> None:
    if find_spec(library) is None:
        raise MissingLibrary(
            f"{library} is not installed here (pip install {library}); without it `{table}` is an Arrow table or dataset"
        )


def open_output(
    url: str | os.PathLike[str], options: StorageOptions | None = None, *, endpoint: str | None = None
) -> Output:
    """Open the output folder or `s3://` prefix of a run. `endpoint` is the URL of an S3 service other than AWS, `options` all that
    is to be said of a store.

    Raises NoRunFault (FileNotFoundError) where there is no run, ConfigFault (ValueError) where `url` names no place,
    CredentialsFault (PermissionError) where it may not be read.

    >>> import cellcount_core as cc
    >>> done = cc.run(cc.made_up_plate("plate", wells=2), "counts", layout="imagexpress", channel="w1")
    >>> out = open_output("counts")
    >>> out.fields.count_rows()
    4
    >>> out.wells.column("Metadata_Well").to_pylist()
    ['A01', 'A02']
    """
    store = open_store(url, options or asked_for(url, endpoint=endpoint))
    if store.size_of(RUN_KEY) is None:
        raise NoRunFault(f"{store.url}: is not the output of a run: {RUN_KEY} is not there")
    return Output(store)


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
