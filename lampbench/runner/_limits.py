"""What ends a run before its end: Ctrl-C and SIGTERM, and the limits that the user sets on time and memory."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lampbench.core import InputError, free_host_memory
from lampbench.runner._failures import TimeLimitError

# A method that catches the alarm gets another one every so many seconds.
_AGAIN = 5.0
# A method that does not return from native code is stopped with the process.
_GRACE = 60.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a run was asked to end: the first signal asks it to end after its batch, the next ends it at once."""

    def __init__(self) -> None:
        self._asked = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if the run was asked to end; called when all finished work is on disk."""
        if self._asked:
            raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals inside the ``with`` block. Only a process's main thread can; elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: it was not set from Python.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _take(self, number: int, frame: FrameType | None) -> Any:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        # A handler runs between any two steps of the program, in the middle of a print as well.
        os.write(2, b"\nstopping after the current batch or step; once more stops at once\n")


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeLimitError in the ``with`` block after so many seconds; None: never.

    Code that ignores it, because it hangs in native code, is ended together with the process a
    minute later; where it hangs is then printed.

    Raises:
        InputError: Not in the main thread, which alone can be interrupted.
    """
    if seconds is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise InputError("a time limit needs the main thread; run without one")

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeLimitError(
            f"the time limit of {seconds:g} s is over; repeat the command with a longer --time-limit to resume"
        )

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    faulthandler.dump_traceback_later(seconds + _GRACE, exit=True, file=2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def limit_memory(gibibytes: float | None, device: str) -> None:
    """Let allocations beyond a limit fail, so that they can be caught, before the system kills the process.

    Args:
        gibibytes: The limit; None: what is free on the CPU, and nothing on a GPU.
        device: Where the run is to be.

    Raises:
        InputError: The process holds more already.
    """
    if sys.platform != "linux":
        return
    import resource

    import psutil

    held = psutil.Process().memory_info().data
    if gibibytes is None:
        if device.startswith("cuda"):
            return
        most = free_host_memory() + held
    else:
        most = int(gibibytes * 2**30)
        if most <= held:
            raise InputError(f"--memory-limit {gibibytes:g}: the program alone uses {held / 2**30:.1f} GiB; allow more")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
