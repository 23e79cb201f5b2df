"""Checks of what a method answers: that it does, the same each time, and from what it may know."""

from __future__ import annotations

from collections.abc import Iterable

from lampbench.data import Dataset
from lampbench.runner._reach import reachable
from lampbench.testing._errors import ContractError, NotTried, broken
from lampbench.testing._shape import by_query, same
from lampbench.testing._trial import Trial


def run(trial: Trial) -> None:
    """Train, ask, and run the fixture."""
    _ = trial.outputs
    try:
        _ = trial.answers
    except Exception as error:
        raise NotTried("not tried: predict does not answer every query, see answers") from error
    row = trial.run.row
    if row.status != "success":
        failure = ContractError(f"a run of the fixture ended as {row.status}: {row.error}")
        failure.add_note(trial.run.log)
        raise failure


def parameters(trial: Trial) -> Iterable[str]:
    """Compare the method's count with what the runner saw optimizers hold."""
    found = (trial.run.row.checks or {})["parameters"]
    if found.passed is None:
        return ["no optimizer could be watched: torch was first imported by the method while it trained"]
    if not found.passed:
        held, said = found.found["optimizers_held"], found.found["reported"]
        broken(
            f"parameters() reports {said['fit_shared']:,} shared and {said['adapt']:,} a user; "
            f"the optimizers held {held['fit_shared']:,} and {held['adapt']:,}"
        )
    return []


def answers(trial: Trial) -> None:
    """Ask in every way that a runner may."""
    try:
        _ = trial.outputs
    except Exception as error:
        raise NotTried("not tried: it does not run, see run") from error
    _ = trial.answers


def golds(trial: Trial) -> None:
    """Look for golds where they must not be."""
    canaries = trial.fixture.canaries
    for query, answer in {**trial.answers, **trial.run.outputs}.items():
        if any(canary in answer for canary in canaries):
            broken(f"the answer to the query {query!r} is a gold that no method can know")
    for name, content in trial.run.state.items():
        if any(canary.encode() in content for canary in canaries):
            broken(f"the saved state {name} holds a gold that no method can know")
    handed = [*trial.users, *trial.queries, *trial.fixture.data.shared]
    way = reachable(handed, lambda item: isinstance(item, Dataset) or (isinstance(item, str) and item in canaries))
    if way:
        broken(f"a gold can be reached from what a method gets: {way}")


def repeat(trial: Trial) -> None:
    """Ask again, and run again."""
    first = by_query(trial.queries, trial.outputs)
    same(first, {query: trial.answers[query] for query in first}, "asked a second time")
    same(trial.answers, trial.run.outputs, "in a second run of the same seed, with other global random state")
