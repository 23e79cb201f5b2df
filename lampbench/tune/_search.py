"""Random search: the preset, then settings drawn one after another, each a run on the held-out users."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from lampbench.core import InputError
from lampbench.rows import RunRow
from lampbench.runner import Plan, Planner, Skip
from lampbench.tune._space import Space
from lampbench.tune._trial import Trial

_Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Search:
    """A method's settings on one task, tried in an order that the seed, the task and the method make.

    Attributes:
        planner: Of runs on the held-out users.
        preset: The run with none but the user's own settings: the first trial.
        space: What is drawn from.
        fixed: Settings of every trial: the user's own.
    """

    planner: Planner
    preset: Plan
    space: Space
    fixed: _Settings

    def trials(self, run: Callable[[Plan], RunRow], say: Callable[[str], None]) -> Iterator[Trial]:
        """Trials until every point of the space was drawn; points with one resolved config are tried once.

        The nth trial is the same however many are asked for. Settings that the method refuses together, and runs
        that fail, are trials without a result.

        Args:
            run: Gives a plan's row.
            say: Gets a line before each trial.
        """
        say("trial 0: the preset")
        yield Trial.of(0, {}, self.preset, run(self.preset))
        taken: set[int] = set()
        known = {self.preset.run_id}
        for number in count(1):
            drawn = self._new(number, taken, known)
            if drawn is None:
                return
            settings, plan = drawn
            say(f"trial {number}: {in_words(settings)}")
            if isinstance(plan, str):
                yield Trial(number, settings, "refused", error=plan)
            else:
                yield Trial.of(number, settings, plan, run(plan))

    def _new(self, number: int, taken: set[int], known: set[str]) -> tuple[_Settings, Plan | str] | None:
        """Settings that give a run of their own, or why the method refuses them; None where all were drawn."""
        names = ("tune", self.preset.task.name, self.preset.method, str(number))
        for settings in self.space.draws(self.planner.settings.seed, *names, taken=taken):
            plan = self._plan(settings)
            if isinstance(plan, str):
                return settings, plan
            if plan.run_id not in known:
                known.add(plan.run_id)
                return settings, plan
        return None

    def _plan(self, settings: _Settings) -> Plan | str:
        try:
            plan = self.planner.plan(self.preset.method, self.preset.task.name, {**self.fixed, **settings})
        except InputError as error:
            return str(error)
        return plan.reason if isinstance(plan, Skip) else plan


def in_words(settings: _Settings) -> str:
    """Settings as ``--set`` takes them."""

    def word(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

    return " ".join(f"{name}={word(value)}" for name, value in settings.items())
