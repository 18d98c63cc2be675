"""A stop on request: Ctrl-C and SIGTERM as one fault that says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cellcount_core.domain.errors import Interrupted


@contextmanager
def interruptible(words: str) -> Iterator[None]:
    """Ctrl-C, and SIGTERM (of a scheduler, of `ray job stop`) unless the program has its own way with it, as Interrupted(words).

    SIGTERM is taken in the main thread only, and left to an outer `interruptible` where there is one.
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
