"""Golds of a row's queries, where they are at hand: mini's are generated, others come from files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from lampbench.core import InputError, tasks
from lampbench.data import Dataset, read_outputs
from lampbench.rows import Identity, Row
from lampbench.runner import load_protocol

_MINI = "mini"


class KnownGolds:
    """Finds golds by a row's protocol or in files of LaMP's outputs format.

    Raises:
        InputError: A file is wrong; or, when called, a row claims to be of mini and is not.
    """

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self._given = {query: gold for path in files for query, gold in read_outputs(path, None).by_id.items()}
        self._mini = cache(_mini_data)

    def __call__(self, row: Row) -> Mapping[str, str] | None:
        """Query id -> gold of all the row's queries; None where they are not at hand."""
        protocol, _ = load_protocol(row.identity.protocol)
        if _MINI in (row.identity.protocol, protocol.origin):
            return self._of_mini(row.identity)
        return self._given or None

    def _of_mini(self, identity: Identity) -> Mapping[str, str]:
        data = self._mini(identity.protocol, identity.task)
        if data.hash != identity.protocol_hash:
            raise InputError(
                f"protocol_hash {identity.protocol_hash[:12]}…, but {identity.protocol} of this LampBench has "
                f"{data.hash[:12]}…"
            )
        return data.golds if identity.limit is None else data.first_users(identity.limit).golds


def _mini_data(protocol: str, task: str) -> Dataset:
    return load_protocol(protocol)[0].load(tasks().load(task), None)
