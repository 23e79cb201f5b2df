"""The frozen language model that every method shares."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lampbench.backbone._chat import THOUGHT_END, THOUGHT_START
from lampbench.backbone._check import checked_skeleton
from lampbench.backbone._contrast import Contrast
from lampbench.backbone._decode import Batching, generate, score_answers
from lampbench.backbone._decoding import OPPU_SAMPLING, Decoding
from lampbench.backbone._encode import Usage
from lampbench.backbone._families import rotary_switch
from lampbench.backbone._load import BackboneInfo, find_layers, load_model, load_skeleton
from lampbench.backbone._partial import layer_output, layers_left_out
from lampbench.backbone._pass import Adapter, at_positions, keep_logits, left_pad
from lampbench.backbone._probes import (
    joining_changes_nothing,
    leaving_changes_nothing,
    padding_changes_nothing,
    sharing_changes_nothing,
)
from lampbench.backbone._queues import Queue, batches, queues
from lampbench.backbone._shared import SharedReading, beginnings_of
from lampbench.backbone._watch import Watch
from lampbench.backbone._written import Rules
from lampbench.core import (
    BackboneShape,
    InputError,
    LampBenchError,
    Prompt,
    Sampling,
    Task,
    derive_seed,
)


class TransformersBackbone:
    """A decoder-only model of transformers with batched generation.

    Predictions do not depend on the batch size or on the other prompts of a batch (in float32): rows are
    sorted by length and padded on the left, and sampling draws from a generator per prompt.

    Attributes:
        info: Its identity.
        model, tokenizer: As transformers loads them; the model is frozen.
        layers: The decoder layers, for adapters.
        encoder: Prompts to ids.
        usage: Tokens read, written and trained on so far.
        watch: Hears how far answers are.
    """

    def __init__(
        self,
        info: BackboneInfo,
        model: Any,
        tokenizer: Any,
        *,
        decoding: Decoding,
        batch_size: int,
        seed: int,
    ) -> None:
        self.info = info
        self.model = model
        self.tokenizer = tokenizer
        self.layers = find_layers(model, info.shape.layers)
        self.usage = Usage()
        self.watch = Watch()
        self._switch = rotary_switch(model.config)
        self.encoder = decoding.encoder(tokenizer, info, self.usage, self._switch)
        self.decoding = decoding
        self.batch_size = batch_size
        self.seed = seed
        self._newlines: Tensor | None = None
        self._most: int | None = None
        # What training passes may leave out, found once by trying (lampbench.adapters).
        self.usable_savings: dict[Any, Any] = {}

    @classmethod
    def load(cls, info: BackboneInfo, *, decoding: Decoding, batch_size: int, seed: int) -> TransformersBackbone:
        """Load the weights that ``info`` names; raises InputError if they are missing or wrong."""
        model, tokenizer = load_model(info)
        return cls(info, model, tokenizer, decoding=decoding, batch_size=batch_size, seed=seed)

    @classmethod
    def skeleton(cls, info: BackboneInfo, *, decoding: Decoding, batch_size: int, seed: int) -> TransformersBackbone:
        """The same without weights: it has shapes and cannot answer; raises as ``load`` does."""
        model, tokenizer = load_skeleton(info)
        return cls(info, model, tokenizer, decoding=decoding, batch_size=batch_size, seed=seed)

    @classmethod
    def checked(cls, info: BackboneInfo, *, decoding: Decoding, batch_size: int, seed: int) -> TransformersBackbone:
        """A skeleton after every check that needs no weights.

        Raises:
            InputError: ``load`` or the first answer would fail because of the model's files.
        """
        model, tokenizer = checked_skeleton(info)
        backbone = cls(info, model, tokenizer, decoding=decoding, batch_size=batch_size, seed=seed)
        backbone._stop_at_eos()
        return backbone

    @property
    def shape(self) -> BackboneShape:
        """Layers, width and context length."""
        return self.info.shape

    @property
    def device(self) -> str:
        """Where it runs, such as ``cpu`` or ``cuda``."""
        return self.info.device

    @property
    def pad(self) -> int:
        """The id that fills padded columns; they are masked, so any id does."""
        return self.encoder.eos

    def answer(
        self,
        task: Task,
        prompts: Sequence[Prompt],
        adapters: Sequence[Adapter] = (),
        contrast: Contrast | None = None,
    ) -> list[str]:
        """One answer per prompt, stripped, decoded as the run asks.

        Adapters may act differently on each prompt: they know it by its place in ``prompts``. With a ``contrast``
        every prompt is read by two models, and each token is chosen from both: for the second model, adapters get the
        prompt's place plus ``len(prompts)``. If labels are scored, whole labels are contrasted as tokens are.
        """
        if self.decoding.mode == "labels":
            return self._best_labels(task, prompts, adapters, contrast)
        sampling = OPPU_SAMPLING if self.decoding.mode == "sampled" else None
        rules = replace(self._rules(self.answer_room(task), one_line=task.one_line), stop=task.stop)
        return [task.ended(text) for text in self._write(prompts, rules, sampling, adapters, contrast)]

    def answer_room(self, task: Task) -> int:
        """How many tokens a prompt of ``task`` leaves free for a written answer."""
        labels = [len(self.encoder.continuation(task.prompt(""), label)) for label in task.labels]
        # A tokenizer with a small vocabulary may need more tokens for a label than the task allows.
        return max([task.max_new_tokens, *labels])

    def check_task(self, task: Task) -> None:
        """Raise InputError if the context is too short for the instruction of ``task`` and an answer."""
        labels = self.decoding.mode == "labels"
        answers = [len(self.encoder.continuation(task.prompt(""), label)) for label in task.labels] if labels else []
        self.encoder.prompt(task.prompt(""), max(answers) if labels else self.answer_room(task))

    def write(self, prompts: Sequence[Prompt], max_new_tokens: int, sampling: Sampling | None = None) -> list[str]:
        """Free text after each prompt until EOS, stripped; greedy if ``sampling`` is None."""
        return self._write(prompts, self._rules(max_new_tokens, one_line=False), sampling, ())

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        """Yields a list that gets a hash of the logits of each forward pass inside the ``with`` block."""
        heard: list[str] = []

        def hear(module: Any, arguments: Any, output: Any) -> None:
            # Bytes of any dtype: numpy knows no bfloat16.
            heard.append(hashlib.sha256(output[0].float().cpu().numpy().tobytes()).hexdigest())

        with self.model.register_forward_hook(hear):
            yield heard

    @contextmanager
    def brief(self, tokens: int) -> Iterator[None]:
        """Answers inside the ``with`` block have at most so many tokens; prompts are what they are outside of it.

        For those who only want to know whether two answers are alike. Labels are scored as ever.
        """
        before, self._most = self._most, tokens
        try:
            yield
        finally:
            self._most = before

    def warm_up(self) -> None:
        """One short pass, so that no phase is charged for the first use of a device."""
        rules = self._rules(2, one_line=True)
        generate(self.model, self.layers, [[self.pad]], rules=rules, pad=self.pad, batching=Batching(1))

    @cached_property
    def layers_return(self) -> int:
        """How long the tuple is that a decoder layer returns; 0 for its hidden states alone, as in transformers 5."""
        found: list[Any] = []
        hook = self.layers[0].register_forward_hook(lambda module, arguments, output: found.append(output))
        with hook, torch.no_grad():
            self.model(input_ids=torch.tensor([[self.pad]], device=self.model.device), use_cache=False)
        return len(found[0]) if isinstance(found[0], tuple) else 0

    @cached_property
    def ignores_padding(self) -> bool:
        """Whether a prompt gets the same logits in a padded batch as alone; found by trying.

        What is not attention (a convolution, a state) may take padding for text.
        """
        return padding_changes_nothing(self.model, self.pad)

    @cached_property
    def rows_may_leave(self) -> bool:
        """Whether a row may leave a batch without a change of the others' logits; found by trying."""
        return leaving_changes_nothing(self.model, self.pad)

    @cached_property
    def rows_may_join(self) -> bool:
        """Whether rows may join a batch without a change of any row's logits; found by trying."""
        return self.rows_may_leave and self.ignores_padding and joining_changes_nothing(self.model, self.pad)

    @cached_property
    def shares_beginnings(self) -> bool:
        """Whether rows have the same logits if what they begin with is read once; found by trying."""
        return self.ignores_padding and sharing_changes_nothing(self.model, self.pad)

    @property
    def layers_return_tuples(self) -> bool:
        """Whether a decoder layer returns a tuple."""
        return self.layers_return > 0

    @torch.no_grad()
    def with_weights(self, changes: Iterable[tuple[str, Tensor]]) -> TransformersBackbone:
        """A backbone whose weights are this one's plus ``changes``; this one stays as it is.

        Args:
            changes: Names of parameters of the model, each with what is added: float32, of its shape.
                Everything else is shared: only changed weights take memory.
        """
        tensors = [*self.model.parameters(), *self.model.buffers()]
        model = copy.deepcopy(self.model, {id(tensor): tensor for tensor in tensors})
        for name, change in changes:
            path, _, last = name.rpartition(".")
            owner = model.get_submodule(path)
            weight = getattr(owner, last)
            # Added in float32 at least, and rounded to the backbone's dtype once.
            wide = torch.promote_types(weight.dtype, change.dtype)
            changed = (weight.to(wide) + change.to(weight.device, wide)).to(weight.dtype)
            setattr(owner, last, torch.nn.Parameter(changed, requires_grad=False))
        changed_backbone = copy.copy(self)
        changed_backbone.model = model
        changed_backbone.layers = find_layers(model, self.info.shape.layers)
        return changed_backbone

    def with_prefix(self, length: int) -> TransformersBackbone:
        """This backbone with ``length`` places for the vectors of a prefix before every prompt.

        They must be filled by an adapter; see ``PromptEncoder.prefix``.
        """
        prefixed = copy.copy(self)
        prefixed.encoder = self.encoder.with_prefix(length)
        return prefixed

    @torch.inference_mode()
    def last_states(self, rows: Sequence[Sequence[int]], layers: Sequence[int]) -> Tensor:
        """The residual stream at each row's last token, after each of ``layers``; nothing above them is computed.

        Rows run in batches of the backbone's batch size, padded on the left, and do not depend on each other.

        Args:
            rows: Token ids of each prompt.
            layers: Decoder layers, 0-based, ascending.

        Returns:
            Shape (rows, layers, width), float32, on the CPU.

        Raises:
            LampBenchError: A state is no number.
        """
        states = torch.empty(len(rows), len(layers), self.shape.width)
        above = range(layers[-1] + 1, self.shape.layers)
        for batch in batches(self._queues(rows, 0, self.batch_size)):
            with ExitStack() as stack:
                stack.enter_context(layers_left_out(self.layers, above, in_tuple=self.layers_return))
                found = [stack.enter_context(layer_output(self.layers[layer], _last_column)) for layer in layers]
                self._read([rows[number] for number in batch])
            states[batch] = torch.stack([column for (column,) in found], dim=1).cpu()
        if not states.isfinite().all():
            raise LampBenchError(
                "hidden states are no numbers (NaN or infinite): the weights are damaged, or float16 overflows (take "
                "bfloat16 or float32)"
            )
        return states

    @torch.inference_mode()
    def mean_embeddings(self, texts: Sequence[str], longest: int) -> Tensor:
        """The mean of what the model's embedding module returns for each text, without special tokens.

        Args:
            texts: Each is computed alone.
            longest: How many of a text's first tokens are read.

        Returns:
            Shape (texts, width), float32 (float64 on a float64 backbone), on the CPU; zeros for a text without tokens.
        """
        embed = self.model.get_input_embeddings()
        wide = torch.promote_types(embed.weight.dtype, torch.float32)
        means = torch.zeros(len(texts), embed.weight.shape[1], dtype=wide)
        for number, text in enumerate(texts):
            ids = self.tokenizer(text, add_special_tokens=False).input_ids[:longest]
            if ids:
                means[number] = embed(torch.tensor(ids, device=self.model.device)).to(wide).mean(0)
        return means

    def _read(self, rows: Sequence[Sequence[int]]) -> None:
        """One forward pass over prompts, without a cache."""
        ids, mask, positions = left_pad(rows, self.pad, self.model.device)
        for row in rows:
            self.usage.read(len(row))
        extra = {**at_positions(self.model, positions), **keep_logits(self.model, 1)}
        self.model(input_ids=ids, attention_mask=mask, use_cache=False, **extra)

    def _queues(self, rows: Sequence[Sequence[int]], room: int, batch_size: int) -> list[Queue]:
        """Which rows may be in one batch; ``room`` is how many tokens may follow a row."""
        return queues(list(map(len, rows)), room, batch_size, padded=self.ignores_padding, switch=self._switch)

    def _batching(self, size: int, rows: int) -> Batching:
        """What the model allows; nothing is tried for a row alone."""
        alone = min(size, rows) < 2
        return Batching(size) if alone else Batching(size, self.rows_may_leave, self.rows_may_join)

    def _shared(self, rows: Sequence[Sequence[int]], adapters: Sequence[Adapter]) -> SharedReading | None:
        """How rows are read that begin alike; None if none do, or if the model does not allow it."""
        beginnings = beginnings_of(rows, adapters) if min(self.batch_size, len(rows)) > 1 else []
        if not beginnings or not self.shares_beginnings:
            return None
        return SharedReading(self.model, rows, self.pad, beginnings)

    def _rules(self, limit: int, *, one_line: bool) -> Rules:
        """When a text of at most ``limit`` tokens ends."""
        ends = frozenset(self._stop_at_eos().nonzero().flatten().tolist())
        newlines = frozenset(self.stop_at_newline().nonzero().flatten().tolist()) - ends if one_line else frozenset()
        chat, start = self.decoding.chat, self.encoder.frame.open
        return Rules(
            limit,
            ends,
            newlines,
            self._decoded,
            chat=chat is not None,
            thinking=chat.thinking if chat else 0,
            in_thought=start.rfind(THOUGHT_START) > start.rfind(THOUGHT_END),
        )

    def _decoded(self, ids: Sequence[int], skip_special: bool) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=skip_special, clean_up_tokenization_spaces=False)
        return text

    def _write(
        self,
        prompts: Sequence[Prompt],
        rules: Rules,
        sampling: Sampling | None,
        adapters: Sequence[Adapter],
        contrast: Contrast | None = None,
    ) -> list[str]:
        room = rules.thinking + rules.limit
        rows = [self.encoder.prompt(prompt, room, thinking=True) for prompt in prompts]
        seeds = [derive_seed(self.seed, "sampling", prompt.id) for prompt in prompts]
        texts = [""] * len(rows)
        readings = 1 if contrast is None else 2
        shared = self._shared(rows * readings, adapters)
        for queue in self._queues(rows, room, max(1, self.batch_size // readings)):
            own = queue.rows if shared is None else shared.together(queue.rows)
            written = generate(
                self.model,
                self.layers,
                [rows[i] for i in own],
                rules=rules if self._most is None else rules.cut(self._most),
                pad=self.pad,
                batching=self._batching(queue.size, len(own)),
                shared=shared,
                adapters=adapters,
                numbers=_numbers(own, len(rows), readings),
                sampling=sampling,
                seeds=[seeds[i] for i in own],
                penalties=self.decoding.penalties,
                contrast=contrast,
                places=self.encoder.prefix,
                progress=self.watch.hear,
            )
            for i, answer in zip(own, written, strict=True):
                for _ in range(readings):
                    self.usage.read(len(rows[i]))
                self.usage.wrote(answer)
                texts[i] = answer.answer()
        return texts

    def _best_labels(
        self, task: Task, prompts: Sequence[Prompt], adapters: Sequence[Adapter], contrast: Contrast | None
    ) -> list[str]:
        answers = [self.encoder.continuation(task.prompt(""), label) for label in task.labels]
        longest = max(map(len, answers))
        rows = [self.encoder.prompt(prompt, longest) for prompt in prompts]
        chosen = [""] * len(rows)
        readings = 1 if contrast is None else 2
        shared = self._shared(rows * readings, adapters)
        for batch in batches(self._queues(rows, longest, max(1, self.batch_size // (readings * len(answers))))):
            scores = score_answers(
                self.model,
                self.layers,
                [rows[i] for i in batch for _ in range(readings)],
                answers,
                pad=self.pad,
                numbers=[number for own in _numbers(batch, len(rows), readings) for number in own],
                adapters=adapters,
                shared=shared,
            )
            if contrast is not None:
                scores = contrast.scores(scores[::2], scores[1::2])
            for i, best in zip(batch, scores.argmax(-1).tolist(), strict=True):
                for _ in range(readings):
                    self.usage.read(len(rows[i]))
                chosen[i] = task.labels[best]
            self.watch.hear(len(batch))
        return chosen

    def _stop_at_eos(self) -> Tensor:
        stop = torch.zeros(self.model.get_output_embeddings().weight.shape[0], dtype=torch.bool)
        more = self.model.generation_config.eos_token_id if self.model.generation_config else None
        turn = [] if self.encoder.frame.end is None else [self.encoder.frame.end]
        for token in [self.encoder.eos, *turn, *(more if isinstance(more, list) else [] if more is None else [more])]:
            if not isinstance(token, int) or not 0 <= token < len(stop):
                raise InputError(
                    f"--model {self.info.source.name}: its EOS token is {token!r} (generation_config.json); "
                    f"expected an id from 0 to {len(stop) - 1}"
                )
            stop[token] = True
        return stop.to(self.model.device)

    def stop_at_newline(self) -> Tensor:
        """Which tokens end a written answer (a newline, EOS, or the end of a turn), boolean, shape (vocabulary,)."""
        if self._newlines is None:
            stop = self._stop_at_eos()
            texts = self.tokenizer.batch_decode(
                [[token] for token in range(len(self.tokenizer))], clean_up_tokenization_spaces=False
            )
            stop[[token for token, text in enumerate(texts[: len(stop)]) if "\n" in text]] = True
            self._newlines = stop
        return self._newlines


def _numbers(batch: Sequence[int], prompts: int, readings: int) -> list[list[int]]:
    """The numbers by which adapters know each reading of each prompt; those of a second one come after all prompts."""
    return [[number + prompts * reading for reading in range(readings)] for number in batch]


def _last_column(hidden: Tensor) -> Tensor:
    # A copy, so that no other column stays in memory.
    return hidden[:, -1].to(torch.float32, copy=True)
