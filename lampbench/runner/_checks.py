"""Isolation, checked in every run: what a method does to a few users, and to some who do not exist."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from lampbench.bases import PromptMethod
from lampbench.core import AskedUser, HistoryItem, LampBenchError, Method, Query, User, digest
from lampbench.data import Dataset
from lampbench.runner._reach import reachable

# Users of a run whose answers are checked: one of so many, within these bounds; and queries of each.
_ONE_IN, _FEWEST, _MOST, _QUERIES_EACH = 12, 2, 4, 1
# The first tokens tell whether answers are equal. With a real model, whole answers would take a third of a short run.
_TOKENS, _FEW_TOKENS = 8, 4
# And the beginning of a long text is a question as good as the whole: most of a check's time is reading.
_CHARACTERS, _FEW_CHARACTERS = 240, 120
# Users from whose data a path to the golds is searched for.
_LOOKED_AT = 8

_Any = TypeVar("_Any")
Answers = dict[str, str]
Checks = dict[str, dict[str, Any]]


class Guards:
    """The isolation checks of one unit of a method that adapts; created before anyone is adapted.

    Users, and strangers in whose name the same is asked, are each always asked in one batch of their own: in bfloat16
    a prompt's answer can differ with the batch that it is in. Of a method that only changes prompts, the prompts are
    compared, since answers follow from them: nothing is computed, and a served model is not asked.

    Args:
        method: The method.
        users: Whose answers are looked at.
        everyone: The unit's users: no id made up here is one of theirs.
        small: Whether the run is a small one, whose questions and answers are shorter.
    """

    def __init__(
        self, method: Method, users: Sequence[AskedUser], everyone: Sequence[AskedUser], *, small: bool = False
    ) -> None:
        self._method = method
        self._tokens = _FEW_TOKENS if small else _TOKENS
        self._prompts: PromptMethod | None = None
        if isinstance(method, PromptMethod) and type(method).predict is PromptMethod.predict:
            self._prompts = method
        self._users = [asked.user for asked in users]
        sample = [query for asked in users for query in asked.queries[:_QUERIES_EACH]]
        longest = _FEW_CHARACTERS if small else _CHARACTERS
        self._sample = [_short(query, longest) for query in sample] if self._prompts is None else sample
        stranger = f"stranger-{digest([asked.user.id for asked in everyone])[:16]}"
        self._strangers = [replace(query, id=f"{stranger}-{query.id}", user_id=stranger) for query in self._sample]
        self._before, self._before_strangers = self._asked(self._sample), self._asked(self._strangers)
        self._logits = self._heard()

    def after(self, reload: Callable[[User], None]) -> Checks:
        """The checks, once all users are adapted; afterwards these users may have been forgotten.

        Args:
            reload: Restores a user's saved state.
        """
        adapted, strangers = self._asked(self._sample), self._asked(self._strangers)
        adaptation = self._adaptation(adapted)
        for user in self._users:
            self._method.forget(user.id)
        forgotten = self._asked(self._sample)
        for user in self._users:
            reload(user)
        reloaded = self._asked(self._sample)
        return {
            "fresh": _same(self._before_strangers, strangers),
            "forget": _same(self._before, forgotten),
            "reload": _same(adapted, reloaded),
            "adaptation": adaptation,
        }

    def _adaptation(self, adapted: Answers) -> dict[str, Any]:
        """Whether adapting moved every user's parameters, and the backbone's logits with them.

        Answers that stay the same are a result, not a failure; a method without parameters has nothing else to compare.
        """
        learners = {user.id for user in self._users if user.history}
        differ = [query for query, answer in adapted.items() if answer != self._before[query]]
        if self._prompts is not None:
            return {"passed": True if differ else None, "asked": len(adapted), "applied": len(differ)}
        found = {"asked": len(adapted), "changed": len(differ)}
        moved = [self._method.moved(user) for user in sorted(learners)]
        if None not in moved:
            found |= {"users": len(moved), "moved": moved.count(True)}
        logits = self._heard()
        asked = [query.id for query in self._sample if query.user_id in learners and logits.get(query.id)]
        if asked:
            found["applied"] = sum(logits[query] != self._logits[query] for query in asked)
        trains = self._method.parameters().per_user > 0
        idle = found.get("moved", 0) < found.get("users", 0) or found.get("applied", 0) < len(asked)
        seen = any(found.get(name, 0) for name in ("changed", "moved", "applied"))
        return {"passed": False if trains and idle else seen or None, **found}

    def _heard(self) -> dict[str, Sequence[str]]:
        """Query id -> hashes of the logits that answered it; empty if the backbone gives none.

        Each query is asked alone, so that what differs is never the rounding of another batch.
        """
        listening: Any = None if self._prompts else getattr(self._method.backbone, "listening", None)
        found: dict[str, Sequence[str]] = {}
        for query in self._sample if listening else ():
            with listening() as found[query.id], self._brief(1):
                answers_of(self._method, [query])
        return found

    def _asked(self, queries: Sequence[Query]) -> Answers:
        """Query id -> the prompt, or the beginning of the answer, all queries in one batch."""
        if self._prompts is not None:
            return {query.id: str(self._prompts.prompt(query)) for query in queries}
        with self._brief(self._tokens):
            return _by_id(queries, answers_of(self._method, queries))

    def _brief(self, tokens: int) -> AbstractContextManager[None]:
        """Answers of the method's backbone, if it writes any, are short inside the ``with`` block."""
        brief: Any = getattr(self._method.backbone, "brief", None)
        short: AbstractContextManager[None] = brief(tokens) if brief else nullcontext()
        return short


def answers_of(method: Method, queries: Sequence[Query]) -> Sequence[str]:
    """What ``predict`` returns; raises LampBenchError unless it is one string per query."""
    outputs = method.predict(queries)
    whole = isinstance(outputs, Sequence) and not isinstance(outputs, (str, bytes))
    if not whole or len(outputs) != len(queries):
        found = f"{len(outputs)} answers" if whole else f"a {type(outputs).__name__}"
        raise LampBenchError(f"predict returned {found} for {len(queries)} queries; expected one string per query")
    for query, output in zip(queries, outputs, strict=True):
        if not isinstance(output, str):
            raise LampBenchError(f"predict returned {output!r} for query {query.id!r}; expected a string")
    return outputs


def guarded(users: Sequence[_Any]) -> list[_Any]:
    """The users of a run whose answers are checked: some, evenly from the first to the last."""
    last, some = len(users) - 1, max(_FEWEST, min(_MOST, len(users) // _ONE_IN))
    places = sorted({round(i * last / (some - 1)) for i in range(some)})
    return [users[place] for place in places]


def is_small(users: int) -> bool:
    """Whether a run of so many users is small: what larger runs are asked would take a large part of its time."""
    return users < _MOST * _ONE_IN


def together(parts: Iterable[Mapping[str, Mapping[str, Any]]]) -> Checks:
    """What the checks of several units found, as one finding per check."""
    found: Checks = {}
    for part in parts:
        for name, check in part.items():
            own = _as_found_now(name, check)
            found[name] = _both(found[name], own) if name in found else own
    return found


def data_checks(data: Dataset, adapted: Iterable[Mapping[str, Any]] | None, joint: str | None = None) -> Checks:
    """What can be checked without the method.

    Args:
        data: The run's data.
        adapted: The journal's ``adapt`` events; None for a method that adapts nobody.
        joint: What the journal says joint training read; None without joint training.
    """
    looked_at = data.evaluated[:_LOOKED_AT]
    handed = [part for asked in looked_at for part in (asked.user, *asked.queries)]
    way = reachable(handed, lambda item: item is data.golds or isinstance(item, Dataset))
    checks: Checks = {"golds": {"passed": way is None, "way": way}}
    if adapted is not None:
        made = {user: own for event in adapted for user, own in event.get("data", {}).items()}
        different = sum(made.get(asked.user.id) != _expected(asked.user) for asked in data.evaluated)
        checks["training_data"] = {"passed": different == 0, "users": len(data.evaluated), "different": different}
    if joint is not None:
        users = joint_users(data)
        checks["joint_data"] = {"passed": joint == histories_digest(users), "users": len(users)}
    return checks


def joint_users(data: Dataset) -> tuple[User, ...]:
    """Whom joint training reads: all evaluated users who have a history."""
    return tuple(asked.user for asked in data.evaluated if asked.user.history)


def histories_digest(users: Iterable[User]) -> str:
    """Identifies exactly what joint training reads."""
    return digest([history_digest(user) for user in users])[:16]


def _expected(user: User) -> str | None:
    """What the journal names as a user's training data; None for a user without a history, who is not adapted."""
    return history_digest(user) if user.history else None


def history_digest(user: User) -> str:
    """Identifies exactly what a user is adapted to."""
    return digest([user.id, [_fields(item) for item in user.history]])[:16]


def _fields(item: HistoryItem) -> list[str]:
    return [item.id, item.source, item.target, item.date]


def _both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    counts = {key: first[key] + value for key, value in second.items() if key in first and type(value) is int}
    verdicts = (first["passed"], second["passed"])
    # A promise is kept only if all parts keep it; a part that could not tell (null) leaves it to the others.
    passed = False if False in verdicts else True if True in verdicts else None
    return {**first, **second, **counts, "passed": passed}


def _as_found_now(name: str, check: Mapping[str, Any]) -> dict[str, Any]:
    """A finding in a journal. The first release failed parts of a run if adapting changed no answer."""
    if name == "adaptation" and check["passed"] is False and not {"moved", "applied"} & set(check):
        return {**check, "passed": None}
    return dict(check)


def _short(query: Query, characters: int) -> Query:
    """The query with the beginning of a long text, under an id of its own: methods may keep things by id."""
    if len(query.text) <= characters:
        return query
    return replace(query, id=f"{query.id}-beginning", text=query.text[:characters])


def _same(first: Answers, second: Answers) -> dict[str, Any]:
    different = sum(answer != second[query] for query, answer in first.items())
    return {"passed": different == 0, "asked": len(first), "different": different}


def _by_id(queries: Sequence[Query], answers: Sequence[str]) -> Answers:
    return dict(zip([query.id for query in queries], answers, strict=True))
