"""A few answers of a run, with prompt and gold: of the mini suite alone, whose users and texts are invented."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import isfinite

from lampbench.core import InputError, Task, tasks
from lampbench.data import Dataset
from lampbench.data.mini import LABEL
from lampbench.leaderboard._cells import ABSENT, score
from lampbench.leaderboard._results import Result, read_predictions
from lampbench.metrics import additive
from lampbench.runner import load_protocol

_MINI = "mini"
_SHOWN = 5
_LONGEST_PROMPT = 420


@dataclass(frozen=True)
class Sample:
    """A query that was answered.

    Attributes:
        prompt: The end of what the model read; for a method without a model, the query's text.
        score: The primary metric of this answer alone.
    """

    user: str
    prompt: str
    answer: str
    gold: str
    score: str


class Samples:
    """Finds the samples of runs; the data of a task is made once."""

    def __init__(self) -> None:
        self._data = cache(_data)

    def __call__(self, result: Result) -> tuple[Sample, ...]:
        """The first query of the first users; none if the texts are not mini's, as they are now."""
        identity = result.identity
        if result.row.data.label != LABEL:
            return ()
        data = self._data(identity.protocol, identity.task)
        if data is None or data.hash != identity.protocol_hash:
            return ()
        try:
            outputs = {answer.id: answer.output for answer in read_predictions(result.folder)}
        except InputError:
            return ()
        task: Task = tasks().load(identity.task)
        asked = [user.queries[0] for user in data.evaluated if user.queries and user.queries[0].id in outputs]
        reads_prompts = identity.backbone is not None and identity.prompt_hash == task.prompt_hash()
        return tuple(
            Sample(
                query.user_id,
                _end(task.prompt(query.text).text if reads_prompts else query.text),
                outputs[query.id],
                data.golds[query.id],
                _score(task, outputs[query.id], data.golds[query.id]),
            )
            for query in asked[:_SHOWN]
        )


def _data(protocol: str, task: str) -> Dataset | None:
    """The data of mini, or of a protocol made of it; None for any other."""
    try:
        own, name = load_protocol(protocol)
        if _MINI not in (name, own.origin):
            return None
        data = own.load(tasks().load(task), None)
    except InputError:
        return None
    return data if data.label == LABEL else None


def _end(text: str) -> str:
    return text if len(text) <= _LONGEST_PROMPT else f"…{text[-_LONGEST_PROMPT:]}"


def _score(task: Task, answer: str, gold: str) -> str:
    (value,) = additive(task, [answer], [gold])[task.primary.key].own
    return score(float(value)) if isfinite(value) else ABSENT
