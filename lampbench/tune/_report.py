"""A search in words: the table of its trials, and what the best settings gain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from lampbench.data import SYNTHETIC
from lampbench.metrics import LEVEL, Difference, Estimate
from lampbench.tune._search import Choice, Search, Shared, Trial, in_words


def report(search: Search, trials: Sequence[Trial], best: Trial | None, asked: int) -> str:
    """The table of all trials, and what its reader must know."""
    data = search.preset.dataset
    lines = [f"\n{data.label}: {SYNTHETIC}"] if data.label else []
    lines.append(f"\n{_table(search, trials, best)}\n")
    lines += [f"note: {note}" for note in [*data.notes, *_notes(trials)]]
    if len(trials) < asked:
        size = search.space.size
        lines.append(f"note: {asked} trials were asked for; all {size} points of the space were drawn, equal ones once")
    return "\n".join(lines)


def shared_report(searches: Sequence[Search], trials: Sequence[Shared], best: Shared) -> str:
    """The table of trials that several tasks share: each task's score, and the mean relative gain."""
    metrics = [f"{own.preset.task.name} {own.preset.task.primary.key}" for own in searches]
    rows = [
        [
            str(own.trials[0].number) if own.trials[0].number else "preset",
            in_words(own.trials[0].settings),
            *("" if trial.estimate.value is None else f"{trial.estimate.value:.4f}" for trial in own.trials),
            "" if own.gain is None else f"{own.gain:+.2%}",
            "best" if own is best else "",
        ]
        for own in trials
    ]
    table = tabulate(rows, headers=["trial", "settings", *metrics, "mean gain", ""], disable_numparse=True)
    return f"\nthe same settings on all tasks; the mean gain is relative to the preset's score\n\n{table}\n"


def shared_about(searches: Sequence[Search], trials: Sequence[Shared], best: Shared) -> list[str]:
    """What the best settings of several tasks together were chosen on."""
    names = ", ".join(own.preset.task.name for own in searches)
    users = " and ".join(sorted({str(len(own.preset.dataset.users)) for own in searches}))
    protocol = searches[0].planner.settings.protocol
    return [
        f"best of {len(trials)} trials by the mean relative gain over the preset ({best.gain:+.2%}) on {names},",
        f"on {users} held-out shared users each of {protocol}: {_name(best.trials[0])}",
        "evaluated users had no part in it; on the users it was chosen on, the best looks better than it is",
    ]


def about(choice: Choice) -> list[str]:
    """What the best settings were chosen on, and what they gain there; nothing if there are none."""
    search, best, difference = choice.search, choice.best, choice.difference
    if best is None:
        return []
    data = search.preset.dataset
    named = search.planner.settings.protocol + (f", {data.label}" if data.label else "")
    users = f"{len(data.users)} held-out shared users ({len(data.queries)} queries) of {named}"
    lines = [
        f"best of {len(choice.trials)} trials by {search.preset.task.primary.key}, on {users}: {_name(best)}",
        "evaluated users had no part in it; on the users it was chosen on, the best looks better than it is",
    ]
    if difference is not None:
        interval = _with_interval(difference.micro, "+.4f")
        lines.append(f"against the preset on these users: {interval}, {doubt(difference, choice.others)}")
    return lines


def summary(choices: Sequence[Choice]) -> str:
    """The table of several methods: each one's preset and best settings on each task."""
    rows = [
        [
            choice.method,
            f"{choice.search.preset.task.name} {choice.search.preset.task.primary.key}",
            str(len(choice.trials)),
            f"{sum(trial.seconds or 0.0 for trial in choice.trials):.0f}",
            _value(choice.trials[0]),
            _value(choice.best),
            "" if choice.difference is None else f"{adjusted(choice.difference, choice.others):.3f}",
            "none" if choice.best is None else in_words(choice.best.settings) or "the preset",
        ]
        for choice in choices
    ]
    headers = ["method", "score", "trials", "seconds", "preset", "best", "p", "settings"]
    align = ("left", "left", "right", "right", "right", "right", "right", "left")
    table = tabulate(rows, headers=headers, disable_numparse=True, colalign=align)
    return f"\n{table}\n\np: of best against preset, by Bonferroni over the method's trials"


def _value(trial: Trial | None) -> str:
    return "" if trial is None or trial.estimate.value is None else f"{trial.estimate.value:.4f}"


def doubt(difference: Difference, others: int) -> str:
    """How certain a gain is that is the best of ``others`` trials, as text (Bonferroni)."""
    p_adjusted = adjusted(difference, others)
    p = f"p={difference.p:.4f}, as the best of {others} p={p_adjusted:.4f}"
    return (
        p if p_adjusted <= LEVEL else f"{p}: that may be chance; hold out more users (--held-out), or keep the preset"
    )


def adjusted(difference: Difference, others: int) -> float:
    """The p-value of a gain that is the best of ``others`` trials (Bonferroni)."""
    return min(1.0, difference.p * others)


def _with_interval(estimate: Estimate, form: str = ".4f") -> str:
    """An estimate in words: the value, and its interval if it has one."""
    if estimate.value is None:
        return "not finite"
    interval = estimate.ci95
    return f"{estimate.value:{form}}" + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")


def _name(trial: Trial) -> str:
    return f"trial {trial.number}, {in_words(trial.settings) or 'the preset'}"


def _table(search: Search, trials: Sequence[Trial], best: Trial | None) -> str:
    searched = list(search.space.candidates)
    headers = ["trial", *searched, search.preset.task.primary.key, "shared params", "params/user", "seconds", ""]
    align = ("right", *["left"] * (len(searched) + 1), "right", "right", "right", "left")
    rows = [[*_cells(trial, searched), "best" if trial is best else ""] for trial in trials]
    return tabulate(rows, headers=headers, disable_numparse=True, colalign=align)


def _cells(trial: Trial, searched: Sequence[str]) -> list[str]:
    name = str(trial.number) if trial.number else "preset"
    tried: Mapping[str, Any] = trial.config or trial.settings
    settings = [in_words({key: tried[key]}).partition("=")[2] for key in searched]
    if trial.metric is None:
        return [name, *settings, trial.status.upper(), "", "", ""]
    counts = [f"{trial.parameters[key]:,}" if trial.parameters else "" for key in ("shared", "per_user")]
    return [name, *settings, _with_interval(trial.estimate), *counts, f"{trial.seconds:.1f}"]


def _notes(trials: Sequence[Trial]) -> Iterator[str]:
    for trial in trials:
        if trial.error is not None:
            yield f"{_name(trial)}: {trial.status} ({trial.error})"
        if trial.failed_checks:
            yield f"{_name(trial)}: not chosen, CHECK FAILED: {', '.join(trial.failed_checks)}"
