"""One session of one run: what its phases share, and how each stretch of work is measured and written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from lampbench.data import Dataset
from lampbench.runner._folder import RunFolder
from lampbench.runner._meter import Meter, OptimizerWatch
from lampbench.runner._plan import Plan
from lampbench.runner._row import now
from lampbench.runner._stop import Stop

# Answers are written to disk after so many batches.
_BATCHES_A_CHUNK = 4


class Bar(Protocol):
    """A progress bar."""

    def move(self, done: int, total: int) -> None:
        """Show ``done`` of ``total``."""


class Reporter(Protocol):
    """Where a run shows its progress."""

    def phase(self, name: str, total: int) -> AbstractContextManager[Bar]:
        """A bar for one phase."""

    def say(self, text: str) -> None:
        """A line for the user."""


class Work:
    """The work of one session on a run.

    Attributes:
        plan, dataset, folder, reporter: What is run, on what, where, and who is told.
        stop: Whether the user asked for the end.
        phase: The phase that is under way.
        backbone: Once it is loaded; None for a method without one.
        earlier: The journal as this session found it.
        where: The environment of the workers that do it; None for this process.
    """

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        folder: RunFolder,
        reporter: Reporter,
        *,
        stop: Stop | None = None,
        adapted: Iterable[str] = (),
    ) -> None:
        self.plan = plan
        self.dataset = dataset
        self.folder = folder
        self.reporter = reporter
        self.stop = stop or Stop()
        self.phase = "load"
        self.backbone: Any = None
        self.earlier = folder.journal()
        self.where: Mapping[str, Any] | None = None
        self._adapted = frozenset(adapted)
        self._meter = Meter(plan.backbone.device if plan.backbone else "cpu", self._tokens)
        self._started: float | None = time.perf_counter()
        self._tracked = 0.0

    @property
    def name(self) -> str:
        """Task and method, for messages."""
        return f"{self.plan.task.name} {self.plan.method}"

    @property
    def chunk(self) -> int:
        """Queries between two writes to disk."""
        return self.plan.settings.batch_size * _BATCHES_A_CHUNK

    def enter(self, name: str, total: int) -> AbstractContextManager[Bar]:
        """A bar for the phase that begins."""
        self.phase = name
        return self.reporter.phase(f"{self.name} {name}", total)

    def stoppable(self, move: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """A method's progress: between two of its steps a run can be stopped."""

        def moved(done: int, total: int) -> None:
            move(done, total)
            self.stop.check()

        return moved

    @contextmanager
    def measured(self, phase: str, **details: Any) -> Iterator[dict[str, Any]]:
        """Measure the block and write what it cost to the journal once it has ended well.

        Yields the journal's event: seconds that the block adds to it were spent elsewhere for it.
        """
        event: dict[str, Any] = {"event": phase, "seconds": 0.0, **details}
        watch = OptimizerWatch()
        watched = watch.watch() if phase in ("fit_shared", "adapt") else nullcontext()
        with self._meter.measure() as measurement, watched:
            yield event
        self._tracked += measurement.seconds
        event["seconds"] += measurement.seconds
        event["memory"] = measurement.memory
        event["tokens"] = measurement.tokens
        if phase in ("fit_shared", "adapt"):
            event["optimizer_parameters"] = watch.largest
        self.folder.log(event)

    def log_end(self) -> None:
        """Write the session and what of it no phase accounts for into the journal."""
        elapsed = self.elapsed()
        # While workers work, this process waits: their time is in their own events.
        untracked = 0.0 if self.where else elapsed - self._tracked
        self.folder.log({"event": "session_end", "time": now(), "untracked": untracked, "elapsed": elapsed})

    def elapsed(self) -> float:
        """Seconds since the session began; 0 while its clock is held."""
        return 0.0 if self._started is None else time.perf_counter() - self._started

    def hold_clock(self) -> None:
        """The session has not begun: others of its command come first."""
        self._started = None

    def start_clock(self) -> None:
        """The session begins."""
        self._started = time.perf_counter()

    def done(self, phase: str) -> bool:
        """Whether an earlier session came to the end of a phase."""
        return any(event["event"] == phase and not event.get("part") for event in self.earlier)

    def users_done(self) -> frozenset[str]:
        """Users whom earlier sessions adapted, and those whom ``adapted`` named."""
        return self._adapted.union(*(event["users"] for event in self.earlier if event["event"] == "adapt"))

    def _tokens(self) -> dict[str, int]:
        return dict(vars(self.backbone.usage)) if self.backbone is not None else {}
