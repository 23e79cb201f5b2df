"""A failed guard keeps the run, says so in the row, and refuses the ranking."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lampbench_methods.rag import Rag
from lampbench_methods.reft import Reft
from lampbench_methods.user_lora import UserLora
from runs import plan, run, with_method
from support import dataset

from lampbench import PromptMethod
from lampbench.backbone import Usage
from lampbench.core import AskedUser, Method, Prompt, Query, User, derive_seed
from lampbench.rows import Check, RunRow

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


class Rounding(Echo):
    """Answers unknown users by the size of their batch, as rounding in bfloat16 can."""

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        unknown = sum(query.user_id not in self.known for query in queries)
        return [self.known.get(query.user_id, f"one of {unknown}") for query in queries]


def checks(tmp_path: Path, kind: type[Method]) -> dict[str, Any]:
    made = with_method(plan(tmp_path, "majority"), kind)
    row = run(made, tmp_path)
    assert row.status == "success", row.error
    found: dict[str, Any] = row.checks
    return found


@pytest.mark.parametrize("kind", [Echo, Rounding])
def test_a_method_that_keeps_users_apart_passes(tmp_path: Path, kind: type[Method]) -> None:
    found = checks(tmp_path, kind)
    assert {name: found[name].passed for name in ISOLATION} == dict.fromkeys(ISOLATION, True)


@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        (Leaky, {"fresh", "forget"}),
        (Clinging, {"forget"}),
        (Amnesiac, {"reload"}),
        (Brittle, {"isolation"}),
    ],
)
def test_each_guard_fails_where_its_promise_is_broken(tmp_path: Path, kind: type[Method], failed: set[str]) -> None:
    assert {name for name, check in checks(tmp_path, kind).items() if check.passed is False} == failed


@pytest.mark.parametrize("name", ["majority", "rag", "pag", "user-lora", "oppu", "perfit", "reft"])
def test_built_in_methods_pass_in_their_own_runs(tmp_path: Path, name: str) -> None:
    faster = {} if name in ("majority", "rag", "pag") else {"learning_rate": 0.03}
    row = run(plan(tmp_path, name, overrides=faster), tmp_path)
    assert row.failed_checks == ()
    assert set(row.checks) == {"parameters", "golds", *ISOLATION}


class Unmoving(UserLora):
    """Trains nothing: every user keeps the LoRA that training would begin with."""

    def adapt(self, users: Sequence[User]) -> None:
        super().adapt(users)
        self._states = {user: self.start(derive_seed(self.seed, "user", user)) for user in self._states}


class Unapplied(UserLora):
    """Trains, and answers without what it trained."""

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        return [self._answers([query], self.unadapted())[query.id] for query in queries]


class Halfway(UserLora):
    """Answers the last user without what it trained."""

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        last = max(self._states, default="")
        own: dict[str, str] = {}
        for query in queries:
            kept = [self._states[query.user_id]] if query.user_id in self._states and query.user_id != last else []
            adapters = [self.adapter().frozen(self.backbone, [state]) for state in kept]
            own |= self._answers([query], adapters)
        return [own[query.id] for query in queries]


def user_lora(tmp_path: Path, kind: type[UserLora], **overrides: Any) -> RunRow:
    made = plan(tmp_path, "user-lora", overrides={"epochs": 2, **overrides})
    found: RunRow = run(dataclasses.replace(made, method_type=kind, folder=made.folder / kind.__name__), tmp_path)
    assert found.status == "success", found.error
    return found


def test_a_null_result_is_a_result(tmp_path: Path) -> None:
    # So small a rate moves the parameters, and no answer.
    row = user_lora(tmp_path, UserLora, learning_rate=1e-6)
    assert row.checks is not None
    assert row.checks["adaptation"] == Check(passed=True, asked=2, changed=0, users=2, moved=2, applied=2)
    assert not [name for name, check in row.checks.items() if check.passed is False]


def test_parameters_that_did_not_move_are_found(tmp_path: Path) -> None:
    checks = user_lora(tmp_path, Unmoving).checks or {}
    assert checks["adaptation"] == Check(passed=False, asked=2, changed=0, users=2, moved=0, applied=0)


def test_a_random_start_that_was_not_trained_is_found_though_it_changes_answers(tmp_path: Path) -> None:
    class Untrained(Reft):
        def adapt(self, users: Sequence[User]) -> None:
            super().adapt(users)
            self._states = {user: self.start(derive_seed(self.seed, "user", user)) for user in self._states}

    made = plan(tmp_path, "reft", overrides={"start": "random"})
    found = run(dataclasses.replace(made, method_type=Untrained), tmp_path).checks["adaptation"]
    assert (found.passed, found.moved, found.applied) == (False, 0, 2)


def test_a_context_that_is_empty_fails_nothing(tmp_path: Path) -> None:
    class Silent(PromptMethod):
        def context(self, user: User, query: Query) -> str:
            return ""

    found = run(with_method(plan(tmp_path, "zero-shot"), Silent), tmp_path).checks["adaptation"]
    assert found == Check(passed=None, asked=2, applied=0)


@pytest.mark.parametrize(("kind", "applied"), [(Unapplied, 0), (Halfway, 1)])
def test_parameters_that_were_not_applied_are_found(tmp_path: Path, kind: type[UserLora], applied: int) -> None:
    checks = user_lora(tmp_path, kind).checks or {}
    assert checks["adaptation"] == Check(passed=False, asked=2, changed=0, users=2, moved=2, applied=applied)


def test_of_a_method_without_parameters_equal_answers_are_reported_and_not_failed(tmp_path: Path) -> None:
    assert checks(tmp_path, Idle)["adaptation"] == Check(passed=None, asked=2, changed=0)


def test_a_method_that_only_changes_prompts_is_checked_by_its_prompts(tmp_path: Path) -> None:
    row = run(plan(tmp_path, "rag"), tmp_path)
    assert row.checks["adaptation"] == Check(passed=True, asked=2, applied=2)
    assert [row.checks[name].passed for name in ("fresh", "forget", "reload")] == [True] * 3


class Remembering(Rag):
    """Puts another user's last item before the query of somebody it does not know."""

    def prompt(self, query: Query) -> Prompt:
        made, others = super().prompt(query), list(self._users.values())
        known = query.user_id in self._users
        return made if known or not others else made.with_context(others[0].history[-1].target)


def test_a_prompt_that_carries_another_user_fails_the_check(tmp_path: Path) -> None:
    row = run(with_method(plan(tmp_path, "rag"), Remembering), tmp_path)
    assert set(row.failed_checks) == {"forget", "fresh"}


def test_users_without_a_history_are_not_expected_to_move(tmp_path: Path) -> None:
    made = plan(tmp_path, "user-lora", overrides={"epochs": 2})
    first, *others = made.dataset.evaluated
    empty = AskedUser(User(first.user.id, ()), first.queries)
    made = dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, evaluated=[empty, *others]))
    found = run(made, tmp_path).checks["adaptation"]
    assert (found.passed, found.users, found.moved, found.applied) == (True, 2, 2, 2)


def test_checks_ask_the_beginning_of_a_long_text_and_predictions_the_whole_once(tmp_path: Path) -> None:
    asked: list[Query] = []

    class Heard(Echo):
        """Keeps what it is asked."""

        def predict(self, queries: Sequence[Query]) -> Sequence[str]:
            asked.extend(queries)
            return super().predict(queries)

    made = with_method(plan(tmp_path, "majority"), Heard)
    whole = "a long text " * 100
    evaluated = [
        AskedUser(own.user, tuple(dataclasses.replace(query, text=whole) for query in own.queries))
        for own in made.dataset.evaluated
    ]
    made = dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, evaluated=evaluated))
    assert run(made, tmp_path).failed_checks == ()
    own = {query.id for user in evaluated for query in user.queries}
    assert sorted(query.id for query in asked if query.text == whole) == sorted(own)
    short = [query for query in asked if query.text != whole]
    # No id stands for two texts; and two users and two strangers are asked six times.
    assert not own & {query.id for query in short}
    assert len(short) == 2 * 6
    assert all(whole.startswith(query.text) and len(query.text) < len(whole) / 4 for query in short)


@pytest.mark.parametrize(("users", "characters", "tokens"), [(3, 120, 4), (47, 120, 4), (48, 240, 8)])
def test_checks_of_a_small_run_ask_less_than_those_of_an_ordinary_one(
    tmp_path: Path, users: int, characters: int, tokens: int
) -> None:
    asked: set[int] = set()
    allowed: set[int] = set()

    class Model:
        """What the checks ask of a backbone."""

        usage = Usage()

        def warm_up(self) -> None:
            pass

        @contextmanager
        def brief(self, tokens: int) -> Iterator[None]:
            allowed.add(tokens)
            yield

    class Heard(Echo):
        def setup(self) -> None:
            super().setup()
            self.backbone = Model()

        def predict(self, queries: Sequence[Query]) -> Sequence[str]:
            asked.update(len(query.text) for query in queries)
            return super().predict(queries)

    made = with_method(plan(tmp_path, "majority"), Heard)
    first = made.dataset.evaluated[0]
    evaluated = []
    for number in range(users):
        queries = (Query(f"q{number}", f"u{number}", "a long text " * 100),)
        evaluated.append(AskedUser(User(f"u{number}", first.user.history), queries))
    golds = {f"q{number}": "gold" for number in range(users)}
    row = run(
        dataclasses.replace(made, dataset=dataclasses.replace(made.dataset, evaluated=evaluated, golds=golds)), tmp_path
    )
    assert row.failed_checks == ()
    assert (asked, allowed) == ({characters, 1200}, {tokens})


def test_a_run_of_the_first_release_is_continued_without_its_verdict_on_equal_answers(tmp_path: Path) -> None:
    made = with_method(plan(tmp_path, "majority"), Echo)
    run(made, tmp_path)
    journal = made.folder / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    shard = next(event for event in events if event["event"] == "shard")
    shard["checks"]["adaptation"] = {"passed": False, "asked": 3, "changed": 0}
    journal.write_text("".join(json.dumps(event) + "\n" for event in events))
    (made.folder / "row.json").unlink()
    assert run(made, tmp_path).checks["adaptation"] == Check(passed=None, asked=3, changed=0)


def test_methods_that_adapt_nothing_have_nothing_to_guard(tmp_path: Path) -> None:
    assert set(run(plan(tmp_path, "zero-shot"), tmp_path).checks) == {"parameters", "golds"}


def test_golds_that_can_be_reached_from_a_query_are_found(tmp_path: Path) -> None:
    made = with_method(plan(tmp_path, "majority"), Echo)
    golds = dict(made.dataset.golds)

    class Showing(Query):
        """A query that carries what it must not."""

        __slots__ = ("answers",)

    evaluated = []
    for asked in made.dataset.evaluated:
        showing = tuple(Showing(query.id, query.user_id, query.text) for query in asked.queries)
        for query in showing:
            object.__setattr__(query, "answers", golds)
        evaluated.append(AskedUser(asked.user, showing))
    data = dataclasses.replace(made.dataset, evaluated=evaluated, golds=golds)
    row = run(dataclasses.replace(made, dataset=data), tmp_path)
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
