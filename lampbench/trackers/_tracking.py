"""Tells trackers of a run, and lets none of them end it."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lampbench.core import InputError, trackers
from lampbench.rows import RunRow
from lampbench.trackers._tracker import Phase, TrackedRun, Tracker


def check_trackers(text: str | None) -> None:
    """Raise InputError if a tracker that ``text`` names is unknown, or lacks a package; before any work is done."""
    for name in _names(text):
        _class_of(name)


class Tracking:
    """The trackers of one run.

    Args:
        text: Their names, comma-separated; None for none.
        warn: Gets a line if one of them fails.

    Attributes:
        seconds: What they have taken so far.
    """

    def __init__(self, text: str | None, warn: Callable[[str], None]) -> None:
        self.seconds = 0.0
        self._warn = warn
        self._trackers: dict[str, Tracker] = {}
        for name in _names(text):
            self._call(name, lambda name=name: self._trackers.update({name: _class_of(name)()}))  # type: ignore[misc]

    def plan(self, run: Callable[[], TrackedRun]) -> None:
        """The run begins; ``run`` is called only if somebody listens."""
        if self._trackers:
            told = run()
            self._tell(lambda tracker: tracker.on_plan(told))

    def phase(self, event: Mapping[str, Any]) -> None:
        """An event of the journal; those that say nothing of time are passed over."""
        if self._trackers and "seconds" in event:
            phase = Phase(event["event"], event["seconds"], event.get("tokens", {}), len(event.get("users", ())))
            self._tell(lambda tracker: tracker.on_phase(phase))

    def row(self, row: RunRow) -> None:
        """The run ended."""
        self._tell(lambda tracker: tracker.on_row(row))

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            self._call(name, lambda tracker=tracker: what(tracker))  # type: ignore[misc]

    def _call(self, name: str, what: Callable[[], None]) -> None:
        start = time.perf_counter()
        try:
            what()
        except (Exception, SystemExit) as error:  # a third party's, or its server is not there
            self._trackers.pop(name, None)
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            self._warn(f"the tracker {name} failed, and hears no more of this run: {text}")
        self.seconds += time.perf_counter() - start


def _names(text: str | None) -> Iterator[str]:
    yield from dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip())


def _class_of(name: str) -> type[Tracker]:
    plugin = trackers().plugin(name)
    kind = trackers().load(name)
    if not (isinstance(kind, type) and issubclass(kind, Tracker)):
        raise InputError(f"the tracker plug-in {name!r} is {kind!r}; expected a class derived from Tracker")
    missing = [package for package in kind.packages if importlib.util.find_spec(package) is None]
    if missing:
        how = f'pip install "lampbench[{kind.extra}]"' if kind.extra else f"install {missing[0]}"
        raise InputError(f"--track {plugin.name}: {missing[0]} is not installed: {how}")
    return kind
