"""Progress in a terminal: a line for the whole command over the bar of what is under way."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

# A phase that is over before has no bar.
_INSTANT = 1.0
# An estimate of the time left needs some work behind it.
_SECONDS_BEFORE_ESTIMATE = 3.0
_LAYOUT = "{desc:<36} {percentage:5.1f}% |{bar:20}| {elapsed}"


class Bar:
    """A progress bar of tqdm, or none."""

    def __init__(self, bar: tqdm[Any] | None) -> None:
        self._bar = bar

    def move(self, done: int, total: int | None) -> None:
        """Show ``done`` of ``total``."""
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)


class Whole:
    """The line of a whole command: which run of how many, and how long it may take; in a pipe, a line per run."""

    def __init__(self, total: int, say: Callable[[str], None], line: tqdm[Any] | None) -> None:
        self._total = total
        self._say = say
        self._line = line
        self._number = 0
        self._started = time.monotonic()

    def move(self, done: float, name: str) -> None:
        """Show that so many runs are done, the one called ``name`` in part."""
        number = min(int(done) + 1, self._total)
        text, began = f"run {number} of {self._total}: {name}", number != self._number
        self._number = number
        if self._line is not None:
            self._line.set_description_str(text + self._time_left(done), refresh=began)
            # Counting lets tqdm redraw no more often than its interval.
            self._line.update()
        elif began:
            self._say(text)

    def _time_left(self, done: float) -> str:
        seconds = time.monotonic() - self._started
        if seconds < _SECONDS_BEFORE_ESTIMATE or done <= 0:
            return ""
        return f", about {duration(seconds * (self._total - done) / done)} left"


class ProgressReporter:
    """Shows progress on standard error: bars in a terminal, and in a file or pipe a line per run.

    Args:
        quiet: Show nothing, and say nothing.
        stream: Where to; None for standard error as it is when something is shown.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._quiet = quiet
        self._given = stream
        self._under_a_line = False

    @contextmanager
    def runs(self, total: int) -> Iterator[Whole]:
        """A line for the whole command; the bars of phases are shown below it."""
        if not self._has_bars:
            yield Whole(total, self.say, None)
            return
        from tqdm import tqdm

        with tqdm(file=self._stream, bar_format="{desc}", mininterval=0.2, leave=False, dynamic_ncols=True) as line:
            self._under_a_line = True
            try:
                yield Whole(total, self.say, line)
            finally:
                self._under_a_line = False

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Bar]:
        """A bar for one phase, if that lasts longer than a moment."""
        if not self._has_bars:
            yield Bar(None)
            return
        from tqdm import tqdm

        with tqdm(
            total=total, desc=name, file=self._stream, bar_format=_LAYOUT, mininterval=0.2, delay=_INSTANT,
            leave=not self._under_a_line, position=int(self._under_a_line), dynamic_ncols=True,
        ) as bar:  # fmt: skip
            yield Bar(bar)

    def say(self, text: str) -> None:
        """A line for the user."""
        if self._quiet:
            return
        from tqdm import tqdm

        tqdm.write(text, file=self._stream)

    @property
    def _stream(self) -> TextIO:
        return sys.stderr if self._given is None else self._given

    @property
    def _has_bars(self) -> bool:
        return not self._quiet and self._stream.isatty()


def duration(seconds: float) -> str:
    """A stretch of time in words: two digits of what it is known by."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    if seconds < 99.5 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 99.5 * 3600 else f"{round(seconds / 86400)} days"
