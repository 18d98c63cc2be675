"""An output folder opened for reading: `cellcount_core.open("out")`."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType, PyFileSystem

from cellcount_core.domain.doubts import DoubtfulCount
from cellcount_core.domain.errors import ConfigFault, LedgerFault, NoRunFault, nearest
from cellcount_core.domain.fields import Source
from cellcount_core.output.labels import label_key
from cellcount_core.output.parts import FIELDS, OBJECTS, committed_parts
from cellcount_core.output.planfile import read_shards
from cellcount_core.output.run_folder import load_plan
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
    """The output of a run, opened for reading. Nothing is read until it is asked for, and nothing that was read is kept.

    `fields` and `objects` are Arrow datasets over the parts and may be larger than memory. `wells` and `plates` are Arrow tables. `summary`
    is the content of summary.json, `run` that of run/run.json. The metadata of every table holds its units and meanings. `to_pandas` and
    `to_polars` give a whole table as a data frame, if that library is installed.
    """

    store: Store

    @property
    def fields(self) -> ds.Dataset:
        """One row for each field: a pyarrow dataset over the parts in key order.

        Warns (DoubtfulCount) of a run that is not finished. Raises NoRunFault if there is no part yet, LedgerFault (ValueError) if
        parts of a finished run are gone.
        """
        return self._parts(FIELDS)

    @property
    def objects(self) -> ds.Dataset:
        """One row for each object: a pyarrow dataset over the parts in key order.

        Warns (DoubtfulCount) of a run that is not finished. Raises NoRunFault if there is no part yet, LedgerFault (ValueError) if
        parts of a finished run are gone.
        """
        return self._parts(OBJECTS)

    @property
    def wells(self) -> pa.Table:
        """One row for each well and time point. Raises NoRunFault if the run is not reduced yet."""
        return read_table_bytes("wells.parquet", self._file("wells.parquet"))

    @property
    def plates(self) -> pa.Table:
        """One row for each plate. Raises NoRunFault if the run is not reduced yet."""
        return read_table_bytes("plates.parquet", self._file("plates.parquet"))

    @property
    def summary(self) -> dict[str, object]:
        """The content of summary.json. Raises NoRunFault if the run is not reduced yet."""
        summary: dict[str, object] = json.loads(self._file("summary.json"))
        return summary

    @property
    def run(self) -> RunFile:
        """The content of run.json: settings, fingerprint, model, schema and versions. Raises NoRunFault if it is not there."""
        return read_run(self.store)

    def to_pandas(self, table: OutputTable) -> pandas.DataFrame:
        """A whole table as a pandas data frame. Raises MissingLibrary if pandas is not installed, ConfigFault if there is no such table."""
        _needs("pandas", table)
        return self._table(table).to_pandas()

    def to_polars(self, table: OutputTable) -> polars.DataFrame:
        """A whole table as a polars data frame. Raises MissingLibrary if polars is not installed, ConfigFault if there is no such table."""
        _needs("polars", table)
        import polars

        return polars.DataFrame(polars.from_arrow(self._table(table)))

    def label_image(self, key: str, index: int = -1) -> NDArray[np.integer]:
        """The label image (H, W) of a field: 0 for the background, 1 to n for its objects.

        `key` is the first file that was counted for the field; `index` is the image in it, from 0, if it is an array file.
        Raises NoRunFault if there is none: only runs with `run.labels` "tiff" write them.
        """
        import tifffile

        image: NDArray[np.integer] = tifffile.imread(
            io.BytesIO(self._file(label_key(Source("", 0, key, index))))
        )
        return image

    def _table(self, table: OutputTable) -> pa.Table:
        if table in ("fields", "objects"):
            return self._parts(table).to_table(use_threads=False)
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

    def fields_so_far(self) -> ds.Dataset:
        """`fields` of a run that is known not to be finished: the parts that are committed, without a warning."""
        return self._dataset(self._part_keys(FIELDS))

    def _parts(self, folder: str) -> ds.Dataset:
        keys = self._part_keys(folder)
        self._check_parts(folder, len(keys))
        return self._dataset(keys)

    def _part_keys(self, folder: str) -> list[str]:
        return sorted(
            listed.key
            for batch in self.store.list(folder)
            for listed in batch
            if listed.key.endswith(".parquet")
        )

    def _dataset(self, keys: list[str]) -> ds.Dataset:
        return ds.dataset(keys, format="parquet", filesystem=store_filesystem(self.store))

    def _check_parts(self, folder: str, parts: int) -> None:
        """Warn (DoubtfulCount) of a run that is not finished. Raises NoRunFault where there is no part, LedgerFault if parts of a
        finished run are gone."""
        store, planned = self.store, self.run.numbers.shards
        finished = store.size_of("summary.json") is not None
        if parts < planned and finished:
            raise LedgerFault(
                f"{store.url}: the run was finished, but {folder}/ holds {parts} of its {planned} parts: what it counted is not all here. "
                "`cellcount verify` names what is missing; the command that counted it counts that again"
            )
        if not parts:
            raise NoRunFault(f"{store.url}: {folder}/ holds no part yet")
        if parts < planned:
            warnings.warn(
                f"{store.url}: the run is not finished: {self._counted_so_far()} are counted, and the tables hold those alone",
                DoubtfulCount,
                stacklevel=4,
            )

    def _counted_so_far(self) -> str:
        """ "9 of 12 fields": by the plan, since the parts may be large."""
        run, done = self.run, committed_parts(self.store)
        shards = read_shards(load_plan(self.store, run))
        fields = sum(len(shard.fields) for shard in shards if shard.number in done)
        return f"{fields} of {run.numbers.fields} {run.noun}s"


class MissingLibrary(ConfigFault, ImportError):
    """What was asked for needs a library that is not installed."""


def _needs(library: str, table: str) -> None:
    if find_spec(library) is None:
        raise MissingLibrary(
            f"{library} is not installed here (pip install {library}); without it `{table}` is an Arrow table or dataset"
        )


def open_output(
    url: str | os.PathLike[str], options: StorageOptions | None = None, *, endpoint: str | None = None
) -> Output:
    """Open the output folder or `s3://` prefix of a run.

    `endpoint` is the URL of an S3 service other than AWS; `options` holds everything that can be said of a store.
    Raises NoRunFault (FileNotFoundError) if there is no run or its run.json is damaged or of a later version, ConfigFault (ValueError) if `url` is not a place, CredentialsFault
    (PermissionError) if it may not be read.

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
    read_run(store)
    return Output(store)


def store_filesystem(store: Store) -> PyFileSystem:
    """The store as a file system of pyarrow: its objects are files, paths are its keys.

    It is read-only, and pyarrow's datasets read through it with the credentials of the store. A file is read whole when it is opened, because
    parts are a few MB and stores are best at one request.
    """
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
