"""For each reason a run has fields without a count for, what was said of the first such field."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from cellcount_core.reduce.ledger import fields_parts, read_run
from cellcount_core.stores.base import Store

_PARTS = 256
"""Parts looked through at most: an example is a help to the reader, no result."""


def first_details(store: Store, reasons: Collection[str]) -> dict[str, str]:
    """`reason_detail` of the first field of each of `reasons`, without the reason's code; those not found are left out.

    Raises OutputFault or LedgerFault as a reduction does.
    """
    found: dict[str, str] = {}
    if not reasons:
        return found
    for part in islice(fields_parts(store, read_run(store)), _PARTS):
        for row in part.table.select(["reason", "reason_detail"]).to_pylist():
            reason, detail = row["reason"], row["reason_detail"]
            if reason in reasons and reason not in found and detail:
                found[reason] = str(detail).removesuffix(f" [{reason}]")
        if len(found) == len(reasons):
            break
    return found
