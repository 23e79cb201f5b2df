"""Prompts to token ids, cut where they may be cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lampbench.core import InputError, Pair, Prompt, continuation

# OPPU's released code cuts training sequences here, and test prompts nowhere.
MAX_SEQUENCE = 2048


@dataclass
class Usage:
    """What a backbone was asked to do so far; the meter reads the differences.

    Attributes:
        train_tokens: Tokens of training sequences, each time they were trained on.
        prompt_tokens, generated_tokens: Tokens read and written when predicting.
        cut_contexts, cut_sources: Prompts whose context, or source text, did not fit.
    """

    train_tokens: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cut_contexts: int = 0
    cut_sources: int = 0


class PromptEncoder:
    """Encodes prompts for one tokenizer within one context length.

    A prompt to be answered may fill the context but for the answer; a training example has at most
    ``MAX_SEQUENCE`` tokens, or the context if that is shorter, or ``switch``: beyond it, the rotary positions of some
    models change for all rows of a pass.

    A BOS token goes first if the tokenizer has one that is not also its EOS. The rule is ours,
    because versions of transformers disagree on what the same tokenizer files mean.
    """

    def __init__(self, tokenizer: Any, context: int, usage: Usage | None = None, switch: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.eos = int(tokenizer.eos_token_id)
        self.context = context
        self.training_limit = min(context, MAX_SEQUENCE, switch or context)
        self.usage = usage or Usage()
        bos = tokenizer.bos_token_id
        self._first = [int(bos)] if bos is not None and bos != self.eos else []
        # Fitting a prompt and then taking it apart asks for the same few texts again.
        self._recent = lru_cache(maxsize=8)(self._tokenize)

    def prompt(self, prompt: Prompt, max_new_tokens: int) -> list[int]:
        """Ids of ``prompt``, leaving room for ``max_new_tokens``.

        Raises:
            InputError: The instruction and the target field alone do not fit.
        """
        return self._ids(self._fit(prompt, "", self.context - max_new_tokens).text)

    def pair(self, pair: Pair) -> tuple[list[int], list[int]]:
        """Ids of a training example's prompt, and of its target with EOS; the target is never cut.

        Raises:
            InputError: Instruction, target field and target alone do not fit.
        """
        target = continuation(pair.target)
        return self._split(self._fit(pair.prompt, target, self.training_limit).text, target)

    def continuation(self, prompt: Prompt, answer: str) -> list[int]:
        """Ids that ``answer`` adds after ``prompt``, with EOS."""
        return self._split(prompt.tail, continuation(answer))[1]

    def _split(self, text: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of ``text`` and what ``continuation`` and EOS add to them.

        Generation starts after the ids of the prompt alone. Where the joint text is tokenized
        otherwise at the seam, the continuation is therefore encoded on its own.
        """
        before, joint = self._ids(text), self._ids(text + continuation)
        added = joint[len(before) :] if joint[: len(before)] == before else self._plain(continuation)
        return before, [*added, self.eos]

    def _fit(self, prompt: Prompt, suffix: str, room: int) -> Prompt:
        def fits(candidate: Prompt) -> bool:
            if not suffix:
                return len(self._ids(candidate.text)) <= room
            before, added = self._split(candidate.text, suffix)
            return len(before) + len(added) <= room

        if fits(prompt):
            return prompt
        if prompt.context:
            self.usage.cut_contexts += 1
            prompt = _fit_context(prompt, fits)
            if fits(prompt):
                return prompt
        self.usage.cut_sources += 1
        return self._fit_source(prompt, fits, room)

    def _fit_source(self, prompt: Prompt, fits: Callable[[Prompt], bool], room: int) -> Prompt:
        def cut(length: int) -> Prompt:
            return replace(prompt, source=prompt.source[:length].rstrip())

        if not fits(cut(0)):
            raise InputError(
                f"{prompt.id or 'a prompt'}: the instruction, target field and target need "
                f"{len(self._ids(cut(0).text))} tokens and more, but only {max(0, room)} of {self.context} are free; "
                "use a model with a longer context"
            )
        return cut(_largest(len(prompt.source), lambda length: fits(cut(length))))

    def _ids(self, text: str) -> list[int]:
        return self._first + self._plain(text)

    def _plain(self, text: str) -> list[int]:
        return list(self._recent(text))

    def _tokenize(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)


def _fit_context(prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt:
    """``prompt`` with as many leading context pieces as fit; of a first piece too long, its end."""

    def pieces(count: int) -> Prompt:
        return prompt.with_context(prompt.context[:count])

    def end_of_first(length: int) -> Prompt:
        return prompt.with_context([prompt.context[0][len(prompt.context[0]) - length :].lstrip()])

    whole = _largest(len(prompt.context), lambda count: fits(pieces(count)))
    if whole:
        return pieces(whole)
    return end_of_first(_largest(len(prompt.context[0]), lambda length: fits(end_of_first(length))))


def _largest(high: int, fits: Callable[[int], bool]) -> int:
    """The largest size up to ``high`` that fits, by bisection; 0 is taken to fit."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
