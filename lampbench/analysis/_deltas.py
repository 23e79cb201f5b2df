"""Delta vectors: what personalization does to the hidden state of the last token, measured and kept on disk."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lampbench.analysis._request import Question, Request, personalized, questions
from lampbench.analysis._statistics import Array
from lampbench.backbone import TransformersBackbone
from lampbench.bases import PromptMethod
from lampbench.core import InputError, Prompt, Query, User, canonical_json, digest, locked, write_json

# Users whose work an interruption can lose, and whose means are in memory at the same time.
CHUNK = 32
# Forward batches whose prompts are made, and sorted by length, together.
_BATCHES_AT_ONCE = 8
_IDENTITY = "identity.json"


@dataclass(frozen=True)
class Counts:
    """How much was measured.

    Attributes:
        users: Users who were asked something.
        silent: Users without a query; they are left out.
        queries: Queries that were asked.
        split: Users with queries in both halves.
        cut: Prompts in which some context or text was cut at the length limit.
        bare: Queries whose personalized prompt is the plain one: nothing was retrieved, or nothing fitted.
    """

    users: int
    silent: int
    queries: int
    split: int
    cut: int
    bare: int


@dataclass(frozen=True)
class LayerDeltas:
    """One layer's delta vectors; all of shape (users, width).

    Attributes:
        whole: Each user's mean over all queries.
        halves: The means over the user's odd- and even-numbered queries; NaN if a user has none.
    """

    whole: Array
    halves: tuple[Array, Array]


@dataclass(frozen=True)
class Deltas:
    """Collected delta vectors, read from disk one layer at a time.

    Attributes:
        request: What was measured.
        store: Where the vectors are kept.
        counts: How much was measured.
    """

    request: Request
    store: DeltaStore
    counts: Counts

    def layer(self, place: int) -> LayerDeltas:
        """The vectors of the layer at ``place`` of ``request.layers``; no other layer is read."""
        halves, asked = self.store.halves(place)
        kept = asked.sum(1) > 0
        halves, asked = halves[kept], asked[kept]
        whole = (halves * asked[:, :, None]).sum(1) / asked.sum(1)[:, None]
        halves[asked == 0] = np.nan
        return LayerDeltas(whole, (halves[:, 0], halves[:, 1]))


def collect(
    request: Request,
    load: Callable[[], TransformersBackbone],
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    chunk: int = CHUNK,
) -> Deltas:
    """Measure what is missing, and return everything.

    Finished chunks of users are kept, so an interrupted call is resumed by the next. Memory holds the
    means of one chunk of users, however many queries they have.

    Args:
        request: What to measure.
        load: Gives the backbone; called only when something is to be measured.
        folder: Gets a folder of this request's own.
        progress: Called with users done and users in all.
        chunk: Users that are measured and kept together.

    Raises:
        InputError: The folder holds something else, or fewer than two users have a query.
        LampBenchError: Another process is measuring the same, or a hidden state is no number.
    """
    users = request.data.users
    chunks = [users[start : start + chunk] for start in range(0, len(users), chunk)]
    store = DeltaStore(folder / request.name, request.identity, [[user.id for user in own] for own in chunks])
    with locked(store.folder / "lock", f"measuring {store.folder}"):
        missing = [number for number in range(len(chunks)) if not store.has(number)]
        done = len(users) - sum(len(chunks[number]) for number in missing)
        progress(done, len(users))
        if missing:
            collector = _Collector(request, load())
            for number in missing:
                store.write(number, **collector.means(chunks[number]))
                done += len(chunks[number])
                progress(done, len(users))
    counts = store.counts()
    if counts.users < 2:
        raise InputError(
            f"{request.plan.task.name}: {counts.users} of {len(users)} users have a query; at least 2 are needed"
        )
    return Deltas(request, store, counts)


class DeltaStore:
    """The folder of one identity: one file per chunk of users, each whole or absent.

    A file holds ``halves``, the mean difference over each half of a user's queries, shape (users, 2, layers,
    width), float32, 0 if there is no query; ``counts``, how many queries each mean is of, shape (users, 2);
    and ``cut_bare``, the numbers of cut prompts and of bare queries.

    Args:
        folder: Where it is.
        identity: What the vectors are of; a folder of another identity is refused.
        chunks: The ids of each chunk's users.

    Raises:
        InputError: The folder holds something else.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], chunks: Sequence[Sequence[str]]) -> None:
        self.folder = folder
        # One metadata entry per file: safetensors writes several in any order, and the same work gives the same bytes.
        self._heads = [canonical_json([digest(identity), list(users)]) for users in chunks]
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / _IDENTITY
        if not known.exists():
            write_json(known, identity)
        elif _read_identity(known) != canonical_json(identity):
            raise InputError(f"{known}: names other delta vectors than asked for; delete the folder, or give another")

    def has(self, number: int) -> bool:
        """Whether the chunk is there, whole and of these users; otherwise it must be made again."""
        try:
            with safe_open(self._path(number), framework="numpy") as file:
                return (file.metadata() or {}).get("of") == self._heads[number]
        except (OSError, SafetensorError):
            return False

    def write(self, number: int, **tensors: NDArray[Any]) -> None:
        """Keep a chunk's ``halves``, ``counts`` and ``cut_bare``, whole or not at all."""
        content = save(tensors, {"of": self._heads[number]})
        path = self._path(number)
        temporary = path.with_suffix(f".{os.getpid()}.partial")
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def counts(self) -> Counts:
        """How much all chunks hold."""
        asked = np.concatenate(self._read(lambda file: file.get_tensor("counts")))
        cut, bare = sum(self._read(lambda file: file.get_tensor("cut_bare")))
        users = int((asked.sum(1) > 0).sum())
        split = int((asked > 0).all(1).sum())
        return Counts(users, len(asked) - users, int(asked.sum()), split, int(cut), int(bare))

    def halves(self, place: int) -> tuple[Array, NDArray[np.int64]]:
        """All users' means at one layer, shape (users, 2, width), and of how many queries, shape (users, 2)."""
        read = self._read(lambda file: (file.get_slice("halves")[:, :, place], file.get_tensor("counts")))
        halves, counts = zip(*read, strict=True)
        return np.concatenate(halves).astype(np.float64), np.concatenate(counts)

    def _read(self, part: Callable[[Any], Any]) -> list[Any]:
        """A part of every chunk's file."""
        found = []
        for number in range(len(self._heads)):
            with safe_open(self._path(number), framework="numpy") as file:
                found.append(part(file))
        return found

    def _path(self, number: int) -> Path:
        return self.folder / f"users-{number:05}.safetensors"


def _read_identity(path: Path) -> str:
    try:
        return canonical_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete the folder and measure again") from None


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

    def means(self, users: Sequence[User]) -> dict[str, NDArray[Any]]:
        """What the store keeps of these users: mean differences of their halves, and counts."""
        shape = len(users), 2, len(self._request.layers), self._backbone.shape.width
        means, counts = np.zeros(shape), np.zeros(shape[:2], np.int64)
        cut, bare = self._cut(), 0
        every = questions(self._request, users, self._queries)
        for asked in _blocks(every, _BATCHES_AT_ONCE * self._backbone.batch_size):
            plain = self._rows([question.plain for question in asked])
            rows = self._rows(personalized(self._method, asked))
            bare += sum(row == own for row, own in zip(rows, plain, strict=True))
            shifts = self._states(rows) - self._states(plain)
            for question, shift in zip(asked, shifts, strict=True):
                at = question.place, question.half
                counts[at] += 1
                # A running mean, so that no sum grows with the number of queries.
                means[at] += (shift - means[at]) / counts[at]
        cut_bare = np.array([self._cut() - cut, bare])
        return {"halves": means.astype(np.float32), "counts": counts, "cut_bare": cut_bare}

    def _cut(self) -> int:
        usage = self._backbone.usage
        return usage.cut_contexts + usage.cut_sources

    def _rows(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        return [self._backbone.encoder.prompt(prompt, self._room) for prompt in prompts]

    def _states(self, rows: Sequence[Sequence[int]]) -> Array:
        """Shape (rows, layers, width)."""
        return np.asarray(self._backbone.last_states(rows, self._request.layers).numpy(), dtype=np.float64)


def _blocks(asked: Iterator[Question], size: int) -> Iterator[list[Question]]:
    while block := list(islice(asked, size)):
        yield block
