"""Made-up users of any task, their files, and what is tried of a metric."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lampbench.core import HistoryItem, LabelledQuery, LabelledUser, Metric, Query, Task, User
from lampbench.data import Dataset
from lampbench.data.files import (
    OTHERS,
    Exported,
    LampSplit,
    Layout,
    OppuUsers,
    Source,
    export,
    labels_beside,
    oppu_folder,
)

TEXTS = (
    "A plain sentence of some words.",
    'Quotes "and" a backslash \\, a tab\tand an & sign',
    "Two lines\nof É, ñ, 漢字 and 🙂",
    "x",
    "  spaces around  ",
)
_ANSWERS = ("a short answer", "Another answer, with a comma", "one more answer of seven words, please")
_RATINGS = ("1", "2", "3", "4", "5")
_EVALUATED, _SHARED, _ITEMS, _QUERIES = 3, 2, 4, 2


@dataclass(frozen=True)
class Users:
    """Made-up users."""

    evaluated: Sequence[LabelledUser]
    shared: Sequence[LabelledUser]


def answers_of(task: Task, given: Sequence[str]) -> list[str]:
    """Those of ``given``, or of made-up answers, that the task accepts."""
    made = given or task.labels or (_RATINGS if task.kind == "rating" else _ANSWERS)
    return [answer for answer in made if task.accepts(answer.strip())]


def canaries_of(task: Task) -> list[str]:
    """Answers that nobody can guess; none if the task accepts no such answers."""
    made = [f"gold {secrets.token_hex(8)}" for _ in range(_QUERIES)] if task.kind == "text" else []
    return made if all(map(task.accepts, made)) else []


def made_up(task: Task, golds: Sequence[str], history: Sequence[str] = ()) -> Users:
    """Users whose answers are ``golds`` in turn, and in their histories ``history``, or else ``golds``."""
    known = history or golds

    def user(name: str, first: int) -> LabelledUser:
        items = tuple(
            HistoryItem(
                f"{name}-{number}",
                TEXTS[(first + number) % len(TEXTS)] if task.item_source else "",
                known[(first + number) % len(known)],
                f"2020-01-{number + 1:02}" if "date" in task.item_fields else "",
            )
            for number in range(_ITEMS)
        )
        queries = tuple(
            LabelledQuery(
                Query(f"{name}-q{number}", name, f"question {number} of {name}: {TEXTS[number]}"),
                golds[(first + number) % len(golds)],
            )
            for number in range(_QUERIES)
        )
        return LabelledUser(User(name, items), queries)

    return Users(
        [user(f"evaluated-{number}", number) for number in range(_EVALUATED)],
        [user(f"shared-{number}", number) for number in range(_SHARED)],
    )


@contextmanager
def read_back(task: Task, users: Users, layout: Layout) -> Iterator[Dataset]:
    """The users, written to files and read from them; nothing is left in the cache."""
    from lampbench.data.store import Selection, stored_split

    with TemporaryDirectory(prefix="lampbench-contract-") as name:
        folder = Path(name)
        export(Exported(task, users.evaluated, users.shared, None), layout, folder)
        evaluated, shared = (
            Selection.whole(stored_split([source], task, cached=False, say=lambda text: None))
            for source in _sources(task, layout, folder)
        )
        yield Dataset.of(task, shared, evaluated, sources={})


def _sources(task: Task, layout: Layout, folder: Path) -> list[Source]:
    """The files of the evaluated and of the shared users."""
    if layout == "lamp":
        return [LampSplit(folder / task.official[0] / name) for name in ("dev", "train")]
    own = folder / oppu_folder(task)
    return [OppuUsers(own / task.oppu_users, labels_beside(own / task.oppu_users)), OppuUsers(own / OTHERS)]


def metric_faults(metric: Metric, golds: Sequence[str], labels: Sequence[str], bad: Sequence[str]) -> Iterator[str]:
    """What is wrong with a metric on answers to queries with these golds."""
    from lampbench.metrics import Additive, terms_of

    def value(terms: object) -> float:
        return Additive.of(metric, terms).micro  # type: ignore[arg-type]

    asked = [gold for gold in golds for _ in bad]
    answers = {"good": asked, "empty": [""] * len(asked), "bad": [answer for _ in golds for answer in bad]}
    terms = {name: terms_of(metric, given, asked, labels) for name, given in answers.items()}
    values = {name: value(own) for name, own in terms.items()}
    low, high = metric.bounds
    for name, found in values.items():
        if not math.isfinite(found) or not low <= found <= high:
            yield f"{name} answers score {found}; expected a number from {low} to {high}"
    best = max(values.values()) if metric.higher_is_better else min(values.values())
    if not math.isclose(values["good"], best):
        direction = "higher" if metric.higher_is_better else "lower"
        yield f"good answers score {values['good']}, others {best}, and {direction} is better"
    for place in range(len(asked)):
        alone = terms_of(metric, [answers["bad"][place]], [asked[place]], labels)
        if not (alone == terms["bad"][place]).all():
            answer = answers["bad"][place]
            yield f"the answer {answer!r} adds {alone.tolist()[0]} alone, and something else among others"
            return
    mixed = (terms["good"] + terms["bad"]) / 2
    if metric.linear and not math.isclose(value(mixed), (values["good"] + values["bad"]) / 2, rel_tol=1e-9):
        yield "it is declared linear, but the value of mean sums is not the mean of the values"
