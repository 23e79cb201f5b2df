"""Guards against answers that run away: penalties for what was read or written before, as transformers has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from lampbench.backbone._decoding import Penalties


class Repeats:
    """Keeps, row by row, what was read and written; padding is in no row.

    Args:
        penalties: At least one.
    """

    def __init__(self, penalties: Penalties) -> None:
        self._repetition, self._size = penalties.repetition, penalties.no_repeat_ngram
        self._rows: list[list[int]] = []
        self._seen: Tensor | None = None
        # The tokens that came after each sequence of one token less than what must not come twice.
        self._followers: list[dict[tuple[int, ...], set[int]]] = []

    def enter(self, rows: Sequence[Sequence[int]]) -> None:
        """Add rows, by their prompts' ids."""
        for ids in rows:
            self._rows.append(list(ids))
            self._followers.append(defaultdict(set))
            if self._size is not None:
                for end in range(self._size, len(ids) + 1):
                    self._note(len(self._rows) - 1, ids[end - self._size : end])
        self._seen = None

    def keep(self, rows: Sequence[int]) -> None:
        """Only ``rows``, in this order."""
        self._rows = [self._rows[row] for row in rows]
        self._followers = [self._followers[row] for row in rows]
        self._seen = None

    def applied(self, logits: Tensor) -> Tensor:
        """The logits of every row's next token, shape (rows, vocabulary), as float32 with the penalties."""
        logits = logits.to(torch.float32, copy=True)
        if self._repetition is not None:
            penalized = torch.where(logits < 0, logits * self._repetition, logits / self._repetition)
            logits = torch.where(self._seen_in(logits), penalized, logits)
        for row, ids in enumerate(self._rows):
            banned = self._banned(row, ids)
            if banned:
                logits[row, banned] = -torch.inf
        return logits

    def add(self, tokens: Sequence[int]) -> None:
        """Every row's next token."""
        for row, token in enumerate(tokens):
            ids = self._rows[row]
            ids.append(token)
            if self._size is not None and len(ids) >= self._size:
                self._note(row, ids[-self._size :])
        if self._seen is not None:
            self._seen.scatter_(1, torch.tensor(tokens, device=self._seen.device).unsqueeze(1), True)

    def _seen_in(self, logits: Tensor) -> Tensor:
        if self._seen is None:
            self._seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
            for row, ids in enumerate(self._rows):
                self._seen[row, ids] = True
        return self._seen

    def _banned(self, row: int, ids: Sequence[int]) -> list[int]:
        if self._size is None or len(ids) + 1 < self._size:
            return []
        return sorted(self._followers[row].get(tuple(ids[len(ids) + 1 - self._size :]), ()))

    def _note(self, row: int, ngram: Sequence[int]) -> None:
        self._followers[row][tuple(ngram[:-1])].add(ngram[-1])
