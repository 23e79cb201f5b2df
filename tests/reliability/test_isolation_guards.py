"""A failed guard keeps the run, says so in the row, and refuses the ranking."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from runs import plan, run, with_method
from support import Silence, dataset

from lampbench.core import Method, Query, User
from lampbench.rows import Check
from lampbench.runner import execute

ISOLATION = ("fresh", "forget", "reload", "adaptation", "training_data")


class Echo(Method):
    """Answers the user's first target, and nothing for a user it does not know."""

    needs_backbone = False

    def setup(self) -> None:
        self.known: dict[str, str] = {}

    def adapt(self, users: Sequence[User]) -> None:
        self.known.update({user.id: user.history[0].target for user in users})

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        return [self.known.get(query.user_id, "") for query in queries]

    def forget(self, user_id: str) -> None:
        self.known.pop(user_id, None)


class Leaky(Echo):
    """Gives a stranger what it learned of others."""

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        others = "".join(self.known.values())
        return [self.known.get(query.user_id, others) for query in queries]


class Clinging(Echo):
    """Forgets nothing."""

    def forget(self, user_id: str) -> None:
        pass


class Amnesiac(Echo):
    """Restores nothing."""

    def load_user(self, user: User, folder: Path) -> None:
        pass


class Idle(Echo):
    """Learns, and answers as if it had not."""

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        return ["the same"] * len(queries)


class Brittle(Echo):
    """Cannot forget."""

    def forget(self, user_id: str) -> None:
        raise RuntimeError("no way back")


def checks(tmp_path: Path, kind: type[Method]) -> dict[str, Any]:
    made = with_method(plan(tmp_path, "majority"), kind)
    row = run(made, tmp_path)
    assert row.status == "success", row.error
    found: dict[str, Any] = row.checks
    return found


def test_a_method_that_keeps_users_apart_passes(tmp_path: Path) -> None:
    found = checks(tmp_path, Echo)
    assert {name: found[name].passed for name in ISOLATION} == dict.fromkeys(ISOLATION, True)


@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        (Leaky, {"fresh"}),
        (Clinging, {"forget"}),
        (Amnesiac, {"reload"}),
        (Idle, {"adaptation"}),
        (Brittle, {"isolation"}),
    ],
)
def test_each_guard_fails_where_its_promise_is_broken(tmp_path: Path, kind: type[Method], failed: set[str]) -> None:
    assert {name for name, check in checks(tmp_path, kind).items() if check.passed is False} == failed


@pytest.mark.parametrize("name", ["majority", "rag", "pag", "user-lora", "oppu", "perfit", "reft"])
def test_built_in_methods_pass_in_their_own_runs(tmp_path: Path, name: str) -> None:
    faster = {} if name in ("majority", "rag", "pag") else {"learning_rate": 0.03}
    row = run(plan(tmp_path, name, overrides=faster), tmp_path)
    failed = {name for name, check in row.checks.items() if check.passed is False}
    # Three users' few steps on random weights need not change an answer; nothing else may fail.
    assert failed <= {"adaptation"}
    assert set(row.checks) == {"parameters", "golds", *ISOLATION}


@pytest.mark.parametrize("name", ["zero-shot", "lora"])
def test_methods_that_adapt_nothing_have_nothing_to_guard(tmp_path: Path, name: str) -> None:
    assert set(run(plan(tmp_path, name), tmp_path).checks) == {"parameters", "golds"}


def test_golds_that_can_be_reached_from_a_query_are_found(tmp_path: Path) -> None:
    made = with_method(plan(tmp_path, "majority"), Echo)
    golds = dict(made.dataset.golds)

    class Showing(Query):
        """A query that carries what it must not."""

        __slots__ = ("answers",)

    queries = []
    for query in made.dataset.queries:
        showing = Showing(query.id, query.user_id, query.text)
        object.__setattr__(showing, "answers", golds)
        queries.append(showing)
    data = dataclasses.replace(made.dataset, queries=tuple(queries), golds=golds)
    row: Any = execute(made, data, lambda plan: (None, 0.0), Silence())
    assert row.checks["golds"] == Check(passed=False, way="Showing > dict")


def test_a_state_made_of_another_history_is_found(tmp_path: Path) -> None:
    made = with_method(plan(tmp_path, "majority"), Echo)
    run(made, tmp_path)
    journal = made.folder / "journal.jsonl"
    user = dataset("lamp5").users[0].id
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    next(event for event in events if event["event"] == "adapt")["data"][user] = "0" * 16
    journal.write_text("".join(json.dumps(event) + "\n" for event in events))
    (made.folder / "row.json").unlink()
    found = run(made, tmp_path).checks["training_data"]
    assert found == Check(passed=False, users=3, different=1)
