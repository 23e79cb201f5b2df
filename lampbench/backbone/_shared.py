"""Beginnings that prompts share, read once, and their keys and values handed out to each prompt."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lampbench.backbone._beginnings import Beginning, shared_beginnings
from lampbench.backbone._partial import key_value_cache
from lampbench.backbone._pass import Adapter, Before, DecodingPass, PassWindow


@runtime_checkable
class SharesBeginnings(Protocol):
    """An adapter that does the same to a token of two prompts, if both have a user in common and begin alike.

    Attributes:
        users: The user of each prompt, shape (prompts,); None if all prompts have the same parameters.
        tail: Of a prompt's last so many tokens this is not true.
    """

    @property
    def users(self) -> Tensor | None: ...

    @property
    def tail(self) -> int: ...


class SharedReading:
    """Reads beginnings when the first of their rows comes, and forgets them after the last.

    Args:
        model: A causal language model of transformers that allows it (``_probes.py``).
        rows: Ids of all prompts; adapters know each by its place here.
        pad: Any token id.
        beginnings: What is shared.
    """

    def __init__(self, model: Any, rows: Sequence[Sequence[int]], pad: int, beginnings: Sequence[Beginning]) -> None:
        self._model, self._rows, self._pad, self._beginnings = model, rows, pad, beginnings
        self._of = {row: number for number, beginning in enumerate(beginnings) for row in beginning.rows}
        self._waiting = [len(beginning.rows) for beginning in beginnings]
        self._read: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def together(self, order: Sequence[int]) -> list[int]:
        """``order`` with the rows of a beginning one after another."""
        place: dict[int, int] = {}
        for at, row in enumerate(order):
            place.setdefault(self._of.get(row, -1 - row), at)
        return sorted(order, key=lambda row: place[self._of.get(row, -1 - row)])

    def before(self, rows: Sequence[int], window: PassWindow) -> Before | None:
        """What is read of ``rows`` before the rest of them; None if nothing is. Each row may be asked for once."""
        own = [self._of.get(row) for row in rows]
        known = [number for number in own if number is not None]
        if not known:
            return None
        self._read_missing(sorted(set(known) - self._read.keys()), window)
        lengths = [0 if number is None else self._beginnings[number].length for number in own]
        parts = [None if number is None else self._read[number] for number in own]
        cache = key_value_cache(
            [
                (_side_by_side(parts, layer, 0, max(lengths)), _side_by_side(parts, layer, 1, max(lengths)))
                for layer in range(len(self._read[known[0]]))
            ]
        )
        for number in known:
            self._waiting[number] -= 1
            if not self._waiting[number]:
                del self._read[number]
        columns = torch.arange(max(lengths), 0, -1, device=self._model.device)
        mask = (columns <= torch.tensor(lengths, device=self._model.device).unsqueeze(1)).long()
        return Before(cache, mask, lengths)

    def _read_missing(self, missing: Sequence[int], window: PassWindow) -> None:
        if not missing:
            return
        found = [self._beginnings[number] for number in missing]
        firsts = [one.rows[0] for one in found]
        batch = DecodingPass(
            self._model,
            [self._rows[first][: one.length] for first, one in zip(firsts, found, strict=True)],
            self._pad,
            firsts,
            window,
            lengths=[min(len(self._rows[row]) for row in one.rows) for one in found],
        )
        batch.prefill()
        for place, number in enumerate(missing):
            self._read[number] = batch.read(place)


def beginnings_of(rows: Sequence[Sequence[int]], adapters: Sequence[Adapter]) -> list[Beginning]:
    """What may be read once for several rows; adapters know each by its place here.

    Nothing if there is an adapter that does not say how it treats beginnings (``SharesBeginnings``).
    """
    owners: list[list[Hashable]] = [[] for _ in rows]
    tail = 0
    for adapter in adapters:
        if not isinstance(adapter, SharesBeginnings):
            return []
        tail = max(tail, adapter.tail)
        if adapter.users is not None:
            for own, user in zip(owners, adapter.users[: len(rows)].tolist(), strict=True):
                own.append(user)
    return shared_beginnings(rows, [tuple(own) for own in owners], tail)


def _side_by_side(
    parts: Sequence[Sequence[tuple[Tensor, Tensor]] | None], layer: int, which: int, columns: int
) -> Tensor:
    held = [None if part is None else part[layer][which] for part in parts]
    some = next(one for one in held if one is not None)
    whole = some.new_zeros(len(held), some.shape[1], columns, some.shape[3])
    for row, one in enumerate(held):
        if one is not None:
            whole[row, :, columns - one.shape[2] :] = one[0]
    return whole
