"""The plain table `index,count` that scripts of one image stack use."""

from __future__ import annotations

from cellcount_core.reduce.ledger import fields_parts, read_run
from cellcount_core.stores.base import Store


def index_count_csv(store: Store) -> str:
    """Two columns `index,count`, a row a field in key order, `index` from 0.

    For one stack of images the index is that of the image in the stack. The count of a field that could not be counted is
    empty, never 0; why it is stands in the fields table.

    Raises OutputFault where `store` is no output, LedgerFault where a shard is not counted yet.
    """
    lines = ["index,count"]
    for part in fields_parts(store, read_run(store)):
        for count in part.table.column("count").to_pylist():
            lines.append(f"{len(lines) - 1},{'' if count is None else count}")
    return "\n".join(lines) + "\n"
