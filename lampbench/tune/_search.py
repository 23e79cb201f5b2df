"""Random search: the preset, then settings drawn one after another, each a run on the held-out users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from msgspec.structs import asdict

from lampbench.core import InputError, Task, config_to_json
from lampbench.leaderboard import compare, read_result
from lampbench.metrics import Difference, Estimate
from lampbench.rows import Row, RunRow
from lampbench.runner import Plan, Planner, Skip
from lampbench.tune._space import Space

_Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """A run on the held-out users, or settings that gave no run.

    Attributes:
        number: 0 is the preset.
        settings: The drawn settings; empty for the preset.
        status: ``success``, ``failed`` (the run), or ``refused`` (the method does not take these settings together).
        config: The resolved config; None if it was refused.
        run: The run's folder, or None.
        metric: The primary metric's name, value, interval and direction; None without a result.
        parameters: Trainable parameters, ``shared`` and ``per_user``; None without a result.
        seconds: All phases together; None without a result.
        failed_checks: Isolation checks that the run failed; such a trial cannot be chosen.
        error: Why there is no result.
    """

    number: int
    settings: Mapping[str, Any]
    status: Literal["success", "failed", "refused"]
    config: Mapping[str, Any] | None = None
    run: Path | None = None
    metric: Mapping[str, Any] | None = None
    parameters: Mapping[str, int] | None = None
    seconds: float | None = None
    failed_checks: tuple[str, ...] = ()
    error: str | None = None

    @classmethod
    def of(cls, number: int, settings: Mapping[str, Any], plan: Plan, row: RunRow) -> Trial:
        """The trial that a run's row describes."""
        made: dict[str, Any] = {"config": config_to_json(plan.config), "run": plan.folder}
        if not isinstance(row, Row):
            return cls(number, settings, "failed", error=row.error, **made)
        key = plan.task.primary.key
        primary = row.metrics[key]
        return cls(
            number,
            settings,
            "success",
            metric={
                "name": key,
                "value": primary.value,
                "ci95": primary.ci95 and list(primary.ci95),
                "higher_is_better": primary.higher_is_better,
            },
            parameters=asdict(row.cost.parameters),
            seconds=row.cost.seconds.total,
            failed_checks=row.failed_checks,
            **made,
        )

    @property
    def estimate(self) -> Estimate:
        """The primary metric; no value without a result."""
        if self.metric is None:
            return Estimate(None)
        low_high = self.metric["ci95"]
        return Estimate(self.metric["value"], None if low_high is None else (low_high[0], low_high[1]))

    @property
    def ranked(self) -> bool:
        """Whether it can be chosen: its score is finite and it passed the isolation checks."""
        return self.estimate.value is not None and not self.failed_checks


@dataclass(frozen=True)
class Search:
    """A method's settings on one task, tried in an order that follows from seed, task and method.

    Attributes:
        planner: Plans runs on the held-out users.
        preset: The first trial: a run with the user's own settings alone.
        space: The space to draw from.
        fixed: The user's own settings, which every trial has.
        together: Whether the nth trial has the same settings on every task that is searched with this method.
    """

    planner: Planner
    preset: Plan
    space: Space
    fixed: _Settings
    together: bool = False

    def trials(self, run: Callable[[Plan], RunRow], say: Callable[[str], None]) -> Iterator[Trial]:
        """Trials until every point of the space was drawn; points with one resolved config are tried once.

        The nth trial does not depend on how many are asked for. Settings that the method refuses, and runs that
        fail, are trials without a result.

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
        """Settings that give a new run, or why the method refuses them; None if all were drawn."""
        # Settings may be those of an earlier trial on one task and not on another.
        if self.together:
            known = set()
        names = ("tune", *(() if self.together else (self.preset.task.name,)), self.preset.method, str(number))
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


def gain(task: Task, preset: Trial, trial: Trial) -> Difference | None:
    """The trial's primary metric minus the preset's, on the same users; None for the preset, or without its result."""
    if trial is preset or preset.metric is None or preset.run is None or trial.run is None:
        return None
    comparison = compare([read_result(trial.run)], [read_result(preset.run)], ("trial", "preset"))
    return comparison.differences[task.primary.key]


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the best primary metric, or None if no trial can be chosen.

    Of equals it is the one with fewer parameters per user, then fewer shared ones, then the earlier one.
    """
    return min((trial for trial in trials if trial.ranked), key=_order, default=None)


@dataclass(frozen=True)
class Choice:
    """What a search has found for one task.

    Attributes:
        trials: All of them; the first is the preset.
        best: The best trial, or None if none can be chosen.
        difference: Its primary metric minus the preset's, on the same users; None for the preset itself.
    """

    search: Search
    trials: Sequence[Trial]
    best: Trial | None
    difference: Difference | None

    @property
    def method(self) -> str:
        """The method's name."""
        return self.search.preset.method

    @property
    def others(self) -> int:
        """How many trials beside the preset can be chosen."""
        return sum(trial.ranked for trial in self.trials[1:])

    @classmethod
    def of(cls, search: Search, trials: Sequence[Trial], best: Trial | None) -> Choice:
        """The choice of a trial, with what it gains."""
        return cls(search, trials, best, None if best is None else gain(search.preset.task, trials[0], best))


@dataclass(frozen=True)
class Shared:
    """The trials of one number on several tasks.

    Attributes:
        trials: One per task.
        gain: The mean over tasks of the relative gain over the preset, (score - preset's) / preset's, with its sign
            turned where lower is better; None if a trial cannot be chosen. Where the preset's score is 0, the gain is
            relative to the largest score on that task.
    """

    trials: tuple[Trial, ...]
    gain: float | None


def shared_trials(by_task: Sequence[Sequence[Trial]]) -> list[Shared]:
    """The trials of several searches with the same settings, by number."""
    presets = [trials[0] for trials in by_task]
    units = [_unit(trials) for trials in by_task]
    return [Shared(own, _mean_gain(own, presets, units)) for own in zip(*by_task, strict=True)]


def best_shared(trials: Sequence[Shared]) -> Shared | None:
    """The trials with the highest mean gain, the earliest of equals; None if none can be chosen."""
    able = [own for own in trials if own.gain is not None]
    return max(able, key=lambda own: (own.gain, -own.trials[0].number), default=None)


def _unit(trials: Sequence[Trial]) -> float:
    """What gains on a task are relative to: the preset's score or, if that is 0, the largest."""
    values = [abs(trial.estimate.value or 0.0) for trial in trials]
    return values[0] or max(values) or 1.0


def _mean_gain(trials: Sequence[Trial], presets: Sequence[Trial], units: Sequence[float]) -> float | None:
    gains = []
    for trial, preset, unit in zip(trials, presets, units, strict=True):
        value, base = trial.estimate.value, preset.estimate.value
        if not trial.ranked or value is None or base is None:
            return None
        sign = 1 if (preset.metric or {})["higher_is_better"] else -1
        gains.append(sign * (value - base) / unit)
    return fmean(gains)


def _order(trial: Trial) -> tuple[float, int, int, int]:
    metric, parameters = trial.metric or {}, trial.parameters or {}
    loss = -metric["value"] if metric["higher_is_better"] else metric["value"]
    return loss, parameters["per_user"], parameters["shared"], trial.number
