"""A run's answers, one by one: what was asked, with which context, what came back, and how it scores."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from lampbench.core import InputError, Method, Prompt, Query, Task, User, config_from, find_kept_task
from lampbench.data import Dataset
from lampbench.rows import Row
from lampbench.runner import RunFolder, load_method, load_protocol, load_task

DataOf = Callable[[Row], Dataset]


@dataclass(frozen=True)
class Asked:
    """One query of a run and what became of it.

    Attributes:
        user: With the history.
        gold: The answer of the data.
        answer: The method's.
        score: The primary metric of this query alone; None if it is not finite.
    """

    user: User
    query: Query
    gold: str
    answer: str
    score: float | None


class Look:
    """A finished run and the data that it was about.

    Args:
        row: The run.
        folder: Where its files are.
        data_of: Finds the data.

    Raises:
        InputError: The data is not at hand, is not that of the run, or an answer is missing.
    """

    def __init__(self, row: Row, folder: Path, data_of: DataOf) -> None:
        self.row = row
        self.folder = folder
        find_kept_task(folder, row.identity.task, with_others=False)
        self.task = _worded(load_task(row.identity.task), row)
        self._data = data_of(row)

    @cached_property
    def asked(self) -> list[Asked]:
        """Every query, in the order of the data."""
        from lampbench.leaderboard import read_predictions
        from lampbench.metrics import additive

        answers = {answer.id: answer.output for answer in read_predictions(self.folder)}
        pairs = [(asked.user, query) for asked in self._data.evaluated for query in asked.queries]
        missing = [query.id for _, query in pairs if query.id not in answers]
        if missing:
            raise InputError(f"{self.folder}: no answer to query {missing[0]!r}; the run is not whole")
        outputs, golds = [answers[query.id] for _, query in pairs], [self._data.golds[query.id] for _, query in pairs]
        values = additive(self.task, outputs, golds)[self.task.primary.key].own.tolist()
        return [
            Asked(user, query, gold, output, value if isfinite(value) else None)
            for (user, query), gold, output, value in zip(pairs, golds, outputs, values, strict=True)
        ]

    @cached_property
    def prompts(self) -> Prompts:
        """Makes the prompts of the run again."""
        return Prompts(self.task, self.row, self.folder)


class Prompts:
    """Makes a run's prompts again, as its method did, from the states in the run's folder.

    No weights are loaded. A prompt that the model had no room for was cut then, and is whole here.
    """

    def __init__(self, task: Task, row: Row, folder: Path) -> None:
        self._task = task
        self._row = row
        self._folder = RunFolder(folder)
        self._known: set[str] = set()

    def of(self, user: User, query: Query) -> tuple[Prompt | None, str]:
        """The prompt, and what has to be said about it: why there is none, or why its context is not known."""
        if self._row.identity.backbone is None:
            return None, f"{self._row.identity.method} asks no language model"
        plain = self._task.prompt(query.text, query.id)
        if not user.history:
            return plain, ""
        try:
            method = self._method
            if method is None:
                return plain, f"{self._row.identity.method} does not say what it puts before a query"
            if user.id not in self._known:
                method.load_user(user, self._folder.user_state(user.id))
                self._known.add(user.id)
            return plain.with_context(method.context(user, query)), ""
        except Exception as error:  # a third-party method, or a file that is not there
            return plain, f"what goes before the query cannot be made again ({type(error).__name__}: {error})"

    @cached_property
    def _method(self) -> Any:
        """The method, as far as it makes contexts; None if it is of a kind that has none to ask for."""
        # Needed only to show prompts.
        from lampbench.bases import AdapterMethod, PromptMethod

        own = self._row.identity
        kind = load_method(own.method)
        if not issubclass(kind, (PromptMethod, AdapterMethod)):
            return None
        config = config_from(kind.Config, own.config, own.method)
        if kind.context is AdapterMethod.context:
            # Nothing goes before a query: no adapter has to be read to know that.
            return _WithoutContext()
        backbone = _skeleton(own.protocol, self._row) if issubclass(kind, AdapterMethod) else None
        method: Method = kind(task=self._task, config=config, seed=own.seed, backbone=backbone)
        return method


class _WithoutContext:
    """Stands for a method that puts nothing before a query."""

    def load_user(self, user: User, folder: Path) -> None:
        """Nothing."""

    def context(self, user: User, query: Query) -> tuple[str, ...]:
        """Nothing."""
        return ()


def data_at(folder: Path | None) -> DataOf:
    """Finds the data of runs; ``folder`` is their protocol's data folder, if that needs one."""
    known: dict[tuple[str, str], Dataset] = {}

    def find(row: Row) -> Dataset:
        own = row.identity
        key = own.protocol, own.task
        if key not in known:
            try:
                protocol, _ = load_protocol(own.protocol)
                # Whatever was set aside: the hash tells whether it is the run's data.
                protocol.tolerate = 1.0
                known[key] = protocol.load(load_task(own.task), folder)
            except InputError as error:
                raise InputError(f"run {row.run_id}: its data is needed: {error}{_data_named(row)}") from None
        data = known[key]
        if data.hash != own.protocol_hash:
            raise InputError(
                f"the data found for {own.protocol} {own.task} is not that of run {row.run_id}: its hash is "
                f"{data.hash[:12]}…, expected {own.protocol_hash[:12]}…; name the folder that the run read"
            )
        return data if own.limit is None else data.first_users(own.limit)

    return find


def _data_named(row: Row) -> str:
    """Which data folder the command of a run named; nothing if it named none, as one with a config file may."""
    words = row.provenance.argv
    named = [word.removeprefix("--data=") for word in words if word.startswith("--data=")]
    named += [value for word, value in pairwise(words) if word == "--data"]
    return f"; the run had --data {shlex.quote(named[-1])}" if named else ""


def data_of_plans(datasets: Mapping[str, Dataset]) -> DataOf:
    """Finds the data of runs that were just made: run id -> data."""
    return lambda row: datasets[row.run_id]


def _worded(task: Task, row: Row) -> Task:
    """The task with the wording that the run used."""
    name = wording_of(task, row)
    return task if name is None else task.worded(name)


def wording_of(task: Task, row: Row) -> str | None:
    """The name of the wording that the run used; None if the task has no such one."""
    names = [wording.name for wording in task.wordings]
    return next((name for name in names if task.worded(name).prompt_hash() == row.identity.prompt_hash), None)


def _skeleton(protocol: str, row: Row) -> Any:
    """The run's backbone without weights, if the protocol brings it; else a method has to do without."""
    own = row.identity.backbone
    model = load_protocol(protocol)[0].default_model
    if own is None or model is None:
        return None
    from lampbench.backbone import Decoding, TransformersBackbone, describe_backbone

    info = describe_backbone(model, device="cpu")
    if info.source.revision != own.revision:
        return None
    return TransformersBackbone.skeleton(info, decoding=Decoding(), batch_size=1, seed=0)
