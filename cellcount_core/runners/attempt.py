"""One attempt at a shard, as every runner makes it: a receipt, or the death that the driver is told of."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from cellcount_core.domain.errors import Reason, RunFault
from cellcount_core.domain.fields import Shard
from cellcount_core.domain.receipts import Receipt
from cellcount_core.runners.pool import Death


def attempt(act: Callable[[Shard], Receipt], shard: Shard) -> Receipt | Death:
    """`act` on the shard. Raises RunFault; whatever else goes wrong is a fault of ours on one of its fields.

    It becomes text here, in the worker: an exception of a library need not survive the way to the driver.
    """
    try:
        return act(shard)
    except RunFault:
        raise
    # Nothing is swallowed: the driver isolates the field, and its row carries this line.
    except Exception as error:  # noqa: BLE001
        return Death(Reason.INTERNAL, last_line(error))


def last_line(error: BaseException) -> str:
    """ "ValueError: … (decode.py:31)": what happened and where, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}{where}"[:300]
