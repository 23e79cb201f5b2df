"""Ctrl-C and SIGTERM: the first asks the run to end where nothing is lost, the next ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a run was asked to end."""

    def __init__(self) -> None:
        self._asked = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if the run was asked to end; called where all that is done is on disk."""
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
        os.write(2, b"\nstopping after the current batch; once more stops at once\n")
