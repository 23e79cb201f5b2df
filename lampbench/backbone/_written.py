"""What a model writes after a prompt, token by token: when it ends, and what of it is the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lampbench.backbone._chat import THOUGHT_END, THOUGHT_START

# The end of a thought may be written in several tokens; no more than so many.
_MARKER_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Rules:
    """What ends a text.

    Attributes:
        limit: Tokens of an answer at most.
        ends: Tokens that end a turn.
        newlines: Tokens that contain a newline; empty if an answer may have several lines.
        decoded: Ids as text; special tokens are in it if the second argument is False.
        chat: Whether a turn of a conversation is written: it may begin with empty lines, or with a thought.
        thinking: Tokens of a thought at most.
        in_thought: Whether the prompt ends inside a thought.
        stop: A text that ends an answer, which is cut there; empty if there is none.
    """

    limit: int
    ends: frozenset[int]
    newlines: frozenset[int]
    decoded: Callable[[Sequence[int], bool], str]
    chat: bool = False
    thinking: int = 0
    in_thought: bool = False
    stop: str = ""

    def cut(self, tokens: int) -> Rules:
        """The same for the first so many tokens alone, thought or answer."""
        return replace(self, limit=min(self.limit, tokens), chat=False, thinking=0)

    def begin(self) -> Written:
        """Nothing written yet."""
        return Turn(self) if self.chat else Written(self)


class Written:
    """What was written after one prompt.

    Attributes:
        ids: Every token, with the one that ended it.
        at_limit: Whether the answer ended because no more tokens were allowed.
        thought: How many of the tokens are a thought.
        unfinished: Whether a thought did not end, so that there is no answer.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.ids: list[int] = []
        self.at_limit = False
        self.thought = 0
        self.unfinished = False

    def take(self, token: int) -> bool:
        """Add a token; whether more is to be written."""
        self.ids.append(token)
        return self._goes_on(token)

    def answer(self) -> str:
        """The answer, stripped."""
        text = self._text()
        return (text.split("\n", 1)[0] if self.rules.newlines else text).strip()

    def _text(self) -> str:
        return self.rules.decoded(self.ids, True)

    def _goes_on(self, token: int) -> bool:
        if self._ends(token):
            return False
        self.at_limit = len(self.ids) - self.thought >= self.rules.limit
        return not self.at_limit

    def _ends(self, token: int) -> bool:
        return token in self.rules.ends or self._ends_line(token) or self._stopped()

    def _ends_line(self, token: int) -> bool:
        return token in self.rules.newlines

    def _stopped(self) -> bool:
        """Whether the answer holds the text that ends it; a model may write that text before an answer begins."""
        stop = self.rules.stop
        if not stop:
            return False
        # A token has a byte or more, so the text ends the last few; only then is the whole answer looked at.
        recent = self.ids[self.thought :][-(len(stop.encode()) + _MARKER_TOKENS) :]
        return stop in self.rules.decoded(recent, True) and stop in self._text().lstrip()


class Turn(Written):
    """The same in a conversation: a thought may come first, and newlines before the answer do not end it."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self._thinks = rules.in_thought
        # Whether the first characters are still to tell if a thought comes; there is one at most.
        self._may_think = not rules.in_thought
        # What the token that ended the thought holds of the answer.
        self._first = ""

    def answer(self) -> str:
        """The answer without the thought, stripped; empty if the thought did not end."""
        if self.unfinished:
            return ""
        text = self._text().lstrip()
        return (text.split("\n", 1)[0] if self.rules.newlines else text).strip()

    def _goes_on(self, token: int) -> bool:
        if self._may_think:
            self._look_for_thought()
        return self._thinks_on(token) if self._thinks else super()._goes_on(token)

    def _text(self) -> str:
        return self._first + self.rules.decoded(self.ids[self.thought :], True)

    def _ends_line(self, token: int) -> bool:
        """Whether a line of the answer is whole."""
        return super()._ends_line(token) and "\n" in self._text().lstrip()

    def _look_for_thought(self) -> None:
        text = self.rules.decoded(self.ids, False).lstrip()
        self._thinks = text.startswith(THOUGHT_START)
        self._may_think = not self._thinks and THOUGHT_START.startswith(text)

    def _thinks_on(self, token: int) -> bool:
        recent = self.rules.decoded(self.ids[-_MARKER_TOKENS:], False)
        self.thought = len(self.ids)
        if THOUGHT_END in recent:
            self._thinks = False
            self._first = recent.rpartition(THOUGHT_END)[2]
            return True
        self.unfinished = token in self.rules.ends or self.thought >= self.rules.thinking
        return not self.unfinished
