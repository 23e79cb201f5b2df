"""The phases in which a method answers, and its answers are scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lampbench.core import LampBenchError, Method, Prediction, Query, User
from lampbench.data import Dataset
from lampbench.metrics import Score, score, score_sums
from lampbench.runner._learn import adapts_users
from lampbench.runner._plan import Plan
from lampbench.runner._work import Bar, Work


def predict(work: Work, method: Method) -> None:
    """Ask what no earlier session asked; answers are on disk chunk by chunk."""
    queries = work.dataset.queries
    answered = work.folder.predictions()
    waiting = [query for query in queries if query.id not in answered]
    done = len(queries) - len(waiting)
    with work.enter("predict", len(queries)) as bar:
        bar.move(done, len(queries))
        for chunk in chunks(waiting, work.chunk):
            with work.measured("predict"):
                outputs = checked(method.predict(chunk), chunk)
                work.folder.add_predictions(
                    Prediction(query.id, query.user_id, output) for query, output in zip(chunk, outputs, strict=True)
                )
            done += len(chunk)
            bar.move(done, len(queries))
            work.stop.check()


def score_answers(work: Work) -> dict[str, Score]:
    """Score all answers; the folder gets each user's sums, and the answers in LaMP's shape."""
    # numpy waits until a command has work for it.
    from lampbench.metrics import additive, sums_to_json

    task, queries = work.plan.task, work.dataset.queries
    # Two made-up answers: what scoring imports is loaded outside of what is measured.
    score(task, ["1", "1"], ["1", "1"], ["a", "b"])
    with work.enter("score", 1) as bar:
        with work.measured("score"):
            # As one undisturbed process would have written them.
            work.folder.order_predictions(query.id for chunk in chunks(queries, 1) for query in chunk)
            answers = work.folder.predictions()
            outputs = [answers[query.id] for query in queries]
            golds = [work.dataset.golds[query.id] for query in queries]
            users = [query.user_id for query in queries]
            sums = additive(task, outputs, golds, users)
            work.folder.write(work.folder.sums_path, sums_to_json(users, sums))
            scores = score_sums(task, sums, len(queries))
            official = [{"id": q.id, "output": output} for q, output in zip(queries, outputs, strict=True)]
            label = {"about": work.dataset.label} if work.dataset.label else {}
            work.folder.write(work.folder.official_path, {"task": task.evaluator_name, **label, "golds": official})
        bar.move(1, 1)
    return scores


def swap(work: Work, method: Method) -> dict[str, Score] | None:
    """Scores when every user has the next user's history and state; None where there is nothing to swap."""
    if not can_swap(work.plan, work.dataset):
        return None
    with work.enter("swap", len(work.dataset.queries)) as bar, work.measured("swap"):
        for user, other in neighbours(work.dataset.users):
            method.forget(user.id)
            method.load_user(User(user.id, other.history), work.folder.user_state(other.id))
        answers = ask(work, method, bar)
    return score_swapped(work, answers)


def can_swap(plan: Plan, dataset: Dataset) -> bool:
    """Whether there are states, and users to swap them between."""
    return adapts_users(plan.method_type) and len(dataset.users) > 1


def neighbours(users: Sequence[User]) -> list[tuple[User, User]]:
    """Every user, and the next one."""
    return list(zip(users, [*users[1:], users[0]], strict=True))


def ask(work: Work, method: Method, bar: Bar) -> dict[str, str]:
    """Answers that are kept nowhere, by query."""
    answers: dict[str, str] = {}
    for chunk in chunks(work.dataset.queries, work.chunk):
        outputs = checked(method.predict(chunk), chunk)
        answers |= {query.id: output for query, output in zip(chunk, outputs, strict=True)}
        bar.move(len(answers), len(work.dataset.queries))
        work.stop.check()
    return answers


def score_swapped(work: Work, answers: Mapping[str, str]) -> dict[str, Score]:
    """Scores of what was answered with other users' states."""
    queries = work.dataset.queries
    outputs, golds = ([source[query.id] for query in queries] for source in (answers, work.dataset.golds))
    return score(work.plan.task, outputs, golds, [query.user_id for query in queries])


def chunks(queries: Sequence[Query], size: int) -> Iterator[list[Query]]:
    """Queries in chunks of about ``size`` that keep a user's queries together."""
    by_user: dict[str, list[Query]] = {}
    for query in queries:
        by_user.setdefault(query.user_id, []).append(query)
    chunk: list[Query] = []
    for own in by_user.values():
        chunk.extend(own)
        if len(chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def checked(outputs: Sequence[str], queries: Sequence[Query]) -> Sequence[str]:
    """The outputs of ``predict``; raises LampBenchError where they are not one string a query."""
    whole = isinstance(outputs, Sequence) and not isinstance(outputs, (str, bytes))
    if not whole or len(outputs) != len(queries):
        found = f"{len(outputs)} answers" if whole else f"a {type(outputs).__name__}"
        raise LampBenchError(f"predict returned {found} for {len(queries)} queries; expected one string a query")
    for query, output in zip(queries, outputs, strict=True):
        if not isinstance(output, str):
            raise LampBenchError(f"predict returned {output!r} for query {query.id!r}; expected a string")
    return outputs
