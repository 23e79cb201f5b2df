"""Passes over the frozen backbone that compute each thing once.

Three savings, all exact. Below the lowest adapted layer hidden states never change, so they are computed
without gradients and kept for the next epoch. When adapters act on a prompt's last tokens alone, the keys
and values of everything before them never change either: only those last tokens and the target run through
the upper layers. And logits, and the last layer's columnwise parts, are computed where a target is
predicted and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence

from lampbench.adapters._memory import Constants, ConstantStore, PassRoom
from lampbench.adapters._spec import AdapterSpec, exact
from lampbench.backbone import (
    Adapter,
    PassWindow,
    TransformersBackbone,
    attached,
    key_value_cache,
    keys_and_values,
    layer_output,
    layers_left_out,
    only_columns,
    only_inputs,
)


@dataclass(frozen=True, eq=False)
class TrainingRow:
    """One training example in one step.

    Attributes:
        slot: Where its user's parameters are.
        example: What names the example for as long as its user trains.
        prompt, target: Token ids; the target ends with EOS.
        weight: Of each target token's loss: one over the target tokens of the user's batch.
        dropout_key: What its masks are drawn from.
    """

    slot: int
    example: Hashable
    prompt: Sequence[int]
    target: Sequence[int]
    weight: float
    dropout_key: int

    @cached_property
    def ids(self) -> list[int]:
        """What the model reads: nothing is predicted from the last token."""
        return [*self.prompt, *self.target[:-1]]


@dataclass
class Passes:
    """Runs rows of many users through one backbone.

    Attributes:
        backbone: Frozen.
        specs: Of the adapters that train.
        beneath: Frozen adapters that act before them.
        store: Where constants are kept.
        columns: The most room of one pass, in columns, padding included (but always one row).
        split_prompts: Whether prompts may be split before their edited last tokens.
    """

    backbone: TransformersBackbone
    specs: Sequence[AdapterSpec]
    beneath: Sequence[Adapter]
    store: ConstantStore
    columns: int
    split_prompts: bool

    def __post_init__(self) -> None:
        self._rooms = PassRoom(self.backbone)
        self._in_tuple = self.backbone.layers_return_tuples
        self._constant = min(spec.constant_layers(self.backbone) for spec in self.specs)
        lasts = [spec.suffix for spec in self.specs if spec.suffix is not None]
        self._suffix = max(lasts) if self.split_prompts and len(lasts) == len(self.specs) else None
        self._adapted = [module for spec in self.specs for module in spec.adapted_modules(self.backbone)]

    def batches(self, rows: Sequence[TrainingRow]) -> list[list[TrainingRow]]:
        """``rows`` in passes: rows of similar length together, of any users."""
        return _packed(rows, self._room, self.columns)

    def room(self, rows: Sequence[TrainingRow]) -> int:
        """The room that a pass of ``rows`` takes, in columns."""
        return len(rows) * max(self._room(row) for row in rows)

    def loss(self, rows: Sequence[TrainingRow], adapters: Sequence[Adapter]) -> Tensor:
        """The rows' weighted sum of cross-entropies, a scalar.

        Args:
            rows: Of any users.
            adapters: Of the users; row i of the pass is ``rows[i]``.
        """
        backbone, device = self.backbone, self.backbone.model.device
        constants = self._constants(rows)
        starts = torch.tensor([self._start(row) for row in rows], device=device)
        before = int(starts.max())
        ids = _padded([row.ids[self._start(row) :] for row in rows], backbone.pad, device)
        ends = before - starts + torch.tensor([len(row.prompt) for row in rows], device=device)
        window = PassWindow(
            before - starts, ends, torch.arange(len(rows), device=device), before + ids.shape[1], before
        )
        targets = [
            (i, len(r.prompt) - 1 - self._start(r) + j) for i, r in enumerate(rows) for j in range(len(r.target))
        ]
        row_of, column_of = torch.tensor(targets, device=device).unbind(1)
        with ExitStack() as stack:
            self._leave_out(stack, constants)
            stack.enter_context(attached([*self.beneath, *adapters], backbone.layers, window))
            self._narrow(stack, row_of, column_of)
            split = self._split_arguments(constants, ids, starts, before) if before else {}
            logits = backbone.model(input_ids=ids, use_cache=False, **split).logits[0]
        labels = torch.tensor([token for row in rows for token in row.target], device=device)
        losses = cross_entropy(exact(logits), labels, reduction="none")
        weights = torch.tensor([row.weight for row in rows for _ in row.target], dtype=losses.dtype, device=device)
        return (losses * weights).sum()

    def _start(self, row: TrainingRow) -> int:
        """The first column that can change: 0, or where the prompt's edited last tokens begin."""
        return 0 if self._suffix is None else max(0, len(row.prompt) - self._suffix)

    def _room(self, row: TrainingRow) -> int:
        start = self._start(row)
        return self._rooms.of(len(row.ids) - start, start, len(row.target))

    def _constants(self, rows: Sequence[TrainingRow]) -> list[Constants]:
        found = [self.store.get(row.example) for row in rows]
        missing = [row for row, constants in zip(rows, found, strict=True) if constants is None]
        made = iter(self._compute(missing))
        return [next(made) if constants is None else constants for constants in found]

    def _compute(self, rows: Sequence[TrainingRow]) -> list[Constants]:
        if not self._constant and self._suffix is None:
            return [Constants(None, None)] * len(rows)
        made: dict[TrainingRow, Constants] = {}
        for batch in _packed(rows, lambda row: len(row.ids), self.columns):
            made.update(zip(batch, self._compute_together(batch), strict=True))
        for row, constants in made.items():
            self.store.keep(row.example, constants)
        return [made[row] for row in rows]

    @torch.no_grad()
    def _compute_together(self, rows: Sequence[TrainingRow]) -> list[Constants]:
        backbone, device = self.backbone, self.backbone.model.device
        layers, constant = backbone.layers, self._constant
        ids = _padded([row.ids for row in rows], backbone.pad, device)
        ends = torch.tensor([len(row.prompt) for row in rows], device=device)
        window = PassWindow(torch.zeros_like(ends), ends, torch.arange(len(rows), device=device), ids.shape[1])
        cache = None if self._suffix is None else key_value_cache()
        decoder = backbone.model.get_decoder()
        with ExitStack() as stack:
            found = stack.enter_context(layer_output(layers[constant - 1])) if constant else []
            if cache is None:
                above = range(constant, len(layers))
                stack.enter_context(layers_left_out(layers, above, in_tuple=self._in_tuple))
            stack.enter_context(attached(self.beneath, layers, window))
            decoder(input_ids=ids, use_cache=False, past_key_values=cache)
        upper = [] if cache is None else [keys_and_values(cache, n) for n in range(constant, len(layers))]
        made = []
        for i, row in enumerate(rows):
            start = self._start(row)
            hidden = found[0][i, start : len(row.ids)].clone() if found else None
            kept = [torch.stack([keys[i, :, :start], values[i, :, :start]]) for keys, values in upper]
            made.append(Constants(hidden, torch.stack(kept) if kept else None))
        return made

    def _leave_out(self, stack: ExitStack, constants: Sequence[Constants]) -> None:
        hidden = [own.hidden for own in constants if own.hidden is not None]
        if hidden:
            layers, output = self.backbone.layers, pad_sequence(hidden, batch_first=True)
            below = range(self._constant)
            stack.enter_context(layers_left_out(layers, below, in_tuple=self._in_tuple, output=output))

    def _narrow(self, stack: ExitStack, rows: Tensor, columns: Tensor) -> None:
        model, layers = self.backbone.model, self.backbone.layers
        if self._constant < len(layers):
            stack.enter_context(only_columns(layers[-1], rows, columns, self._adapted))
        stack.enter_context(only_inputs(model.get_output_embeddings(), rows, columns))

    def _split_arguments(
        self, constants: Sequence[Constants], ids: Tensor, starts: Tensor, before: int
    ) -> dict[str, object]:
        """What the model is given beside the ids when prompts are split: keys, values, mask, positions."""
        device = ids.device
        kept = [own.keys_values for own in constants if own.keys_values is not None]
        # Padded on the left, so that what runs on begins in one column.
        joined = [pad(own, (0, 0, before - own.shape[3], 0)) for own in kept]
        upper = torch.stack(joined, dim=2).unbind(0) if joined else ()
        # Layers left out hold no keys, but transformers asks the first one how long the past is.
        nothing = torch.zeros(1, device=device).expand(len(ids), 1, before, 1)
        cache = key_value_cache([(nothing, nothing)] * self._constant + [(keys, values) for keys, values in upper])
        column = torch.arange(before + ids.shape[1], device=device)
        return {
            "past_key_values": cache,
            "attention_mask": (column >= (before - starts).unsqueeze(1)).long(),
            "position_ids": starts.unsqueeze(1) + torch.arange(ids.shape[1], device=device),
        }


def _packed(rows: Sequence[TrainingRow], length: Callable[[TrainingRow], int], columns: int) -> list[list[TrainingRow]]:
    """Rows in batches of at most ``columns``, padding included, longest first; the sort is stable."""
    batches: list[list[TrainingRow]] = []
    width = 0
    for row in sorted(rows, key=length, reverse=True):
        if not batches or (len(batches[-1]) + 1) * width > columns:
            batches.append([])
            width = length(row)
        batches[-1].append(row)
    return batches


def _padded(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> Tensor:
    """Rows padded on the right; causal attention lets no real token see what is there."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill).to(device)
