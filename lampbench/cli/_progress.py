"""Progress bars on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class _Bar:
    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def move(self, done: int, total: int | None) -> None:
        """Show ``done`` of ``total``."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)


class ProgressReporter:
    """A tqdm bar a phase, and lines between them."""

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[_Bar]:
        """A bar for one phase."""
        layout = "{desc:<32} {percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} [{elapsed}]"
        with tqdm(total=total, desc=name, file=sys.stderr, bar_format=layout, mininterval=0.2) as bar:
            yield _Bar(bar)

    def say(self, text: str) -> None:
        """A line for the user."""
        tqdm.write(text, file=sys.stderr)


class DownloadProgress:
    """A tqdm bar a file, in bytes; gone when the file is there."""

    @contextmanager
    def file(self, name: str) -> Iterator[_Bar]:
        """A bar for one file."""
        with tqdm(
            desc=name, file=sys.stderr, leave=False, disable=None, unit="B", unit_scale=True, mininterval=0.2
        ) as bar:
            yield _Bar(bar)
