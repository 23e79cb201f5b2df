"""Delta vectors: what personalization does to the hidden state of the last token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np

from lampbench.analysis._questions import Question, personalized, questions
from lampbench.analysis._request import Request
from lampbench.analysis._store import Array, DeltaStore, LayerDeltas, Part
from lampbench.backbone import TransformersBackbone, last_states
from lampbench.bases import PromptMethod
from lampbench.core import InputError, Prompt, Query, User, locked

# Users whose work an interruption can lose, and whose means are in memory at once.
CHUNK = 32
# Forward batches whose prompts are made, and sorted by length, together.
_BATCHES_AT_ONCE = 8


@dataclass(frozen=True)
class Deltas:
    """Collected delta vectors, read from disk a layer at a time.

    Attributes:
        users: How many users were asked something.
        silent: How many were not, having no query; they are left out.
        queries: How many queries were asked.
        split: Users with queries in both halves.
        cut: Prompts in which some context or text gave way to the length limit.
        bare: Queries whose personalized prompt is the plain one: nothing was retrieved, or nothing fitted.
    """

    request: Request
    store: DeltaStore
    parts: int
    users: int
    silent: int
    queries: int
    split: int
    cut: int
    bare: int

    def layer(self, place: int) -> LayerDeltas:
        """The vectors of the layer at ``place`` of ``request.layers``."""
        return self.store.layer(place, self.parts)


def collect(
    request: Request,
    load: Callable[[], TransformersBackbone],
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Deltas:
    """Measure what is not there yet, and return all of it.

    Finished chunks of users are kept, so an interrupted call goes on where it was. Memory holds the
    means of one chunk of users, however many queries they have.

    Args:
        request: What to measure.
        load: Gives the backbone; called only when something is to be measured.
        folder: Gets a folder of this request's own.
        progress: Called with users done and users in all.

    Raises:
        InputError: The folder holds something else, or fewer than two users have a query.
        LampBenchError: Another process is at it, or a hidden state is no number.
    """
    store = DeltaStore(folder / request.name, request.identity)
    users = request.data.users
    chunks = [users[start : start + CHUNK] for start in range(0, len(users), CHUNK)]
    with locked(store.folder / "lock", f"measuring {store.folder}"):
        missing = [n for n, chunk in enumerate(chunks) if not store.has(n, [user.id for user in chunk])]
        done = len(users) - sum(len(chunks[number]) for number in missing)
        progress(done, len(users))
        if missing:
            collector = _Collector(request, load())
            for number in missing:
                store.write(number, collector.part(chunks[number]))
                done += len(chunks[number])
                progress(done, len(users))
    counts, cut, bare = store.counts(len(chunks))
    asked = int((counts.sum(1) > 0).sum())
    if asked < 2:
        raise InputError(f"{request.plan.task.name}: {asked} of {len(users)} users have a query; at least 2 are needed")
    split = int((counts > 0).all(1).sum())
    return Deltas(request, store, len(chunks), asked, len(users) - asked, int(counts.sum()), split, cut, bare)


class _Collector:
    def __init__(self, request: Request, backbone: TransformersBackbone) -> None:
        plan = request.plan
        method = plan.method_type(task=plan.task, config=plan.config, seed=plan.settings.seed, backbone=backbone)
        # The request was resolved so.
        self._method = cast(PromptMethod, method)
        self._request = request
        self._backbone = backbone
        self._room = backbone.answer_room(plan.task)
        self._queries: dict[str, list[Query]] = defaultdict(list)
        for query in request.data.queries:
            self._queries[query.user_id].append(query)

    def part(self, users: Sequence[User]) -> Part:
        """Mean differences of these users' halves."""
        shape = len(users), 2, len(self._request.layers), self._backbone.shape.width
        means, counts = np.zeros(shape), np.zeros(shape[:2], np.int64)
        cut, bare = self._cut(), 0
        for asked in _blocks(questions(self._request, users, self._queries), _BATCHES_AT_ONCE * self._size):
            plain = self._rows([question.plain for question in asked])
            rows = self._rows(personalized(self._method, asked))
            bare += sum(row == own for row, own in zip(rows, plain, strict=True))
            shifts = self._states(rows) - self._states(plain)
            for question, shift in zip(asked, shifts, strict=True):
                at = question.place, question.half
                counts[at] += 1
                # A running mean, so that no sum grows with the number of queries.
                means[at] += (shift - means[at]) / counts[at]
        return Part([user.id for user in users], means.astype(np.float32), counts, self._cut() - cut, bare)

    def _cut(self) -> int:
        usage = self._backbone.usage
        return usage.cut_contexts + usage.cut_sources

    @property
    def _size(self) -> int:
        return self._backbone.batch_size

    def _rows(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        return [self._backbone.encoder.prompt(prompt, self._room) for prompt in prompts]

    def _states(self, rows: Sequence[Sequence[int]]) -> Array:
        """Shape (rows, layers, width)."""
        return np.asarray(last_states(self._backbone, rows, self._request.layers).numpy(), dtype=np.float64)


def _blocks(asked: Iterator[Question], size: int) -> Iterator[list[Question]]:
    while block := list(islice(asked, size)):
        yield block
