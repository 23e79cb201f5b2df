"""Who is held out, and that no evaluated user is in what a search sees."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import with_method
from support import TINY_DATA, Silence, dataset, task

from lampbench.core import HistoryItem, InputError, LabelledQuery, LabelledUser, Method, Query, User
from lampbench.data import Dataset
from lampbench.data.mini.protocol import MiniProtocol
from lampbench.runner import Plan, Planner, Session, Settings, load_protocol
from lampbench.tune import HeldOut, hold_out

TASK = task("lamp5")


def person(name: str, queries: int = 1, history: str | None = None) -> LabelledUser:
    own = history or f"what {name} wrote"
    asked = [LabelledQuery(Query(f"{name}q{i}", name, f"{name} asks {i}"), f"gold {name} {i}") for i in range(queries)]
    return LabelledUser(User(name, (HistoryItem(f"{name}h", own, f"title of {own}"),)), tuple(asked))


def data(shared: Sequence[LabelledUser], evaluated: Sequence[LabelledUser] = (person("judged"),)) -> Dataset:
    return Dataset.of(TASK, shared, evaluated, sources={})


def ids(users: Sequence[Any]) -> set[str]:
    return {getattr(user, "user", user).id for user in users}


def texts(users: Sequence[LabelledUser]) -> set[str]:
    """Every text of theirs: ids, histories, queries and golds."""
    found = {entry.user.id for entry in users}
    for entry in users:
        found |= {text for item in entry.user.history for text in (item.id, item.source, item.target) if text}
        found |= {text for own in entry.queries for text in (own.query.id, own.query.text, own.target)}
    return found


def their_own(whole: Dataset) -> set[str]:
    """Texts that evaluated users alone have; invented titles are short, and some are two users'."""
    own = texts(whole.labelled()) - texts(whole.shared)
    assert len(own) > 20
    return own


@settings(max_examples=60, deadline=None)
@given(
    queries=st.lists(st.integers(0, 2), min_size=2, max_size=12),
    part=st.floats(0.05, 0.95),
    seed=st.integers(0, 5),
    shuffle=st.randoms(use_true_random=False),
)
def test_a_split_is_a_partition_that_the_order_of_users_does_not_change(
    queries: list[int], part: float, seed: int, shuffle: Any
) -> None:
    shared = [person(f"user{number}", count) for number, count in enumerate(queries)]
    asked = sum(count > 0 for count in queries)
    if not 0 < round(part * asked) < asked:
        with pytest.raises(InputError, match=r"expected (2 or more|at least one on either side)"):
            hold_out(TASK, data(shared), part, seed)
        return
    made = hold_out(TASK, data(shared), part, seed)
    assert ids(made.users).isdisjoint(ids(made.shared))
    assert ids(made.users) | ids(made.shared) == ids(shared)
    assert len(made.users) == round(part * asked)
    # Who asks nothing cannot be asked.
    assert {query.user_id for query in made.queries} == ids(made.users)
    assert set(made.golds) == {query.id for query in made.queries}
    shuffle.shuffle(shared)
    assert ids(hold_out(TASK, data(shared), part, seed).users) == ids(made.users)


def test_another_seed_holds_out_others() -> None:
    shared = [person(f"user{number}") for number in range(40)]
    chosen = [frozenset(ids(hold_out(TASK, data(shared), 0.2, seed).users)) for seed in range(3)]
    assert len(set(chosen)) == 3


def test_shared_users_who_are_evaluated_are_left_out_under_any_id() -> None:
    judged = person("judged")
    alias = person("alias", history="what judged wrote")
    shared = [*(person(f"user{number}") for number in range(4)), judged, alias]
    made = hold_out(TASK, data(shared, [judged]), 0.5, 0)
    assert ids(made.users) | ids(made.shared) == {"user0", "user1", "user2", "user3"}
    assert "tuning data: 2 shared users are evaluated as well, and left out" in made.notes


@pytest.mark.parametrize(
    ("shared", "part", "message"),
    [
        ([], 0.2, "lamp5: the protocol has no shared users (no train split)"),
        ([person("one"), person("silent", 0)], 0.5, "lamp5: 1 of 2 shared users have queries and are not evaluated"),
        ([person("one"), person("two")], 0.1, "--held-out 0.1 holds out 0 of 2 shared users; expected at least one"),
        ([person("one"), person("two")], 0.9, "--held-out 0.9 holds out 2 of 2 shared users; expected at least one"),
    ],
)
def test_nobody_to_ask_or_to_learn_from_is_an_error(shared: list[LabelledUser], part: float, message: str) -> None:
    with pytest.raises(InputError) as caught:
        hold_out(TASK, data(shared), part, 0)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("whole", [dataset("lamp5", TINY_DATA), MiniProtocol().load(TASK, None)], ids=["tiny", "mini"])
def test_nothing_of_an_evaluated_user_is_in_the_data(whole: Dataset) -> None:
    made = hold_out(TASK, whole, 0.5, 0)
    seen = texts([*made.shared, *made.labelled()])
    assert seen == texts(whole.shared)
    assert seen.isdisjoint(their_own(whole))
    assert ids(made.users) | ids(made.shared) == ids(whole.shared)
    assert made.hash != whole.hash


class Spy(Method):
    """Keeps every text that the runner hands to a method."""

    needs_backbone = False
    seen: ClassVar[set[str]] = set()

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        self.seen.update(texts(users))

    def adapt(self, users: Sequence[User]) -> None:
        self.seen.update(texts([LabelledUser(user, ()) for user in users]))

    def predict(self, queries: Sequence[Query]) -> list[str]:
        self.seen.update(text for query in queries for text in (query.id, query.user_id, query.text))
        return [query.user_id for query in queries]


def test_no_method_gets_to_see_an_evaluated_user_in_a_trial(tmp_path: Path) -> None:
    users = HeldOut("mini", 0.2, 0)
    planner = Planner(Settings(protocol=users.name, out=tmp_path), protocol=users)
    plan = planner.plan("majority", "lamp5", {})
    assert isinstance(plan, Plan)
    row = Session(planner, Silence()).run(with_method(plan, Spy))
    assert row.status == "success", row.error
    whole = MiniProtocol().load(TASK, None)
    # All shared users were handed over, and nobody else.
    assert ids(whole.shared) <= Spy.seen
    assert Spy.seen.isdisjoint(their_own(whole))


def test_the_data_is_none_of_a_registered_protocol() -> None:
    users = HeldOut("cold-k,base=mini,k=4", 0.25, 3)
    assert users.name == "cold-k,base=mini,k=4,tune=0.25,seed=3"
    assert users.origin == "mini"
    with pytest.raises(InputError, match="unknown setting of the protocol 'cold-k' 'tune'"):
        load_protocol(users.name)
    made = users.load(TASK, None)
    assert made.label == "mini (synthetic)"
    assert "tuning data: 16 of 64 shared users are held out and asked; no evaluated user is here" in made.notes
