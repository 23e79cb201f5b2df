"""What each user is asked, plainly and with context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from lampbench.analysis._request import Request
from lampbench.bases import PromptMethod
from lampbench.core import Prompt, Query, Task, User


@dataclass(frozen=True)
class Question:
    """One query of a user.

    Attributes:
        place: The user's number among those asked together.
        half: 0 for the user's first, third … query, 1 for the others: two halves that share no query.
        user: The user as far as the context may know them.
        query: What the context is chosen for.
        plain: The prompt without context.
    """

    place: int
    half: int
    user: User
    query: Query
    plain: Prompt


def questions(request: Request, users: Sequence[User], queries: Mapping[str, Sequence[Query]]) -> Iterator[Question]:
    """Everything that ``users`` are asked, user by user.

    Args:
        request: Says whether queries or history items are asked, and how many.
        users: Users who are asked together.
        queries: Every user's evaluated queries.
    """
    task = request.plan.task
    for place, user in enumerate(users):
        if request.source == "queries":
            asked = _of_queries(task, user, queries.get(user.id, ())[: request.most])
        else:
            asked = _of_history(task, user, request.most)
        for number, (known, query, plain) in enumerate(asked):
            yield Question(place, number % 2, known, query, plain)


def personalized(method: PromptMethod, asked: Sequence[Question]) -> list[Prompt]:
    """The prompts that ``method`` would ask, in order; it knows nobody afterwards."""
    users = {question.user.id: question.user for question in asked}
    known = iter(users.values())
    while some := list(islice(known, method.users_at_once)):
        method.adapt(some)
    prompts = []
    for question in asked:
        context = method.context(question.user, question.query)
        prompts.append(question.plain.with_context(context))
    for user_id in users:
        method.forget(user_id)
    return prompts


def _of_queries(task: Task, user: User, queries: Sequence[Query]) -> Iterator[tuple[User, Query, Prompt]]:
    for query in queries:
        yield user, query, task.prompt(query.text, query.id)


def _of_history(task: Task, user: User, most: int | None) -> Iterator[tuple[User, Query, Prompt]]:
    """History items as OPPU trains on them: of each, only strictly earlier items may be seen."""
    # The first item has nothing before it, so nothing could personalize its prompt.
    first = 1 if most is None else max(1, len(user.history) - most)
    for number in range(first, len(user.history)):
        item = user.history[number]
        # A user of its own, because a method may keep one state a user.
        known = User(f"{user.id} before {number}", user.history[:number])
        yield known, Query(item.id, known.id, item.source, item.date), task.pair(item).prompt
