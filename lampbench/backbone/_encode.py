"""Prompts to token ids, cut where they may be cut."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lampbench.backbone._chat import Frame, added_tokens, one_of
from lampbench.backbone._written import Written
from lampbench.core import InputError, Pair, Prompt, continuation

# OPPU's released code cuts training sequences here, and test prompts nowhere.
MAX_SEQUENCE = 2048
# Without a template a prompt stands alone, and EOS follows the answer.
_BARE = Frame("", "", continuation(""), "", "", trims=False, end=None, template="")


@dataclass
class Usage:
    """What a backbone was asked to do so far; the meter reads the differences.

    Attributes:
        train_tokens: Tokens of training sequences, each time they were trained on.
        prompt_tokens, generated_tokens: Tokens read and written when predicting.
        cut_contexts, cut_sources: Prompts whose context, or source text, did not fit.
        prompts: Prompts that were answered.
        longest_prompt: Tokens of the longest of them since this was last set to 0.
        answers, answer_tokens: Answers that were written, and their tokens, without thoughts.
        answers_at_limit: Those that ended because no more tokens were allowed.
        thought_tokens: Tokens that were written before answers, as thoughts.
        unfinished_thoughts: Answers that are empty because a thought did not end.
    """

    train_tokens: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cut_contexts: int = 0
    cut_sources: int = 0
    prompts: int = 0
    longest_prompt: int = 0
    answers: int = 0
    answer_tokens: int = 0
    answers_at_limit: int = 0
    thought_tokens: int = 0
    unfinished_thoughts: int = 0

    def read(self, tokens: int) -> None:
        """Count a prompt of so many tokens."""
        self.prompts += 1
        self.prompt_tokens += tokens
        self.longest_prompt = max(self.longest_prompt, tokens)

    def wrote(self, written: Written) -> None:
        """Count what was written after a prompt."""
        self.generated_tokens += len(written.ids)
        self.answers += 1
        self.answer_tokens += len(written.ids) - written.thought
        self.answers_at_limit += written.at_limit
        self.thought_tokens += written.thought
        self.unfinished_thoughts += written.unfinished


class PromptEncoder:
    """Encodes prompts for one tokenizer within one context length.

    A prompt to be answered may fill the context but for the answer; a training example has at most
    ``MAX_SEQUENCE`` tokens, or the context if that is shorter, or ``switch``: beyond it, the rotary positions of some
    models change for all rows of a pass. With ``max_length`` that limits both.

    Without a ``frame``, a BOS token goes first if the tokenizer has one that is not also its EOS. The rule is ours,
    because versions of transformers disagree on what the same tokenizer files mean. With one, all that is not the
    prompt or the answer is the chat template's, BOS included, and special tokens are those that the template
    writes: in a prompt or an answer they are text.

    Args:
        tokenizer: One that reads special tokens in a text as text, if not told otherwise.
        context: The model's.
        usage: Gets counts of prompts that are cut.
        frame: A chat template's text around prompts and answers; None for none.
        max_length: Tokens that a prompt and its answer may have together.

    Attributes:
        prefix: How many places for the vectors of a prefix every prompt begins with. They hold an id that means
            nothing, and count as tokens of the prompt.
    """

    def __init__(
        self,
        tokenizer: Any,
        context: int,
        usage: Usage | None = None,
        *,
        switch: int | None = None,
        frame: Frame | None = None,
        max_length: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.eos = int(tokenizer.eos_token_id)
        self.context = context
        self.limit = context if max_length is None else min(context, max_length)
        longest = min(context, MAX_SEQUENCE) if max_length is None else self.limit
        self._most_to_train = min(context, switch or context)
        self.training_limit = min(longest, self._most_to_train)
        self.usage = usage or Usage()
        self.frame = frame or _BARE
        bos = tokenizer.bos_token_id
        self.prefix = 0
        self._first = [int(bos)] if frame is None and bos is not None and bos != self.eos else []
        self._last = [self.eos] if self.frame.end is None else []
        self._framed = None if frame is None else _Framed(tokenizer, frame)
        # Fitting a prompt and then taking it apart asks for the same few texts again.
        self._recent = lru_cache(maxsize=8)(self._tokenize)

    def with_prefix(self, length: int) -> PromptEncoder:
        """An encoder of the same prompts after ``length`` places for vectors, before everything else."""
        encoder = copy.copy(self)
        encoder.prefix = length
        encoder._first = [self.eos] * length + self._first[self.prefix :]
        return encoder

    def prompt(self, prompt: Prompt, max_new_tokens: int, *, thinking: bool = False) -> list[int]:
        """Ids of ``prompt``, leaving room for ``max_new_tokens``.

        Args:
            prompt: Is cut if it does not fit.
            max_new_tokens: Thoughts and answer together.
            thinking: Whether what follows may begin with a thought, if the frame lets it.

        Raises:
            InputError: The instruction and the target field alone do not fit.
        """

        def size(candidate: Prompt) -> int:
            return len(self._asked(candidate.text, thinking=thinking))

        fitted = self._fit(prompt, size, self.limit - max_new_tokens, self.limit, self.context)
        return self._asked(fitted.text, thinking=thinking)

    def pair(self, pair: Pair) -> tuple[list[int], list[int]]:
        """Ids of a training example's prompt, and of its target with what ends it; the target is never cut.

        Raises:
            InputError: Instruction, target field and target alone do not fit.
        """

        def size(candidate: Prompt) -> int:
            return sum(map(len, self._split(candidate.text, pair.target)))

        limit = self.training_limit
        return self._split(self._fit(pair.prompt, size, limit, limit, self._most_to_train).text, pair.target)

    def continuation(self, prompt: Prompt, answer: str) -> list[int]:
        """Ids that ``answer`` adds after ``prompt``, with what ends it: the end of the turn, or EOS."""
        return self._split(prompt.tail, answer)[1]

    def _asked(self, text: str, *, thinking: bool = False) -> list[int]:
        """Ids of a prompt's text, up to where the answer, or the thought before it, starts."""
        frame = self.frame
        after = frame.open if thinking else frame.after
        return self._first + list(self._recent(frame.before, frame.prompt(text), after))

    def _split(self, text: str, answer: str) -> tuple[list[int], list[int]]:
        """Ids of ``text`` and what ``answer`` and its end add to them.

        Generation starts after the ids of the prompt alone. Where the joint text is tokenized
        otherwise at the seam, the answer is therefore encoded on its own.
        """
        frame, before = self.frame, self._asked(text)
        if self._framed is not None:
            answer = answer.strip()
        joint = self._first + list(
            self._recent(frame.before, frame.prompt(text), frame.after + frame.lead, answer, frame.closing)
        )
        if joint[: len(before)] == before:
            return before, joint[len(before) :] + self._last
        return before, [*self._recent("", "", frame.lead, answer, frame.closing), *self._last]

    def _fit(self, prompt: Prompt, size: Callable[[Prompt], int], room: int, limit: int, most: int) -> Prompt:
        """``prompt``, cut to ``room``: what is free of ``limit``, which --max-length can raise to ``most``."""

        def fits(candidate: Prompt) -> bool:
            return size(candidate) <= room

        if fits(prompt):
            return prompt
        if prompt.context:
            self.usage.cut_contexts += 1
            prompt = _fit_context(prompt, fits)
            if fits(prompt):
                return prompt
        self.usage.cut_sources += 1

        def cut(length: int) -> Prompt:
            return replace(prompt, source=prompt.source[:length].rstrip())

        if not fits(cut(0)):
            raise InputError(
                f"{prompt.id or 'a prompt'}: the instruction, target field and target need {size(cut(0))} tokens, but "
                f"only {max(0, room)} of {limit} are free; "
                f"use {'a model with a longer context' if limit == most else 'a larger --max-length'}"
            )
        return cut(_largest(len(prompt.source), lambda length: fits(cut(length))))

    def _tokenize(self, *parts: str) -> tuple[int, ...]:
        """Ids of texts in a row, of the frame and of prompt or answer in turn."""
        if self._framed is not None:
            return self._framed.ids(parts)
        return tuple(self.tokenizer("".join(parts), add_special_tokens=False).input_ids)


class _Framed:
    """Encodes texts of a template and of people in a row: special tokens are the template's alone.

    The texts are tokenized in one piece, as transformers does with a conversation. Only what people wrote in the
    form of a token that the template may write is taken out, and encoded as the characters that it is.
    """

    def __init__(self, tokenizer: Any, frame: Frame) -> None:
        self._tokenizer = tokenizer
        template = "\n".join((frame.before, frame.after, frame.open, frame.lead, frame.closing))
        own = {text: number for text, number in added_tokens(tokenizer, special=False).items() if text in template}
        self._tokens = added_tokens(tokenizer, special=True) | own
        self._written = one_of(self._tokens)

    def ids(self, parts: tuple[str, ...]) -> tuple[int, ...]:
        """Ids of the ``parts``, those at odd places written by people."""
        ids: list[int] = []
        text, at = "".join(parts), 0
        for start, end in self._foreign(parts, text):
            ids += self._plain(text[at:start], split=False)
            ids += self._as_text(text[start:end])
            at = end
        ids += self._plain(text[at:], split=False)
        return tuple(ids)

    def _foreign(self, parts: tuple[str, ...], text: str) -> Iterator[tuple[int, int]]:
        """Where people wrote, or helped to write, the text of a token."""
        spans, at = [], 0
        for place, part in enumerate(parts):
            if place % 2:
                spans.append((at, at + len(part)))
            at += len(part)
        for found in self._written.finditer(text):
            if any(found.start() < end and start < found.end() for start, end in spans):
                yield found.span()

    def _as_text(self, text: str) -> list[int]:
        """Ids of a token's text that are not that token."""
        ids = self._plain(text, split=True)
        if self._tokens[text] in ids:
            # Not a special token, so no switch keeps the tokenizer from finding it.
            ids = self._plain(text[:1], split=True) + self._plain(text[1:], split=True)
        return ids

    def _plain(self, text: str, *, split: bool) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=split).input_ids if text else []
        return list(ids)


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
