"""How a task is put into words: the prompt, the history items before it, and what a retriever is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PLACE = re.compile(r"\{(text|source|target)\}")


@dataclass(frozen=True, slots=True)
class Wording:
    """One way to put a task into words; ``--prompts`` chooses among those of a task.

    Texts are filled in at ``{text}`` (of a query), ``{source}`` and ``{target}`` (of a history item).

    Attributes:
        name: Its name for ``--prompts``, such as ``oppu`` or ``lamp``.
        question: The prompt, with ``{text}``; the answer follows after one space.
        item: A history item in a prompt's context, with ``{target}``, and ``{source}`` if items have a source side.
        query: What a retriever is asked, with ``{text}``.
        document: The text of a history item that a retriever searches; None for ``item``.
        between: What separates the items of a context.
        end: What ends the items of a context.
        bare: The prompt of a training example whose item has no source side.
        profile: Whether a written profile of the user may go before the items.
    """

    name: str
    question: str
    item: str
    query: str = "{text}"
    document: str | None = None
    between: str = ""
    end: str = "\n"
    bare: str = ""
    profile: bool = True

    def around(self) -> tuple[str, str]:
        """What comes before and after the text in the prompt."""
        head, _, tail = self.question.partition("{text}")
        return head, tail


def filled(template: str, **texts: str) -> str:
    """``template`` with ``texts`` in their places; braces inside the texts have no meaning."""
    return _PLACE.sub(lambda place: texts.get(place.group(1), place.group(0)), template)
