"""What stops a run before its end: more failed fields than are accepted, or a request to stop (Ctrl-C,
SIGTERM), which becomes a fault that says how to go on.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cellcount_core.config import accepted_failures
from cellcount_core.domain.columns import PLATE, SITE, TIMEPOINT, WELL
from cellcount_core.domain.errors import BudgetFault, Interrupted, LedgerFault, Reason, Status
from cellcount_core.domain.fields import FieldKey, Receipt, Shard
from cellcount_core.output.parts import fields_key, read_fields_part
from cellcount_core.runners.events import Events, PassedOn, Progress
from cellcount_core.stores.base import Absent, Denied, Store

_AHEAD = 8
_BAD = {Status.FAILED, Status.MISSING}
_NAMED = 3


class Budget(PassedOn):
    """Passes events on, and raises BudgetFault when more fields failed or are missing than `max_failed`
    accepts of `fields`.

    It counts the fields of `committed` shards, read once from their parts; the fields of the shards `left`
    that the plan already knows cannot be counted; and the fields of each receipt. If only the last shard
    exceeds the budget the run is not stopped, because its tables are nearly complete.
    """

    def __init__(
        self,
        events: Events,
        output: Store,
        max_failed: int | str,
        fields: int,
        committed: Iterable[int],
        left: Iterable[Shard],
    ) -> None:
        super().__init__(events)
        self._output = output
        self._max_failed = max_failed
        self._fields = fields
        self._done = 0
        self._reasons: Counter[str] = Counter()
        self._shard_of: dict[str, int] = {}
        self._planned: dict[int, Counter[str]] = {}
        self._examples: dict[str, str] = {}
        self._read(sorted(committed))
        self._expect(left)

    def judge(self) -> None:
        """Raise BudgetFault if the budget is exceeded and there are shards left to count."""
        bad = self._reasons.total()
        if bad > accepted_failures(self._max_failed, self._fields) and self._done < self._fields:
            raise BudgetFault("\n".join(self._words(bad)))

    def receipt(self, receipt: Receipt, progress: Progress) -> None:
        """Passed on; then the budget is checked."""
        super().receipt(receipt, progress)
        self._reasons -= self._planned.pop(receipt.shard, Counter())
        self._add(receipt.shard, receipt.reasons)
        self._done += sum(receipt.statuses.values())
        self.judge()

    def _read(self, committed: list[int]) -> None:
        for number, (key, body) in zip(
            committed,
            self._output.get_many([fields_key(number) for number in committed], ahead=_AHEAD),
            strict=True,
        ):
            if not isinstance(body, bytes):
                continue
            try:
                reasons = read_fields_part(key, body).table.column("reason").to_pylist()
            except LedgerFault:
                # The reduction says what is wrong with it.
                continue
            self._add(number, Counter(reason for reason in reasons if reason is not None))
            self._done += len(reasons)

    def _expect(self, left: Iterable[Shard]) -> None:
        for shard in left:
            bad = [
                field for field in shard.fields if field.reason is not None and field.reason.status in _BAD
            ]
            if bad:
                self._planned[shard.number] = Counter(
                    field.reason.value for field in bad if field.reason is not None
                )
                self._reasons += self._planned[shard.number]
            for field in bad:
                if field.reason is not None and field.detail:
                    self._examples.setdefault(field.reason.value, f"{_named(field.key)}: {field.detail}")

    def _add(self, shard: int, reasons: dict[str, int]) -> None:
        for reason, fields in reasons.items():
            if Reason(reason).status in _BAD:
                self._reasons[reason] += fields
                self._shard_of.setdefault(reason, shard)

    def _words(self, bad: int) -> list[str]:
        accepted = accepted_failures(self._max_failed, self._fields)
        share = f", {accepted} of {self._fields}" if isinstance(self._max_failed, str) else ""
        lines = [
            f"stopped early: {bad} of {self._fields} fields failed or are missing, --max-failed is {self._max_failed}{share}; "
            f"{self._done} fields are done and stay"
        ]
        ordered = sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))
        for code, fields in ordered[:_NAMED]:
            lines.append(f"  {fields:>6} {Reason(code).status.value}: {code}. {Reason(code).sentence}")
            example = self._example(code)
            lines += [f"         {'for example ' if fields > 1 else ''}{example}"] if example else []
        if len(ordered) > _NAMED:
            lines.append(
                f"  {sum(fields for _, fields in ordered[_NAMED:]):>6} of {len(ordered) - _NAMED} other reasons"
            )
        return [
            *lines,
            "the same command with a larger --max-failed, or with none, goes on where this one stopped",
        ]

    def _example(self, code: str) -> str:
        """What one field with this reason said, from the plan or from a committed row."""
        if code in self._examples or code not in self._shard_of:
            return self._examples.get(code, "")
        key = fields_key(self._shard_of[code])
        try:
            table = read_fields_part(key, self._output.get(key)).table
        except (Absent, Denied, LedgerFault):
            return ""
        names = [PLATE.name, WELL.name, SITE.name, TIMEPOINT.name]
        for row in table.to_pylist():
            if row["reason"] == code:
                detail = str(row["reason_detail"] or "").removesuffix(f" [{code}]")
                return f"{_named(FieldKey(*(row[name] for name in names)))}: {detail}"
        return ""


def _named(key: FieldKey) -> str:
    return f"plate {key.plate}, well {key.well}, site {key.site}, time point {key.timepoint}"


@contextmanager
def interruptible(words: str) -> Iterator[None]:
    """Turn Ctrl-C, and SIGTERM (from a scheduler or `ray job stop`), into Interrupted(words).

    SIGTERM is handled in the main thread only, and only if the program has no handler of its own; an outer
    `interruptible` keeps it.
    """
    main = threading.current_thread() is threading.main_thread()
    ours = main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(words) from None
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
