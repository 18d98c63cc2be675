"""Jobs for end-to-end tests: configure, run, and compare outputs byte by byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cellcount_core.cli.progress import Quiet
from cellcount_core.config import JobConfig
from cellcount_core.runners.job import JobResult, run_job


def job(source: Path | str, output: Path | str, **sections: object) -> JobConfig:
    """An ImageXpress job with the `threshold` package on the serial runner; `sections` are merged over that."""
    run: dict[str, object] = {"layout": {"kind": "imagexpress"}, "model": {"package": "threshold"}}
    execution: dict[str, object] = {"runner": "serial", "threads": 1, "shard_fields": 4}
    given_run, given_execution = sections.pop("run", {}), sections.pop("execution", {})
    assert isinstance(given_run, dict)
    assert isinstance(given_execution, dict)
    return JobConfig.model_validate(
        {
            "input": str(source),
            "output": str(output),
            "run": {**run, **given_run},
            "execution": {**execution, **given_execution},
            **sections,
        }
    )


def count(source: Path | str, output: Path | str, **sections: object) -> JobResult:
    """Run such a job."""
    return run_job(job(source, output, **sections), Quiet())


def rows(output: Path, table: str) -> pa.Table:
    """The rows of `fields` or `objects` in key order, without the metadata of single parts."""
    parts = sorted((output / table).glob("*.parquet"))
    return pa.concat_tables(
        [pq.read_table(part).replace_schema_metadata(None) for part in parts]
    ).combine_chunks()


def digest(output: Path) -> dict[str, str]:
    """What must be equal for equal fingerprints: rows of fields and objects, bytes of every merged table."""
    found = {}
    for table in ("fields", "objects"):
        # repr of a float is exact; buffers of a concatenated table are not comparable, as validity bitmaps may be left out.
        found[table] = hashlib.sha256(repr(rows(output, table).to_pylist()).encode()).hexdigest()
    for name in ("wells.parquet", "plates.parquet", "summary.json", "summary.csv"):
        found[name] = hashlib.sha256((output / name).read_bytes()).hexdigest()
    return found
