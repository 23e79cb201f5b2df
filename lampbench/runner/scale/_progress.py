"""How far a unit is, on its way to the driver; and the driver's wish to stop, on its way back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lampbench.runner._stop import Stop
from lampbench.runner._work import Bar
from lampbench.runner.scale._units import Unit

# Progress is told, and the wish to stop heard, no more often.
_REPORT_SECONDS = 0.5
# Where a unit's time goes; its other phases are short.
_LONG_PHASES = {"fit": ("fit_shared",), "shard": ("adapt", "predict"), "ask": ("ask",)}

Report = Callable[[str, float], bool]


class Progress(Stop):
    """A unit's bars, which go to the driver, and its wish to stop, which comes back."""

    def __init__(self, unit: Unit, report: Report, say: Callable[[str], None]) -> None:
        super().__init__()
        self._unit = unit
        self._phases = _LONG_PHASES[unit.kind]
        self._report = report
        self._next = 0.0
        self._share = 0.0
        self.say = say

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Bar]:
        """A bar for one phase."""
        phase = name.rsplit(" ", 1)[-1]
        yield _Bar(self._tell, self._phases.index(phase) if phase in self._phases else None, len(self._phases))

    def check(self) -> None:
        """Raise KeyboardInterrupt if the driver was asked to end."""
        self._tell(self._share)
        super().check()

    def _tell(self, share: float) -> None:
        self._share = share
        if time.monotonic() >= self._next:
            self._asked = self._report(self._unit.key, share)
            self._next = time.monotonic() + _REPORT_SECONDS


class _Bar:
    def __init__(self, tell: Callable[[float], None], place: int | None, phases: int) -> None:
        self._tell = tell
        self._place = place
        self._phases = phases

    def move(self, done: int, total: int) -> None:
        """Tell ``done`` of ``total``, where it is of one of the long phases."""
        if self._place is not None:
            self._tell((self._place + done / max(1, total)) / self._phases)
