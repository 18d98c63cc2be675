"""An output folder opened for reading: `cellcount_core.open("out")`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as ds

from cellcount_core.domain.errors import NoRunFault
from cellcount_core.stores.base import Absent, StorageOptions, Store
from cellcount_core.stores.open import asked_for, open_store
from cellcount_core.tables.filesystem import store_filesystem
from cellcount_core.tables.parts import FIELDS, OBJECTS
from cellcount_core.tables.runfile import RUN_KEY
from cellcount_core.tables.schema import read_table_bytes


@dataclass(frozen=True, slots=True)
class Output:
    """The tables of a run. Nothing is read before a table is asked for; what is read is not kept."""

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
    def run(self) -> dict[str, object]:
        """The content of run.json: configuration, fingerprint, model, versions."""
        run: dict[str, object] = json.loads(self._file(RUN_KEY))
        return run

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


def open_output(url: str | os.PathLike[str], options: StorageOptions | None = None) -> Output:
    """Open the output folder or `s3://` prefix of a run.

    Raises NoRunFault where there is no run, ConfigFault where `url` names no place.
    """
    store = open_store(url, options or asked_for(url))
    if store.size_of(RUN_KEY) is None:
        raise NoRunFault(f"{store.url}: is not the output of a run: {RUN_KEY} is not there")
    return Output(store)
