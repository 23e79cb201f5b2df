"""Passes over the frozen backbone that compute each thing once.

Three savings, all exact. Below the lowest adapted layer hidden states never change, so they are computed
without gradients and kept for the next epoch. When adapters act on a prompt's last tokens alone, the keys
and values of everything before them never change either: only those last tokens and the target run through
the upper layers. And logits, and the last layer's columnwise parts, are computed where a target is
predicted and nowhere else.

Whether a model allows them is not read off its type: the first passes are tried both ways on made-up tokens
(``usable``), and a saving that fails or gives other logits is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from lampbench.adapters._memory import Constants, ConstantStore, PassRoom, columns_without_gradient, logits_at_once
from lampbench.adapters._spec import AdapterSpec, PerUser, acting, exact
from lampbench.backbone import (
    Adapter,
    PassWindow,
    TransformersBackbone,
    alike,
    all_keys_and_values,
    attached,
    key_value_cache,
    layer_output,
    layers_left_out,
    one_logit,
    only_columns,
    only_inputs,
    past_apart,
)
from lampbench.core import is_out_of_memory

# Tokens of the made-up targets that a model is tried on.
_TRIED_TARGET = 3


@dataclass(frozen=True, eq=False)
class TrainingRow:
    """One training example in one step.

    Attributes:
        slot: Where its user's parameters are.
        example: What names the example for as long as its user trains.
        prompt, target: Token ids; the target ends with EOS.
        weight: Of each target token's loss: one over the target tokens of the user's batch.
        dropout_key: What its masks are drawn from.
        user: Its user's id.
        given: What adapters are told about the example, if anything.
    """

    slot: int
    example: Hashable
    prompt: Sequence[int]
    target: Sequence[int]
    weight: float
    dropout_key: int
    user: str | None = None
    given: Tensor | None = None

    @cached_property
    def ids(self) -> list[int]:
        """What the model reads: nothing is predicted from the last token."""
        return [*self.prompt, *self.target[:-1]]


@dataclass(frozen=True)
class Savings:
    """What passes leave out.

    Attributes:
        constant: How many of the first decoder layers are computed once.
        suffix: How many of a prompt's last tokens run on, what is before them being computed once; None for all.
        narrow: Whether the last layer's columnwise parts are computed where a target is predicted and nowhere else.
        apart: Whether keys and values of split prompts are read where they are, not copied into a cache.
    """

    constant: int = 0
    suffix: int | None = None
    narrow: bool = False
    apart: bool = False


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
        savings: What is left out; None for all that the specs and the model allow.
        say: Told once per backbone what the model does not allow.
    """

    backbone: TransformersBackbone
    specs: Sequence[AdapterSpec]
    beneath: Sequence[Adapter | PerUser]
    store: ConstantStore
    columns: int
    split_prompts: bool
    savings: Savings | None = None
    say: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        self._rooms = PassRoom(self.backbone)
        self._in_tuple = self.backbone.layers_return
        self._adapted = [module for spec in self.specs for module in spec.adapted_modules(self.backbone)]
        self._adapted += [module for below in self.beneath if isinstance(below, PerUser) for module in below.modules]
        self._slabs: list[list[int]] = []
        savings = self._usable() if self.savings is None else self.savings
        self._constant, self._suffix, self._narrowed = savings.constant, savings.suffix, savings.narrow
        self._apart = savings.apart

    def batches(self, rows: Sequence[TrainingRow]) -> list[list[TrainingRow]]:
        """``rows`` in passes: rows of similar length together, of any users."""
        return _packed(rows, self._room, self.columns)

    def room(self, rows: Sequence[TrainingRow]) -> int:
        """The room that a pass of ``rows`` takes, in columns."""
        return len(rows) * max(self._room(row) for row in rows)

    def backward(self, rows: Sequence[TrainingRow], adapters: Sequence[Adapter]) -> None:
        """Add the gradient of the rows' weighted sum of cross-entropies.

        A few targets at a time: what is between logits and loss is as wide as the vocabulary, and stays in caches.

        Args:
            rows: Of any users.
            adapters: Of the users; row i of the pass is ``rows[i]``.
        """
        logits = self.logits(rows, adapters)
        per_target = [row.weight for row in rows for _ in row.target]
        weights = torch.tensor(per_target, dtype=exact(logits[:0]).dtype, device=logits.device)
        gradient = torch.empty_like(logits)
        few = max(1, logits_at_once(self.backbone) // logits.shape[1])
        parts = (tensor.split(few) for tensor in (logits.detach(), self._labels(rows), weights, gradient))
        for part, labels, own_weights, own in zip(*parts, strict=True):
            leaf = exact(part).requires_grad_()
            losses = cross_entropy(leaf, labels, reduction="none")
            own.copy_(torch.autograd.grad((losses * own_weights).sum(), leaf)[0])
        logits.backward(gradient)

    def logits(self, rows: Sequence[TrainingRow], adapters: Sequence[Adapter]) -> Tensor:
        """What is predicted for each target token of each row, shape (targets, vocabulary)."""
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
            stack.enter_context(attached([*self._below(rows), *adapters], backbone.layers, window))
            self._narrow(stack, row_of, column_of)
            split = self._split_arguments(stack, constants, ids, starts, before) if before else {}
            logits: Tensor = backbone.model(input_ids=ids, use_cache=False, **split).logits[0]
        return logits

    def _below(self, rows: Sequence[TrainingRow]) -> list[Adapter]:
        return acting(self.beneath, [row.user for row in rows])

    def _labels(self, rows: Sequence[TrainingRow]) -> Tensor:
        return torch.tensor([token for row in rows for token in row.target], device=self.backbone.model.device)

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
            return [Constants(None)] * len(rows)
        made: dict[TrainingRow, Constants] = {}
        for batch in _packed(
            rows, lambda row: len(row.ids), min(self.columns, columns_without_gradient(self.backbone))
        ):
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
        with ExitStack() as stack:
            found = stack.enter_context(layer_output(layers[constant - 1])) if constant else []
            if cache is None:
                above = range(constant, len(layers))
                stack.enter_context(layers_left_out(layers, above, in_tuple=self._in_tuple))
            stack.enter_context(attached(self._below(rows), layers, window))
            if cache is not None and self._narrowed and constant < len(layers):
                nowhere = torch.empty(0, dtype=torch.int64, device=device)
                # Of the last layer, keys and values alone are kept.
                stack.enter_context(only_columns(layers[-1], nowhere, nowhere, self._adapted))
            stack.enter_context(one_logit(backbone.model))
            backbone.model(input_ids=ids, use_cache=False, past_key_values=cache)
        upper = [] if cache is None else all_keys_and_values(cache, len(layers), ids.shape[1])[constant:]
        parts = [part for pair in upper for part in pair]
        self._slabs = _of_one_shape(parts)
        made = []
        for i, row in enumerate(rows):
            start = self._start(row)
            hidden = found[0][i, start : len(row.ids)].clone() if found else None
            kept = [torch.stack([parts[number][i, :, :start] for number in slab]) for slab in self._slabs]
            made.append(Constants(hidden, kept))
        return made

    def _leave_out(self, stack: ExitStack, constants: Sequence[Constants]) -> None:
        hidden = [own.hidden for own in constants if own.hidden is not None]
        if hidden:
            layers, output = self.backbone.layers, pad_sequence(hidden, batch_first=True)
            below = range(self._constant)
            stack.enter_context(layers_left_out(layers, below, in_tuple=self._in_tuple, output=output))

    def _narrow(self, stack: ExitStack, rows: Tensor, columns: Tensor) -> None:
        model, layers = self.backbone.model, self.backbone.layers
        if self._narrowed and self._constant < len(layers):
            stack.enter_context(only_columns(layers[-1], rows, columns, self._adapted))
        stack.enter_context(only_inputs(model.get_output_embeddings(), rows, columns))

    def _split_arguments(
        self, stack: ExitStack, constants: Sequence[Constants], ids: Tensor, starts: Tensor, before: int
    ) -> dict[str, object]:
        """What the model is given beside the ids when prompts are split: keys, values, mask, positions."""
        device = ids.device
        joined = [_padded_before(slab, before) for slab in zip(*(own.keys_values for own in constants), strict=True)]
        order = [number for slab in self._slabs for number in slab]
        found = dict(zip(order, (part for slab in joined for part in slab), strict=True))
        upper = [(found[number], found[number + 1]) for number in range(0, len(found), 2)]
        # Layers without keys of their own: transformers asks the first layer how long the past is.
        nothing = torch.zeros(1, device=device).expand(len(ids), 1, before, 1)
        if self._apart and upper and self._few(ids.shape[1], upper):
            cache = key_value_cache([(nothing, nothing)] * (self._constant + len(upper)))
            stack.enter_context(past_apart(cache, dict(enumerate(upper, self._constant))))
        else:
            cache = key_value_cache([(nothing, nothing)] * self._constant + upper)
        column = torch.arange(before + ids.shape[1], device=device)
        return {
            "past_key_values": cache,
            "attention_mask": (column >= (before - starts).unsqueeze(1)).long(),
            "position_ids": starts.unsqueeze(1) + torch.arange(ids.shape[1], device=device),
        }

    def _few(self, columns: int, upper: Sequence[tuple[Tensor, Tensor]]) -> bool:
        """Whether attention of ``columns`` over a past takes no more memory by shares than by copies of the past.

        As many as run on when the model is tried are always few.
        """
        return columns <= max((self._suffix or 0) + _TRIED_TARGET - 1, *(part.shape[-1] for part in upper[0]))

    def _usable(self) -> Savings:
        """All savings that the specs allow, as far as the model gives the same logits with them."""
        lasts = [spec.suffix for spec in self.specs if spec.suffix is not None]
        wanted = Savings(
            min(spec.constant_layers(self.backbone) for spec in self.specs),
            max(lasts) if self.split_prompts and len(lasts) == len(self.specs) else None,
            narrow=True,
        )
        wanted = replace(wanted, apart=wanted.suffix is not None)
        whole = replace(wanted, suffix=None, apart=False)
        ways = [
            replace(way, narrow=narrow)
            for way in (wanted, replace(wanted, apart=False), whole, replace(whole, constant=0))
            for narrow in (True, False)
        ]
        known: dict[Hashable, Savings] = self.backbone.usable_savings
        # Whether the last layer is narrowed depends on what is adapted in it.
        adapted = {id(module) for module in self._adapted}
        key = wanted, tuple(name for name, module in self.backbone.model.named_modules() if id(module) in adapted)
        if key not in known:
            try:
                known[key] = self._first_that_holds(list(dict.fromkeys(ways)))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                return wanted
            self._tell(wanted, known[key])
        return known[key]

    def _tell(self, wanted: Savings, found: Savings) -> None:
        name = type(self.backbone.model).__name__
        if found.constant != wanted.constant:
            self.say(f"{name} computes every layer in every epoch: it cannot go on from a layer's output alone")
        if found.suffix != wanted.suffix:
            self.say(
                f"{name} reads whole prompts in every epoch: a part of them cannot be kept as keys and values alone"
            )

    @torch.no_grad()
    def _first_that_holds(self, ways: Sequence[Savings]) -> Savings:
        """The first of ``ways`` with the logits of a whole, padded and masked pass; the last one if none has them."""
        rows = _made_up(self.backbone, max(way.suffix or 0 for way in ways))
        expected = self._plain_logits(rows)
        # They leave these rows, which are nobody's, as they are.
        beneath = [below for below in self.beneath if isinstance(below, PerUser)]
        for way in ways[:-1]:
            passes = replace(self, beneath=beneath, store=ConstantStore(0), savings=way)
            try:
                found = passes.logits(rows, ())
            except Exception as error:  # what a model meets in a pass that it was not written for depends on the model
                if is_out_of_memory(error):
                    raise
            else:
                if alike(found, expected):
                    return way
        return ways[-1]

    def _plain_logits(self, rows: Sequence[TrainingRow]) -> Tensor:
        device = self.backbone.model.device
        ids = _padded([row.ids for row in rows], self.backbone.pad, device)
        mask = _padded([[1] * len(row.ids) for row in rows], 0, device)
        logits = self.backbone.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return torch.cat([own[len(row.prompt) - 1 : len(row.ids)] for own, row in zip(logits, rows, strict=True)])


def _made_up(backbone: TransformersBackbone, suffix: int) -> list[TrainingRow]:
    """Two rows of tokens without meaning, of which more than the last ``suffix`` are in the prompt."""
    tokens = min(1000, backbone.model.get_output_embeddings().weight.shape[0])
    texts = [[(11 * (i + 3) ** 2 + 7 * n) % tokens for i in range(suffix + length)] for n, length in enumerate((9, 6))]
    return [TrainingRow(0, n, text[:-_TRIED_TARGET], text[-_TRIED_TARGET:], 1.0, 0) for n, text in enumerate(texts)]


def _padded_before(rows: Sequence[Tensor], columns: int) -> Tensor:
    """Each row's stack of keys or values, with zeros before it so that what runs on begins in one column.

    Shape (how many, rows, key-value heads, columns, head width).
    """
    many, heads, _, width = rows[0].shape
    joined = rows[0].new_empty(many, len(rows), heads, columns, width)
    for number, row in enumerate(rows):
        begin = columns - row.shape[2]
        joined[:, number, :, :begin] = 0
        joined[:, number, :, begin:] = row
    return joined


def _of_one_shape(parts: Sequence[Tensor]) -> list[list[int]]:
    """Numbers of tensors, those of one shape together."""
    slabs: dict[torch.Size, list[int]] = {}
    for number, part in enumerate(parts):
        slabs.setdefault(part.shape, []).append(number)
    return list(slabs.values())


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
