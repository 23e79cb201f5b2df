"""What is to be measured, resolved and named before any weights are loaded; and what each user is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from lampbench.backbone import BackboneInfo, is_served
from lampbench.bases import PromptMethod
from lampbench.core import InputError, Prompt, Query, Task, User, digest
from lampbench.data import Dataset
from lampbench.runner import Plan, Planner, Skip

# Must be raised with every change here that could change a delta vector, or how it is stored.
FORMAT = 1
QuerySource = Literal["queries", "history"]


@dataclass(frozen=True)
class Asking:
    """What the user chose beside the run's own settings.

    Attributes:
        context: The method whose prompts are the personalized ones.
        overrides: Its settings.
        layers: Decoder layers, 0-based; None for all.
        source: Ask the evaluated queries, or each history item after strictly earlier ones.
        most: At most so many queries per user (of the history the latest); None for all.
    """

    context: str = "rag"
    overrides: Mapping[str, Any] | None = None
    layers: tuple[int, ...] | None = None
    source: QuerySource = "queries"
    most: int | None = None


@dataclass(frozen=True)
class Request:
    """Delta vectors to collect.

    Attributes:
        plan: The task, and the method whose prompts are the personalized ones, with its config.
        backbone: The plan's own.
        data: The evaluated users and queries that are asked.
        layers: Decoder layers, 0-based, ascending.
        identity: Everything that can change a delta vector.
    """

    plan: Plan
    backbone: BackboneInfo
    data: Dataset
    layers: tuple[int, ...]
    source: QuerySource
    most: int | None
    identity: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A folder's name that no other identity has."""
        return f"{self.plan.task.name}-{digest(self.identity)[:12]}"


def resolve(planner: Planner, task: str, asking: Asking) -> Request:
    """Everything about the delta vectors of ``task`` but the vectors.

    Raises:
        InputError: A name, setting, file, model or layer is wrong, or there are fewer than two users.
    """
    if is_served(planner.settings.model):
        raise InputError(
            f"--model {planner.settings.model}: hidden states are measured, and a served model shows none; name a "
            "folder or hub id"
        )
    plan = planner.plan(asking.context, task, asking.overrides or {})
    if isinstance(plan, Skip):
        raise InputError(f"--context {asking.context} cannot do {task}: {plan.reason}")
    if not issubclass(plan.method_type, PromptMethod) or not isinstance(plan.backbone, BackboneInfo):
        raise InputError(
            f"--context {asking.context}: expected a method that puts something before the query, such as rag or pag"
        )
    data = plan.dataset
    if len(data.users) < 2:
        raise InputError(f"{task}: {len(data.users)} user; shifts are compared over users, give at least 2 (--users)")
    layers = _layers(asking.layers, plan.backbone.shape.layers)
    identity = {
        "format": FORMAT,
        **{
            key: plan.identity[key]
            for key in ("task", "task_version", "protocol", "protocol_hash", "limit", "prompt_hash", "backbone", "seed")
        },
        "context": {key: plan.identity[key] for key in ("method", "method_version", "config")},
        "layers": list(layers),
        "position": "last prompt token",
        "source": asking.source,
        "most": asking.most,
    }
    # What else of decoding changes a prompt; defaults are left out.
    asked = {key: plan.identity["decoding"][key] for key in ("chat", "max_length") if key in plan.identity["decoding"]}
    if asked:
        identity["decoding"] = asked
    if plan.backbone.dtype != "float32":
        # Below float32 rounding may depend on the batch.
        identity["batch_size"] = plan.settings.batch_size
    return Request(plan, plan.backbone, data, layers, asking.source, asking.most, identity)


def _layers(wanted: tuple[int, ...] | None, depth: int) -> tuple[int, ...]:
    if wanted is None:
        return tuple(range(depth))
    for layer in wanted:
        if not 0 <= layer < depth:
            raise InputError(f"--layers: no layer {layer}; the backbone has layers 0 to {depth - 1}")
    if not wanted:
        raise InputError(f"--layers: expected layers from 0 to {depth - 1}, comma-separated, or all; found none")
    return tuple(sorted(set(wanted)))


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
    """The prompts that ``method`` would ask, in order; afterwards it has forgotten all users."""
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
    # As in a run, users without a history are not adapted.
    for query in queries if user.history else ():
        yield user, query, task.prompt(query.text, query.id)


def _of_history(task: Task, user: User, most: int | None) -> Iterator[tuple[User, Query, Prompt]]:
    """History items as OPPU trains on them: of each, only strictly earlier items may be seen."""
    # The first item has nothing before it, so nothing could personalize its prompt.
    first = 1 if most is None else max(1, len(user.history) - most)
    for number in range(first, len(user.history)):
        item = user.history[number]
        # A user of its own, because a method may keep one state per user.
        known = User(f"{user.id} before {number}", user.history[:number])
        yield known, Query(item.id, known.id, item.source, item.date), task.pair(item).prompt
