"""What a task is: fields, labels, prompt template, metrics, and everything else that is specific to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lampbench.core._errors import InputError, unknown_name
from lampbench.core._files import digest
from lampbench.core._metric import AnswerKind, Metric
from lampbench.core._registry import metrics
from lampbench.core._types import Context, HistoryItem, Pair, Prompt
from lampbench.core._wording import Wording, filled

if TYPE_CHECKING:
    from lampbench.core._task_file import TaskFile

_LINE_BREAK = re.compile(r"\s*\n\s*")
ANY_QUESTION = "Describe this user's preferences and style in a few sentences."


@dataclass(frozen=True, slots=True)
class Places:
    """Where interventions act on a task, and their ranks.

    Attributes:
        layers: Decoder layers of a model with 32, 0-based; methods scale them to the backbone's depth.
        shared_rank, user_rank: The rank of the shared intervention, and of a user's own.
    """

    layers: tuple[int, ...]
    shared_rank: int
    user_rank: int


@dataclass(frozen=True, slots=True)
class Task:
    """One task: a plug-in, an instance named by an entry point of its distribution.

    Prompts are made by one of its wordings. A task without any has one, ``plain``: the instruction, a newline,
    `` <source word>: <text> <target word>:``; the target follows after one space.

    Attributes:
        name: The name on the command line and of the entry point, such as ``lamp5``.
        version: Must be raised with every change here that could change a score.
        official: The task's folder name in LaMP's layout (``LaMP_5``), and other names that its files go by.
        about: One line for ``lampbench list tasks``.
        kind: What an answer is: ``labels`` (one of ``labels``), ``rating`` (a number) or ``text``.
        instruction: The task's own instruction sentence, as raw LaMP inputs have it.
        marker: The text of a raw LaMP input after which the source text starts.
        item_source: The field of a profile item that holds the source text, or None if items have no source side.
        item_target: The field of a profile item that holds the target.
        item_fields: Every field that a profile item may have.
        source_word, target_word: The field words of the plain wording.
        max_new_tokens: The longest answer that a model may give, in tokens.
        scored_by: The names of the task's metrics, the primary one first.
        accepts: Whether an output, stripped, is a valid answer.
        one_line: Whether an answer is one line. A model's answer then ends at the first newline, and in training
            targets newlines, with the whitespace around them, are one space; otherwise both keep them. Golds and
            history items in a context stay as they are.
        wordings: The ways to put the task into words; the first one makes the prompts.
        labels: All valid answers in the one fixed order, or empty.
        training_words: The longest source text of a training example, in words (OPPU: 768).
        retrieved_words: The longest source text of a history item in a prompt's context, in words (OPPU: 368).
        profile_question: Asks a model for a profile of the user, after some of the user's items.
        places: Where interventions act by default, or None for a method's own default.
        lamp_folder: The folder on LaMP's server below that of a setting, or None if the task is not LaMP's.
        oppu_folder, oppu_users: The folder in OPPU's release, or None if the task is not in it; and its file of
            evaluated users.
        stop: The text at which a written answer is cut; empty if there is none. A model writes no further.
        definition: What the task's file says; None if the task is a plug-in.
    """

    name: str
    version: int
    official: tuple[str, ...]
    about: str
    kind: AnswerKind
    instruction: str
    marker: str
    item_source: str | None
    item_target: str
    item_fields: frozenset[str]
    source_word: str
    target_word: str
    max_new_tokens: int
    scored_by: tuple[str, ...]
    accepts: Callable[[str], bool]
    one_line: bool = True
    wordings: tuple[Wording, ...] = ()
    labels: tuple[str, ...] = ()
    training_words: int = 768
    retrieved_words: int = 368
    profile_question: str = ANY_QUESTION
    places: Places | None = None
    lamp_folder: str | None = None
    oppu_folder: str | None = None
    oppu_users: str = "user_top_100_history.json"
    stop: str = ""
    definition: TaskFile | None = None

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

    def worded(self, name: str) -> Task:
        """The same task with prompts in the wording called ``name``.

        Raises:
            InputError: The task has no such wording.
        """
        own = self.wordings or (self.wording,)
        chosen = [wording for wording in own if wording.name == name]
        if not chosen:
            raise unknown_name(f"wording of {self.name}'s prompts", name, [wording.name for wording in own])
        return replace(self, wordings=(*chosen, *(wording for wording in own if wording.name != name)))

    @property
    def wording(self) -> Wording:
        """What makes the prompts."""
        if self.wordings:
            return self.wordings[0]
        source = "" if self.item_source is None else f"{self.source_word}: {{source}} "
        return Wording(
            "plain",
            f"{self.instruction}\n {self.source_word}: {{text}} {self.target_word}:",
            f"{source}{self.target_word}: {{target}}\n",
            query=f"{self.instruction} {{text}}",
            bare=f"{self.target_word}:",
        )

    def prompt(self, text: str, id: str = "") -> Prompt:
        """The prompt that asks for the target of ``text``."""
        head, tail = self.wording.around()
        return Prompt(head, text, tail, id=id)

    def pair(self, item: HistoryItem) -> Pair:
        """A history item as a training example; without a source side, the prompt is the target field alone."""
        if self.item_source is None:
            return Pair(Prompt("", "", self.wording.bare, id=item.id), self.training_target(item.target))
        return self.example(item.source, item.target, item.id)

    def example(self, text: str, target: str, id: str = "") -> Pair:
        """A text and its target as a training example, the text cut to ``training_words`` words."""
        return Pair(self.prompt(_first_words(text, self.training_words), id), self.training_target(target))

    def training_target(self, target: str) -> str:
        """A target as a model is trained to write it: if answers are one line, newlines become one space."""
        return _LINE_BREAK.sub(" ", target).strip() if self.one_line and "\n" in target else target

    def ended(self, output: str) -> str:
        """What a model wrote, cut at ``stop``."""
        return output.partition(self.stop)[0].strip() if self.stop else output

    def context(self, items: Iterable[HistoryItem], profile: str = "") -> Context:
        """History items, and a written profile of the user before them, in the form in which they go before a prompt.

        Args:
            items: The most important first.
            profile: Text; empty for none.
        """
        rendered = [self.render(item) for item in items]
        pieces = [*rendered[:1], *(self.wording.between + piece for piece in rendered[1:])]
        end = self.wording.end if pieces else ""
        return Context((f"{profile}\n", *pieces), end) if profile else Context(tuple(pieces), end)

    def render(self, item: HistoryItem, words: int | None = None) -> str:
        """A history item in a prompt's context, its text cut to ``words`` (or ``retrieved_words``) words."""
        words = self.retrieved_words if words is None else words
        if self.item_source is None:
            return filled(self.wording.item, target=_first_words(item.target, words))
        return filled(self.wording.item, source=_first_words(item.source, words), target=item.target)

    def document(self, item: HistoryItem) -> str:
        """The text of a history item that a retriever searches."""
        if self.wording.document is None:
            return self.render(item)
        return filled(self.wording.document, source=item.source, target=item.target)

    def retrieval_query(self, text: str) -> str:
        """The retrieval query for the query ``text``."""
        return filled(self.wording.query, text=text)

    @property
    def edition(self) -> tuple[Any, ...]:
        """What tells this task from others where its data is stored: name, version, and what its file says."""
        own = () if self.definition is None else (self.definition.to_json(),)
        return (self.name, self.version, *own)

    def prompt_hash(self) -> str:
        """A hash of everything that the task shows to a model or a retriever, filled with placeholders.

        It covers the templates and their separators, where the target starts, what happens to its newlines, word
        limits, how history items stand in a prompt's context, the retrieval query, and the question for a profile; of
        a task in a file, everything that the file says.
        """
        item, query = HistoryItem("", "<source>", "<target>"), "<text>"
        long = " ".join(f"w{number}" for number in range(1 + max(self.training_words, self.retrieved_words)))
        contexts = [self.context([item, item], "<profile>"), self.context([], "<profile>")]
        pairs = [self.pair(item), self.example(long, "<target>"), self.example(query, "<two>\n<lines>")]
        shown: list[Any] = [] if self.definition is None else [self.definition.to_json()]
        return digest(
            [
                *shown,
                self.prompt(query).text,
                [self.prompt(query).with_context(context).text for context in contexts],
                [pair.prompt.answered_by(pair.target) for pair in pairs],
                self.render(HistoryItem("", long, long)),
                [self.retrieval_query(query), self.document(item)],
                self.profile_question,
            ]
        )

    @property
    def evaluator_name(self) -> str:
        """The name that LaMP's evaluator knows; it calls both 2M and 2N ``LaMP_2``."""
        return self.official[-1]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The task's metrics, the primary one first; loads their plug-ins.

        Raises:
            InputError: The task names no metric, or one twice; or a metric is unknown, is not a metric, or cannot score
                this kind of answer.
        """
        if not self.scored_by or len(set(self.scored_by)) < len(self.scored_by):
            found = ", ".join(self.scored_by) or "none"
            raise InputError(f"the task {self.name!r}: its metrics are {found}; expected one or more, each once")
        return tuple(self._metric(name) for name in self.scored_by)

    @property
    def primary(self) -> Metric:
        """The metric that a leaderboard sorts by."""
        return self.metrics[0]

    def _metric(self, name: str) -> Metric:
        try:
            if name not in metrics().names():
                raise unknown_name("metric", name, metrics().names())
            metric = metrics().load(name)
        except InputError as error:
            raise InputError(f"the task {self.name!r}: {error}") from error
        if not isinstance(metric, Metric):
            raise InputError(
                f"the metric plug-in {name!r} is a {type(metric).__name__}; expected an instance of Metric"
            )
        if metric.key != name:
            raise InputError(f"the metric plug-in {name!r} calls itself {metric.key!r}; expected one name for both")
        if self.kind not in metric.kinds:
            raise InputError(
                f"the task {self.name!r}: its metric {name!r} scores {', '.join(sorted(metric.kinds))}, "
                f"but the task's answers are {self.kind}; name another metric"
            )
        return metric


def _first_words(text: str, limit: int) -> str:
    words = text.split(None, limit)
    if len(words) <= limit:
        return text
    return text[: len(text) - len(words[-1])].rstrip()
