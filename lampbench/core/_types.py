"""The types that every part of LampBench uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One thing a user wrote before: a source text and the target the user gave it.

    ``source`` is empty if the task's history has no source side (LaMP-7).
    ``date`` is ``YYYY[-MM[-DD[Thh:mm:ss]]]`` in UTC, or empty; such dates sort as strings.
    """

    id: str
    source: str
    target: str
    date: str = ""


@dataclass(frozen=True, slots=True)
class User:
    """A user and their history, oldest item first.

    ``history`` is a tuple, or a sequence that is read from disk when it is first used.
    """

    id: str
    history: Sequence[HistoryItem]


@dataclass(frozen=True, slots=True)
class Query:
    """What a method must answer. It has no gold: only the scorer has the golds.

    ``date`` has the form of a ``HistoryItem``'s, or is empty: LaMP's own queries have none.
    """

    id: str
    user_id: str
    text: str
    date: str = ""


@dataclass(frozen=True, slots=True)
class AskedUser:
    """An evaluated user together with the queries that a method must answer for this user, without golds."""

    user: User
    queries: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A query together with its answer."""

    query: Query
    target: str


@dataclass(frozen=True, slots=True)
class LabelledUser:
    """A user with queries and their answers.

    Methods are given those of the shared split as training data. Those of evaluated users are seen only by the scorer
    and by code that writes data files.
    """

    user: User
    queries: tuple[LabelledQuery, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """A method's answer to one query."""

    query_id: str
    user_id: str
    output: str


# What starts an answer, as in OPPU's released code.
_ANSWER_START = " "


@dataclass(frozen=True, slots=True)
class Context:
    """What goes before a prompt: pieces with the most important first, and what ends them."""

    pieces: tuple[str, ...]
    end: str = "\n"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in parts, so that a length limit knows what may be cut.

    The model reads ``context + context_end + head + source + tail``. If that is too long, context pieces
    are cut first (the last piece first), then the end of ``source``; ``head`` (the instruction) and
    ``tail`` (the target field) are never cut. ``id`` names the query in errors and seeds sampling.
    """

    head: str
    source: str
    tail: str
    context: tuple[str, ...] = ()
    id: str = ""
    context_end: str = "\n"

    def with_context(self, context: str | Sequence[str] | Context) -> Prompt:
        """The same prompt after ``context``: one string, pieces with the most important first, or a ``Context``.

        Empty pieces are left out. With a string or pieces, what ends the context stays (by default, a newline).
        """
        if isinstance(context, str):
            context = (context,)
        pieces, end = (context.pieces, context.end) if isinstance(context, Context) else (context, self.context_end)
        return replace(self, context=tuple(piece for piece in pieces if piece), context_end=end)

    @property
    def text(self) -> str:
        """The whole prompt, nothing cut."""
        context = "".join(self.context) + self.context_end if self.context else ""
        return context + self.head + self.source + self.tail

    def answered_by(self, answer: str) -> str:
        """The whole prompt with ``answer`` after it."""
        return self.text + continuation(answer)


def continuation(answer: str) -> str:
    """What a model writes after a prompt to give ``answer``."""
    return _ANSWER_START + answer


@dataclass(frozen=True, slots=True)
class Pair:
    """A training example: a prompt and the target that follows it after one space."""

    prompt: Prompt
    target: str
