"""What a tracker is, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lampbench.rows import RunRow


@dataclass(frozen=True)
class TrackedRun:
    """A run that begins.

    Attributes:
        run_id: The hash of ``identity``.
        identity: Everything that can change a score: task, protocol, method, config, model, seed.
        users, queries: How many are evaluated.
        label: What the data calls itself, such as "mini (synthetic)"; None for real data.
        licence: Of the data, if it is known.
    """

    run_id: str
    identity: Mapping[str, Any]
    users: int
    queries: int
    label: str | None
    licence: str | None

    @property
    def name(self) -> str:
        """What people call the run."""
        return f"{self.identity['task']} {self.identity['method']} {self.run_id[:6]}"


@dataclass(frozen=True)
class Phase:
    """A stretch of work that was measured; a phase may consist of several.

    Attributes:
        name: ``load``, ``fit_shared``, ``adapt``, ``predict``, ``score``, ``swap`` or ``check``.
        seconds: How long it took.
        tokens: What was counted, such as ``prompt_tokens``; nothing without a model.
        users: How many users were adapted in it.
    """

    name: str
    seconds: float
    tokens: Mapping[str, int] = field(default_factory=dict)
    users: int = 0


class Tracker:
    """Base class of trackers: override what you want to hear. A tracker is made for one run.

    It is told numbers and settings, and never a prompt, an answer or any other text of the data. What it raises becomes
    a warning, and it is not told any more of that run.

    A tracker is a plug-in, a class named by an entry point of its distribution::

        [project.entry-points."lampbench.trackers"]
        my-tracker = "my_package:MyTracker"

    and is used by ``lampbench run --track my-tracker``.

    Attributes:
        packages: Modules that must be importable; a run that asks for the tracker without them is refused.
        extra: The extra of LampBench that installs them, for the message.
    """

    packages: tuple[str, ...] = ()
    extra: str | None = None

    def on_plan(self, run: TrackedRun) -> None:
        """A run begins, or is resumed."""

    def on_phase(self, phase: Phase) -> None:
        """A stretch of work ended."""

    def on_row(self, row: RunRow) -> None:
        """The run ended; ``row.status`` says how, and a finished one has ``metrics`` and ``cost``."""
