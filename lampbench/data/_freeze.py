"""A protocol's hash and leak checks: computed once, and kept for data that lies in the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lampbench.core import LabelledUser, Task, cache_folder, digest, write_json
from lampbench.data._leaks import LEAKS, Leak, find_leaks
from lampbench.data.files import Columns, Reading
from lampbench.data.store import NO_HISTORY, HistoryHash, Selection

# Must be raised if the same users would get another hash or other findings.
_FREEZE_VERSION = 1


@dataclass(frozen=True)
class Frozen:
    """What identifies a protocol's users, and what its checks found.

    Attributes:
        hash: SHA-256 over shared users and evaluated users in their order: ids, histories, queries, golds; and over
            the files and ids of records that were set aside or mended, if there are any.
        leaks: Findings, one per check.
    """

    hash: str
    leaks: tuple[Leak, ...]


def freeze(task: Task, shared: Sequence[LabelledUser], evaluated: Sequence[LabelledUser], reading: Reading) -> Frozen:
    """Hash the users, with what reading them left out, and check them."""
    own, theirs = _hashes(evaluated), _hashes(shared)
    name = digest(
        {
            "shared": [_user_hash(entry, named) for entry, named in zip(shared, theirs, strict=True)],
            "users": [_user_hash(entry, named) for entry, named in zip(evaluated, own, strict=True)],
            **reading.names,
        }
    )
    # Users without a history are not the same user.
    texts = [[None if named == NO_HISTORY else named.texts for named in hashes] for hashes in (theirs, own)]
    return Frozen(name, find_leaks(task, shared, evaluated, *texts))


def frozen(
    key: Any,
    task: Task,
    shared: Sequence[LabelledUser],
    evaluated: Sequence[LabelledUser],
    reading: Reading,
    say: Callable[[str], None],
) -> Frozen:
    """As ``freeze``, remembered under ``key``, which must name everything that the users come from."""
    path = cache_folder() / "protocols" / f"{digest([_FREEZE_VERSION, *task.edition, key])}.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        leaks = tuple(Leak.from_json(name, known["leaks"][name]) for name in LEAKS)
        return Frozen(str(known["hash"]), leaks)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    if len(shared) + len(evaluated) > 5000:
        say(f"checking {len(evaluated):,} evaluated and {len(shared):,} shared users of {task.name} once")
    result = freeze(task, shared, evaluated, reading)
    # If the cache cannot be written, this is computed again the next time.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"hash": result.hash, "leaks": {leak.name: leak.to_json() for leak in result.leaks}})
    return result


def _user_hash(entry: LabelledUser, history: HistoryHash) -> str:
    queries = [[q.query.id, q.query.date, q.query.text, q.target] for q in entry.queries]
    return digest([entry.user.id, history.whole, queries])


def _hashes(entries: Sequence[LabelledUser]) -> list[HistoryHash]:
    if isinstance(entries, Selection):
        return [entries.history_hash(index) for index in range(len(entries))]
    return [HistoryHash.of(_columns(entry)) for entry in entries]


def _columns(entry: LabelledUser) -> Columns:
    history = entry.user.history
    return Columns(
        [item.id for item in history],
        [item.source for item in history],
        [item.target for item in history],
        [item.date for item in history],
    )
