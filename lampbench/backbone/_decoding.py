"""How a model is asked and how answers are made, whoever computes them. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from lampbench.backbone._chat import Chat, Frame, frame_of
from lampbench.backbone._encode import PromptEncoder, Usage
from lampbench.core import DecodingMode, Sampling, Task

if TYPE_CHECKING:
    from lampbench.backbone._load import BackboneInfo
    from lampbench.backbone._repeats import Repeats

# OPPU's released decoding; an option here, greedy being the default.
OPPU_SAMPLING = Sampling(temperature=0.1, top_k=10, top_p=0.9)


@dataclass(frozen=True, slots=True)
class Penalties:
    """What transformers' ``generate`` calls ``repetition_penalty`` and ``no_repeat_ngram_size``.

    Attributes:
        repetition: Logits of tokens that are in the prompt or were written are divided by it if positive, and
            multiplied by it if negative; None for no penalty.
        no_repeat_ngram: No sequence of so many tokens comes twice, prompt included; None for no rule.
    """

    repetition: float | None = None
    no_repeat_ngram: int | None = None

    def kept(self) -> Repeats | None:
        """What holds them while texts are written; None if there are none."""
        from lampbench.backbone._repeats import Repeats

        return None if self.repetition is None and self.no_repeat_ngram is None else Repeats(self)


NO_PENALTIES = Penalties()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a model is asked, and how answers are made.

    ``greedy`` and ``sampled`` write text until EOS, or a newline if the task's answers are one line.
    ``labels`` scores every label of the task (log-probability of its tokens and EOS) and answers
    the best; its rows never compare with written answers.

    Attributes:
        chat: Prompts and answers are turns of a conversation, by the model's chat template; None: plain text.
        max_length: Tokens that a prompt and its answer may have, of training examples as of queries; ``auto``: the
            model's context. None: the context for queries, ``MAX_SEQUENCE`` for training examples.
        penalties: On what was read or written before, of all text that the model writes.
    """

    mode: DecodingMode = "greedy"
    chat: Chat | None = None
    max_length: int | Literal["auto"] | None = None
    penalties: Penalties = NO_PENALTIES

    def to_json(self, task: Task) -> dict[str, Any]:
        """What goes into a run's identity, as far as it does not depend on the model."""
        details: dict[str, Any] = {"mode": self.mode}
        if self.mode != "labels":
            details["max_new_tokens"] = task.max_new_tokens
        if self.mode == "sampled":
            details["sampling"] = asdict(OPPU_SAMPLING)
        if self.penalties.repetition is not None:
            details["repetition_penalty"] = self.penalties.repetition
        if self.penalties.no_repeat_ngram is not None:
            details["no_repeat_ngram"] = self.penalties.no_repeat_ngram
        return details

    def length(self, context: int) -> int | None:
        """Tokens that a prompt and its answer may have in a model of this context; None if nothing was asked for."""
        if self.max_length is None:
            return None
        return context if self.max_length == "auto" else min(self.max_length, context)

    def encoder(
        self, tokenizer: Any, info: BackboneInfo, usage: Usage | None = None, switch: int | None = None
    ) -> PromptEncoder:
        """What encodes prompts for the model; raises InputError if its chat template cannot be used.

        ``switch`` is the length beyond which the model's rotary positions change, if they do.
        """
        return PromptEncoder(
            tokenizer,
            info.shape.context,
            usage,
            switch=switch,
            frame=self.frame(tokenizer, info),
            max_length=self.length(info.shape.context),
        )

    def frame(self, tokenizer: Any, info: BackboneInfo) -> Frame | None:
        """The chat template's text around prompts and answers; None for plain text. Raises as ``encoder``."""
        return None if self.chat is None else frame_of(tokenizer, self.chat, info.source.location)
