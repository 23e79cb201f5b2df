"""Which method to choose: a few sentences, computed from a section's boards, that claim no more than these show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lampbench.leaderboard._board import RAW
from lampbench.leaderboard._cells import count, number, seconds
from lampbench.leaderboard._overview import OverviewRow, Section

_MOST_NAMED = 6


@dataclass(frozen=True)
class Advice:
    """An answer to one question."""

    question: str
    answer: str


def advice(section: Section) -> list[Advice]:
    """At most five answers; a question that the numbers do not answer is left out.

    Only methods that every board of the section ranks are compared, and nothing is said of fewer than two.
    """
    rows = [row for row in section.rows if row.complete]
    if len(rows) < 2:
        return []
    found: list[Advice] = []
    for answer in (_scores, _untrained, _parameters, _time, _no_gain):
        found += answer(rows, section)
    return found


def certainty(section: Section) -> str:
    """How sure the answers are, in a sentence or two."""
    users = sorted({board.users for board in section.boards})
    number_of_users = f"{users[0]:,}" if len(users) == 1 else f"{users[0]:,} to {users[-1]:,}"
    return (
        f"These answers hold for this protocol and this model, and rest on {number_of_users} users per task. "
        "Methods among the best on a task cannot be told apart there, and with few users even a large difference may "
        "not show. Better than zero-shot means p < 0.05, adjusted by Holm over the tasks."
    )


def _scores(rows: Sequence[OverviewRow], section: Section) -> Iterator[Advice]:
    most = max(row.best for row in rows)
    first = [row for row in rows if row.best == most]
    if len(first) == len(rows):
        yield Advice("Best scores", f"All methods are among the best on {_tasks(most, section)}.")
        return
    others = [row for row in rows if 0 < row.best < most]
    then = (
        f"; then {', '.join(f'{row.name} on {row.best}' for row in others)}"
        if others
        else "; no other method is on any"
    )
    yield Advice("Best scores", f"{_names(first)}: among the best on {_tasks(most, section)}{then}.")


def _untrained(rows: Sequence[OverviewRow], section: Section) -> Iterator[Advice]:
    own = [row for row in rows if row.user_parameters == 0 and row.method != RAW]
    if not own or not _has_baseline(rows):
        return
    best = max(own, key=lambda row: (len(row.better), -(row.mean_rank or 0)))
    speed = f", {number(best.query_ms, ',.1f')} ms per query" if best.query_ms is not None else ""
    if best.better:
        answer = f"{best.name}: better than zero-shot on {_tasks(len(best.better), section)}{speed}."
    else:
        answer = "No method that trains nothing per user is shown to be better than zero-shot on any task."
    yield Advice("Without training per user", answer)


def _parameters(rows: Sequence[OverviewRow], section: Section) -> Iterator[Advice]:
    own = [row for row in _good(rows, section) if row.user_parameters > 0]
    if len(own) < 2:
        return
    least, most = (pick(own, key=lambda row: row.user_parameters) for pick in (min, max))
    if least.user_parameters == most.user_parameters:
        return
    few = [row for row in own if row.user_parameters == least.user_parameters]
    yield Advice(
        "Fewest parameters per user",
        f"{count(least.user_parameters)}: {_each(few, section)}. {most.name} has {count(most.user_parameters)}.",
    )


def _time(rows: Sequence[OverviewRow], section: Section) -> Iterator[Advice]:
    known = [(row.seconds_per_user, row) for row in _good(rows, section) if row.user_parameters > 0]
    own = [(value, row) for value, row in known if value is not None]
    # Times are compared on one class of hardware only.
    if len(own) < 2 or len({row.hardware for _, row in own}) > 1:
        return
    (least, fast), (most, slow) = (pick(own, key=lambda one: one[0]) for pick in (min, max))
    if seconds(least) == seconds(most):
        return
    yield Advice(
        "Least time to adapt to a user",
        f"{seconds(least)} s on {fast.hardware}: {_each([fast], section)}. {slow.name} takes {seconds(most)} s.",
    )


def _no_gain(rows: Sequence[OverviewRow], section: Section) -> Iterator[Advice]:
    if not _has_baseline(rows):
        return
    own = [row.name for row in rows if row.method != RAW and not row.better]
    answer = (
        f"{_some(own)}: not shown to be better than zero-shot on any task."
        if own
        else "Every method is better than zero-shot on at least one task."
    )
    yield Advice("No gain shown", answer)


def _good(rows: Sequence[OverviewRow], section: Section) -> list[OverviewRow]:
    """What is among the best on half of the tasks or more."""
    return [row for row in rows if 2 * row.best >= len(section.boards)]


def _has_baseline(rows: Sequence[OverviewRow]) -> bool:
    """Whether anything is measured against zero-shot."""
    return any(entry.gain for row in rows for entry in row.known)


def _tasks(number_of_tasks: int, section: Section) -> str:
    every = len(section.boards)
    if every == 1:
        return "the one task" if number_of_tasks else "no task"
    return f"all {every} tasks" if number_of_tasks == every else f"{number_of_tasks} of {every} tasks"


def _each(rows: Sequence[OverviewRow], section: Section) -> str:
    """Names, with what they reach: a low cost alone recommends nothing."""
    return _some([f"{row.name}, among the best on {_tasks(row.best, section)}" for row in rows], ", and ")


def _names(rows: Sequence[OverviewRow]) -> str:
    return _some([row.name for row in rows])


def _some(texts: Sequence[str], joint: str = ", ") -> str:
    """The first texts, and how many more there are."""
    more = len(texts) - _MOST_NAMED
    return joint.join(texts[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
