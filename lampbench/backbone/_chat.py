"""A model's chat template, taken apart once: the text around what a user writes and around the answer."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lampbench.core import InputError, digest

if TYPE_CHECKING:
    from lampbench.backbone._load import BackboneInfo

THOUGHT_START, THOUGHT_END = "<think>", "</think>"
# Stand for the texts of a conversation while its template is taken apart; private characters are in no text.
_USER, _ANSWER = "\ue0f0user\ue0f0", "\ue0f1answer\ue0f1"
# The name of the switch in templates that have one.
_SWITCH = "enable_thinking"
# Some templates write the day, but a prompt must be the same tomorrow: a macro takes the place of the clock.
_CLOCK = "strftime_now"
_TODAY = datetime(2024, 7, 26)
_PARTS = "".join(f" | replace('%{part}', '{_TODAY:%{part}}')" for part in "aAbBdjmyYHIMSp")
_STOPPED = "{% macro strftime_now(format) %}{{ format" + _PARTS + " }}{% endmacro %}\n"


@dataclass(frozen=True, slots=True)
class Chat:
    """What the user asks of chat templates.

    Attributes:
        system: The text of the system turn; None for the template's own.
        thinking: Tokens that a model may think before it answers; 0: thinking is switched off.
    """

    system: str | None = None
    thinking: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """The text around a prompt and around the answer to it: what follows here is all that a model reads.

    A prompt that is to be answered reads ``before + prompt + after``, a training example goes on with
    ``lead + answer + closing``.

    Attributes:
        open: Takes the place of ``after`` if the model may think before it answers.
        trims: Whether the template strips the prompt.
        end: The token that ends the answer's turn; None: EOS, which then follows ``closing``.
        template: The hash of the template.
    """

    before: str
    after: str
    lead: str
    closing: str
    open: str
    trims: bool
    end: int | None
    template: str

    def prompt(self, text: str) -> str:
        """A prompt's text as the template shows it."""
        return text.strip() if self.trims else text


def has_template(tokenizer: Any) -> bool:
    """Whether the tokenizer has a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def frame_of(tokenizer: Any, chat: Chat, model: str) -> Frame:
    """The template's text around a prompt and its answer.

    Templates are programs, so one conversation of placeholders is rendered, and cut where these are. What users wrote
    never passes through the template.

    Args:
        tokenizer: Has the template.
        chat: What the user asks for.
        model: The model's name, for messages.

    Raises:
        InputError: There is no template, it refuses or leaves out the system turn, or it shows the prompt not
            exactly once.
    """
    template = _Template(tokenizer, chat.system, f"--model {model}")
    # Tabs, because templates write spaces and newlines of their own around a text.
    trims = f"\t{_USER}\t" not in template.rendered(f"\t{_USER}\t")
    before, after = template.parted(template.rendered(_USER))
    shut, lead, closing = _answered(template, before, after)
    opened = template.parted(template.rendered(_USER, thinking=True))[1] if chat.thinking else shut
    end = _first_token(closing, tokenizer)
    return Frame(
        before,
        shut,
        lead,
        closing[: end[0]] if end else "",
        opened,
        trims,
        end[1] if end else None,
        digest(template.source),
    )


def chat_identity(chat: Chat, tokenizer: Any, info: BackboneInfo) -> dict[str, Any]:
    """The identity of conversations in a run: template, system turn, end tokens, and room for thoughts.

    Raises:
        InputError: The template cannot be used.
    """
    from lampbench.backbone._load import end_tokens

    frame = frame_of(tokenizer, chat, info.source.location)
    ends = {int(tokenizer.eos_token_id), *end_tokens(info), *([] if frame.end is None else [frame.end])}
    return {
        "template": frame.template,
        "system": None if chat.system is None else digest(chat.system),
        "stop": digest(sorted(ends)),
        "thinking": chat.thinking,
    }


def added_tokens(tokenizer: Any, *, special: bool) -> dict[str, int]:
    """Tokens that a tokenizer finds in a text before it splits it, or only its special ones: text -> id."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {str(token): int(number) for number, token in added.items() if str(token) and (token.special or not special)}


def _answered(template: _Template, before: str, after: str) -> tuple[str, str, str]:
    """What ends the prompt if nothing is thought, what leads to the answer, and what the template writes after it."""
    whole = template.rendered(_USER, _ANSWER)
    between, found, closing = whole.removeprefix(before + _USER).partition(_ANSWER)
    if not found or not whole.startswith(before + _USER):
        # A template that shows no answers: EOS ends them.
        between, closing = after, ""
    lead = between.removeprefix(after) if between.startswith(after) else ""
    if lead.strip():
        # A thought that is empty, or the name of a channel: the answer starts after it.
        return between, "", closing
    if after.rfind(THOUGHT_START) > after.rfind(THOUGHT_END):
        return f"{after.rstrip()}\n\n{THOUGHT_END}\n\n", "", closing
    return after, lead, closing


def _first_token(text: str, tokenizer: Any) -> tuple[int, int] | None:
    """Where the first added token of a text ends, and its id; None if there is none."""
    tokens = added_tokens(tokenizer, special=False)
    found = one_of(tokens).search(text)
    return (found.end(), tokens[found[0]]) if found else None


def one_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Matches any of some texts, the longest first; of none, nothing."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


class _Template:
    """A tokenizer's template, with one conversation to render."""

    def __init__(self, tokenizer: Any, system: str | None, model: str) -> None:
        if not has_template(tokenizer):
            raise InputError(
                f"{model}: its tokenizer has no chat template, which --chat on needs; leave it out, or use an "
                "instruction-tuned model"
            )
        self._tokenizer, self._system, self._model = tokenizer, system, model
        try:
            self.source = str(tokenizer.get_chat_template())
        except ValueError as error:
            raise InputError(f"{model}: it has several chat templates and none is the default: {error}") from error

    def rendered(self, prompt: str, answer: str | None = None, *, thinking: bool = False) -> str:
        """The conversation up to where the answer starts, or with the answer."""
        turns = [("system", self._system), ("user", prompt), ("assistant", answer)]
        messages = [{"role": role, "content": text} for role, text in turns if text is not None]
        try:
            text = self._tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=answer is None,
                chat_template=_STOPPED + self.source if _CLOCK in self.source else self.source,
                **({_SWITCH: thinking} if _SWITCH in self.source else {}),
            )
        except Exception as error:  # whatever a template, which is a program, raises
            if self._system is not None:
                raise InputError(
                    f"{self._model}: its chat template refuses the conversation with --system ({_line(error)}); "
                    "leave --system out"
                ) from error
            raise InputError(f"{self._model}: its chat template fails: {_line(error)}") from error
        if self._system is not None and self._system.strip() not in text:
            raise InputError(f"{self._model}: its chat template leaves the system turn out; leave --system out")
        return str(text)

    def parted(self, text: str) -> tuple[str, str]:
        """A rendered conversation's text before and after the prompt."""
        before, *after = text.split(_USER)
        if len(after) != 1:
            raise InputError(
                f"{self._model}: its chat template shows the user's text {len(after)} times; expected once"
            )
        return before, after[0]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
