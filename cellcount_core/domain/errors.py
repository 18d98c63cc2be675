"""Reason codes, exit codes and the exception tree.

Every fault is also the builtin exception that a Python caller expects, so that `except FileNotFoundError` works without a
name of ours::

    CellcountError
    ├── FieldFault            one field could not be counted: becomes a row of the fields table (the builtin of its reason)
    └── RunFault              the run stops with one message and an exit code
        ├── ConfigFault       configuration, plan or input that cannot be run (ValueError)
        │   └── NoInputFault  the input is not there (FileNotFoundError)
        ├── StorageFault      store unreachable, throttled for good, disk full (OSError)
        ├── CredentialsFault  no credentials, or refused ones (PermissionError)
        ├── OutputFault       the output folder belongs to another run or cannot be written (OSError)
        │   ├── NoRunFault    no run stands there (FileNotFoundError)
        │   └── BusyFault     another run is at work on the output, or took it over
        ├── ModelFault        a package that cannot be loaded or fails its golden tensors (ValueError)
        ├── LedgerFault       `verify` found a row too many, too few or changed (ValueError)
        ├── BudgetFault       more fields failed or are missing than the user accepts: stopped early (RuntimeError)
        └── Interrupted       stopped on request; the same command goes on (no builtin)
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Self, cast

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitCode(IntEnum):
    """What the exit status of a command means; docs/reference/exit-codes.md lists them."""

    OK = 0
    INTERNAL = 1
    CONFIG = 2
    FAILURES = 3
    STORAGE = 4
    CREDENTIALS = 5
    OUTPUT = 6
    MODEL = 7
    LEDGER = 8
    BUSY = 9
    DOUBTS = 10
    NOTHING = 11
    INTERRUPTED = 75


class Status(StrEnum):
    """What became of one expected field."""

    OK = "ok"
    FAILED = "failed"
    MISSING = "missing"
    SKIPPED = "skipped"


class Remedy(StrEnum):
    """What can be done about a field that was not counted.

    RETRY: try the same file once more (`cellcount retry`). UPDATE: put another file in its place (`cellcount count --update`). REMOVE: take
    one of two files away, then update. SETTINGS: count with other settings, into another output.
    """

    RETRY = "retry"
    UPDATE = "update"
    REMOVE = "remove"
    SETTINGS = "settings"


_AGAIN, _FILE, _SETTINGS = (Remedy.RETRY,), (Remedy.UPDATE,), (Remedy.SETTINGS,)


@dataclass(frozen=True, slots=True)
class ReasonInfo:
    """The status a reason leads to, the sentence that a user reads, what can be done about it, and the builtin exception that a
    FieldFault with this reason also is.
    """

    status: Status
    sentence: str
    remedies: tuple[Remedy, ...] = _FILE
    builtin: type[Exception] = ValueError


class Reason(StrEnum):
    """Why a field has no count. The value stands in the table's `reason` column."""

    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED = "unsupported_encoding"
    TOO_MANY_PIXELS = "too_many_pixels"
    WRONG_DTYPE = "wrong_dtype"
    WRONG_SHAPE = "wrong_shape"
    CHANNEL_MISSING = "channel_missing"
    CHANNEL_UNKNOWN = "channel_unknown"
    AMBIGUOUS_FILE = "ambiguous_file"
    NON_FINITE = "non_finite"
    ABSENT = "absent"
    CHANGED = "changed"
    ACCESS_DENIED = "access_denied"
    PART_OF_SET = "part_of_set"
    NOT_ACQUIRED = "not_acquired"
    TOO_LARGE_OBJECTS = "objects_too_large"
    NO_PIXEL_SIZE = "no_pixel_size"
    WORKER_DIED = "worker_died"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL = "internal_error"

    @property
    def info(self) -> ReasonInfo:
        """Status and sentence of this reason."""
        return _INFO[self]

    @property
    def status(self) -> Status:
        """The status of a field with this reason."""
        return _INFO[self].status

    @property
    def sentence(self) -> str:
        """One sentence for the user."""
        return _INFO[self].sentence

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """What can be done about it."""
        return _INFO[self].remedies

    @property
    def builtin(self) -> type[Exception]:
        """The builtin exception that a FieldFault of this reason also is."""
        return _INFO[self].builtin


_INFO: dict[Reason, ReasonInfo] = {
    Reason.UNREADABLE: ReasonInfo(Status.FAILED, "The file was read but could not be decoded."),
    Reason.TRUNCATED: ReasonInfo(
        Status.FAILED, "The file ends before its image does: an unfinished copy or upload."
    ),
    Reason.EMPTY_FILE: ReasonInfo(Status.FAILED, "The file has no bytes."),
    Reason.NOT_AN_IMAGE: ReasonInfo(Status.FAILED, "The bytes are not those of any image format known here."),
    Reason.UNSUPPORTED: ReasonInfo(Status.FAILED, "The image uses an encoding that is not supported."),
    Reason.TOO_MANY_PIXELS: ReasonInfo(
        Status.FAILED,
        "The image has, or would be enlarged to, more pixels than run.max_pixels allows.",
        _SETTINGS,
    ),
    Reason.WRONG_DTYPE: ReasonInfo(
        Status.FAILED, "The pixel type, or the size of its values, is not one that can be counted."
    ),
    Reason.WRONG_SHAPE: ReasonInfo(
        Status.FAILED, "The image's axes or size are not what was expected.", (*_SETTINGS, *_FILE)
    ),
    Reason.CHANNEL_MISSING: ReasonInfo(
        Status.MISSING,
        "The channel to count has no file in this field.",
        (*_SETTINGS, *_FILE),
        FileNotFoundError,
    ),
    Reason.CHANNEL_UNKNOWN: ReasonInfo(
        Status.FAILED,
        "The file holds no channel of the name asked for, or several where none was asked for.",
        _SETTINGS,
    ),
    Reason.AMBIGUOUS_FILE: ReasonInfo(
        Status.FAILED, "Two files claim the same field, channel and plane.", (Remedy.REMOVE,)
    ),
    Reason.NON_FINITE: ReasonInfo(Status.FAILED, "The image holds NaN or infinite pixels."),
    Reason.ABSENT: ReasonInfo(
        Status.MISSING, "The file is expected but is not there.", builtin=FileNotFoundError
    ),
    Reason.CHANGED: ReasonInfo(Status.FAILED, "The file changed since the run was planned."),
    Reason.ACCESS_DENIED: ReasonInfo(
        Status.FAILED, "The store refuses to give this one file.", _AGAIN, PermissionError
    ),
    Reason.PART_OF_SET: ReasonInfo(
        Status.SKIPPED,
        "The file holds other channels or planes of an image of several files, which is counted in the row of the file with the first plane.",
        (),
    ),
    Reason.NOT_ACQUIRED: ReasonInfo(
        Status.SKIPPED,
        "The instrument did not image this well in a channel that is counted, by its metadata.",
        (),
    ),
    Reason.TOO_LARGE_OBJECTS: ReasonInfo(
        Status.FAILED, "Objects are larger than the largest block they could be separated in.", _SETTINGS
    ),
    Reason.NO_PIXEL_SIZE: ReasonInfo(
        Status.FAILED, "A gate is given in µm, and the image has no pixel size.", _SETTINGS
    ),
    Reason.WORKER_DIED: ReasonInfo(
        Status.FAILED,
        "The process that counted this field died each time it was tried.",
        _AGAIN,
        RuntimeError,
    ),
    Reason.TIMED_OUT: ReasonInfo(
        Status.FAILED, "Counting this field took longer than execution.shard_timeout_s.", _AGAIN, TimeoutError
    ),
    Reason.OUT_OF_MEMORY: ReasonInfo(
        Status.FAILED, "The field did not fit into memory, even alone.", _AGAIN, MemoryError
    ),
    Reason.INTERNAL: ReasonInfo(
        Status.FAILED, "cellcount itself failed on this field; please report it.", _AGAIN, RuntimeError
    ),
}


class CellcountError(Exception):
    """Base of every exception that this package raises on purpose."""


class FieldFault(CellcountError):
    """One field could not be counted. It is also the builtin exception of its reason (`Reason.builtin`).

    Attributes: `reason` (the code), `detail` (what was found and what was expected), `key` (file, or "").

    >>> isinstance(FieldFault(Reason.ABSENT, "was there yesterday", "A01.tif"), FileNotFoundError)
    True
    """

    def __new__(cls, reason: Reason, detail: str, key: str = "") -> Self:
        kind = cls if issubclass(cls, reason.builtin) else _FAULTS[reason.builtin]
        # An OSError is laid out differently, and can only be made by its own.
        return cast("Self", (OSError if issubclass(kind, OSError) else Exception).__new__(kind))

    def __init__(self, reason: Reason, detail: str, key: str = "") -> None:
        super().__init__()
        self.args = (reason, detail, key)
        self.reason = reason
        self.detail = detail
        self.key = key

    def __reduce__(self) -> tuple[type[FieldFault], tuple[Reason, str, str]]:
        # The class that is found by its name makes the others.
        return FieldFault, (self.reason, self.detail, self.key)

    def __str__(self) -> str:
        where = f"{self.key}: " if self.key else ""
        return f"{where}{self.detail} [{self.reason.value}]"


def _also(builtin: type[Exception]) -> type[FieldFault]:
    """FieldFaults that are that builtin too."""
    return type("FieldFault", (FieldFault, builtin), {"__module__": __name__, "__doc__": FieldFault.__doc__})


_FAULTS = {builtin: _also(builtin) for builtin in {info.builtin for info in _INFO.values()}}


class RunFault(CellcountError):
    """The run stops with this message. `exit_code` says what kind of fault it is; `warnings` are those of its plan, if one was made."""

    exit_code: ExitCode = ExitCode.INTERNAL
    warnings: tuple[str, ...] = ()


class ConfigFault(RunFault, ValueError):
    """Settings, input or plan that cannot be run."""

    exit_code = ExitCode.CONFIG


class NoInputFault(ConfigFault, FileNotFoundError):
    """The input is not there."""


class StorageFault(RunFault, OSError):
    """The store cannot be reached, keeps throttling, or is full. Nothing is known about single files."""

    exit_code = ExitCode.STORAGE


class CredentialsFault(RunFault, PermissionError):
    """No credentials were found, or the store refuses those that were."""

    exit_code = ExitCode.CREDENTIALS


class OutputFault(RunFault, OSError):
    """The output belongs to another run, or cannot be written."""

    exit_code = ExitCode.OUTPUT


class NoRunFault(OutputFault, FileNotFoundError):
    """The folder holds no run, or its tables are not written yet."""


class BusyFault(OutputFault):
    """Another run is at work on the output, or took it over."""

    exit_code = ExitCode.BUSY


class ModelFault(RunFault, ValueError):
    """A model package cannot be loaded, or does not reproduce its golden tensors."""

    exit_code = ExitCode.MODEL


class LedgerFault(RunFault, ValueError):
    """The output contradicts its own plan or digests."""

    exit_code = ExitCode.LEDGER


class BudgetFault(RunFault, RuntimeError):
    """More fields failed or are missing than the user accepts. The run stopped early; what is committed stays."""

    exit_code = ExitCode.FAILURES


class Interrupted(RunFault):
    """Stopped on request; the same command goes on where this one stopped.

    It derives from no builtin but Exception: signals raise it in the middle of libraries, which would take a RuntimeError or an OSError for
    one of their own and go on.
    """

    exit_code = ExitCode.INTERRUPTED


_ALIKE = 0.7
"""How alike names are for one to be offered for the other, as difflib has it: one of four letters may differ, not one of three."""


def likely(value: str, options: Iterable[str]) -> str:
    """A hint "; did you mean 'x'?" with the option that `value` may stand for; "" if none is similar enough.

    An option that differs only in upper and lower case comes first, then the most similar one. Every such hint follows this rule.

    >>> likely("dapi", ["DAPI", "GFP"]), likely("Cy5", ["DAPI", "GFP"])
    ("; did you mean 'DAPI'?", '')
    """
    folded: dict[str, str] = {}
    for option in sorted(set(options)):
        folded.setdefault(option.casefold(), option)
    found = get_close_matches(value.casefold(), folded, n=1, cutoff=_ALIKE)
    return f"; did you mean {folded[found[0]]!r}?" if found else ""


def nearest(value: str, options: Iterable[str]) -> str:
    """The hint of `likely`. If no option is similar enough, the options themselves; "" if there are none.

    >>> nearest("Cy5", ["DAPI", "GFP"])
    "; known: 'DAPI', 'GFP'"
    """
    known = sorted(set(options))
    shown = ", ".join(repr(option) for option in known[:12])
    return likely(value, known) or (f"; known: {shown}" + (", …" if len(known) > 12 else "") if known else "")


def matching(wanted: str, names: Iterable[str]) -> str | None:
    """The one of `names` that equals `wanted`, or else the only one that differs from it in upper and lower case alone; None if there is no such name."""
    known = tuple(dict.fromkeys(names))
    if wanted in known:
        return wanted
    alike = [name for name in known if name.casefold() == wanted.casefold()]
    return alike[0] if len(alike) == 1 and wanted else None
