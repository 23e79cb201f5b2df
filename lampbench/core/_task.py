"""What a task is: fields, labels, prompt template, metrics. The six tasks are instances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lampbench.core._errors import InputError
from lampbench.core._types import HistoryItem, Pair, Prompt

TRAINING_WORDS = 768
RETRIEVED_WORDS = 368


def _first_words(text: str, limit: int) -> str:
    words = text.split(None, limit)
    if len(words) <= limit:
        return text
    return text[: len(text) - len(words[-1])].rstrip()


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of a task under its official key (LaMP's evaluator)."""

    key: str
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class Task:
    """One LaMP task.

    The prompt follows OPPU's template (Tan et al., EMNLP 2024, released code): the instruction, a
    newline, `` <source word>: <text> <target word>:``; the target follows after one space.

    Attributes:
        name: The name on the command line, such as ``lamp5``.
        version: Raised whenever a change here could change a score.
        official: The task's own name in LaMP's files (``LaMP_5``) and other names it goes by.
        about: One line for ``lampbench list tasks``.
        kind: Which metrics apply: ``labels``, ``rating`` or ``text``.
        instruction: The task's own instruction sentence.
        marker: The text of a raw LaMP input after which the source text starts.
        item_source: The field of a profile item that holds the source text; None where there is none.
        item_target: The field of a profile item that holds the target.
        item_fields: Every field a profile item may have.
        source_word, target_word: The field words of the prompt.
        before_target: What separates the source text from the target word.
        labels: All valid answers in the one fixed order, or empty.
        max_new_tokens: The longest answer a model may give, in tokens.
        metrics: The task's metrics, the primary one first.
        accepts: Whether an output, stripped, is a valid answer.
    """

    name: str
    version: int
    official: tuple[str, ...]
    about: str
    kind: Literal["labels", "rating", "text"]
    instruction: str
    marker: str
    item_source: str | None
    item_target: str
    item_fields: frozenset[str]
    source_word: str
    target_word: str
    max_new_tokens: int
    metrics: tuple[Metric, ...]
    accepts: Callable[[str], bool]
    before_target: str = " "
    labels: tuple[str, ...] = ()

    def source_text(self, raw_input: str, record: str) -> str:
        """The source text of a raw LaMP input.

        Raises:
            InputError: The input does not contain the task's marker; the message names ``record``.
        """
        _, marker, text = raw_input.partition(self.marker)
        if not marker:
            raise InputError(
                f"{record}: the input of a {self.name} question must contain {self.marker!r} before the "
                f"text; found {raw_input[:80]!r}; is this file another task's?"
            )
        return text

    def raw_input(self, text: str) -> str:
        """The raw LaMP input that asks about ``text``: instruction, marker, text. ``source_text`` undoes it."""
        # The marker begins with the instruction's own end.
        overlap = max(size for size in range(len(self.marker) + 1) if self.instruction.endswith(self.marker[:size]))
        return self.instruction + self.marker[overlap:] + text

    def prompt(self, text: str, id: str = "") -> Prompt:
        """The prompt that asks for the target of ``text``."""
        head = f"{self.instruction}\n {self.source_word}: "
        return Prompt(head, text, f"{self.before_target}{self.target_word}:", id=id)

    def pair(self, item: HistoryItem) -> Pair:
        """A history item as a training example; without a source side, the bare target field asks."""
        if self.item_source is None:
            return Pair(Prompt("", "", f"{self.target_word}:", id=item.id), item.target)
        return self.example(item.source, item.target, item.id)

    def example(self, text: str, target: str, id: str = "") -> Pair:
        """A text and its target as a training example (text cut to 768 words, as OPPU does)."""
        return Pair(self.prompt(_first_words(text, TRAINING_WORDS), id), target)

    def render(self, item: HistoryItem, words: int = RETRIEVED_WORDS) -> str:
        """A history item as a line of a prompt's context, its text cut to ``words`` words (OPPU: 368)."""
        if self.item_source is None:
            return f"{self.target_word}: {_first_words(item.target, words)}\n"
        source = _first_words(item.source, words)
        return f"{self.source_word}: {source} {self.target_word}: {item.target}\n"

    def retrieval_query(self, text: str) -> str:
        """What a retriever is asked for the query ``text``: the instruction and the text."""
        return f"{self.instruction} {text}"

    @property
    def evaluator_name(self) -> str:
        """The name that LaMP's evaluator knows; it calls both 2M and 2N ``LaMP_2``."""
        return self.official[-1]

    @property
    def primary(self) -> Metric:
        """The metric that a leaderboard sorts by."""
        return self.metrics[0]
