"""The contract of a task: its records, its prompts, its metrics, and golds out of reach."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from lampbench.core import (
    AnswerKind,
    InputError,
    LabelledUser,
    Task,
    continuation,
    tasks,
)
from lampbench.data import Dataset
from lampbench.data.files import Layout
from lampbench.runner import reachable
from lampbench.testing._contract import Book, Case, Check, broken
from lampbench.testing._made_up import TEXTS, answers_of, canaries_of, made_up, metric_faults, read_back

_BAD = ("", " ", "no valid answer", "45", "-1", "É coté à l'ñ", "a\nb", "word " * 300)
_LIMIT = 600
# Stand for those of the data, if a task's file leaves the labels to it.
_LABELS = ("first label", "second label")


@dataclass(frozen=True)
class TaskSubject:
    """A task by name, and valid answers if made-up ones are not."""

    name: str
    answers: tuple[str, ...] = ()

    @cached_property
    def task(self) -> Task:
        """The task; raises InputError if it cannot be imported or is none."""
        task = tasks().load(self.name)
        if not isinstance(task, Task):
            raise InputError(f"the task plug-in {self.name!r} is a {type(task).__name__}; expected an instance of Task")
        if task.definition is not None and task.definition.needs_labels:
            # As the runner does, once it knows the data.
            return task.definition.with_labels(self.answers or _LABELS)
        return task

    def golds(self) -> list[str]:
        """Answers that the task accepts."""
        return answers_of(self.task, self.answers)

    def trial(self, task: str) -> TaskSubject:
        """Everything about a task is tried once."""
        return self

    def supports(self, task: str) -> tuple[bool, str]:
        """Always."""
        return True, ""

    def source(self) -> str | None:
        """Unknown: an instance does not tell where it was made."""
        return None


def can_be_imported(subject: TaskSubject) -> None:
    """Import it."""
    try:
        _ = subject.task
    except InputError as error:
        broken(str(error))


def description(subject: TaskSubject) -> None:
    """Look at what the task says of itself."""
    task = subject.task
    names = [task.instruction, task.marker, task.source_word, task.target_word, task.about]
    expected = {
        f"name is {subject.name!r}": task.name == subject.name,
        "version, max_new_tokens and word limits are whole numbers from 1": all(
            type(value) is int and value >= 1
            for value in (task.version, task.max_new_tokens, task.training_words, task.retrieved_words)
        ),
        "official is a tuple of names, the first one that of a folder": isinstance(task.official, tuple)
        and bool(task.official)
        and all(isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) for name in task.official),
        "about, instruction, marker and field words are texts": all(isinstance(n, str) and n.strip() for n in names),
        f"kind is one of {', '.join(get_args(AnswerKind))}": task.kind in get_args(AnswerKind),
        "item_fields holds 'id', item_target and item_source": {"id", task.item_target, task.item_source or "id"}
        <= set(task.item_fields),
        "item_source is not item_target": task.item_source != task.item_target,
        "labels are a tuple of different texts, at least two if answers are labels, and none if they are texts": (
            isinstance(task.labels, tuple)
            and len(set(task.labels)) == len(task.labels)
            and all(isinstance(label, str) and label == label.strip() != "" for label in task.labels)
            and {"labels": len(task.labels) >= 2, "text": not task.labels}.get(task.kind, True)
        ),
    }
    names = [wording.name for wording in task.wordings]
    expected["wordings have different names"] = len(set(names)) == len(names)
    for wording in task.wordings:
        where = f"the wording {wording.name!r}"
        expected[f"{where} shows {{text}} once in the question, and in the query"] = (
            wording.question.count("{text}") == 1 and "{text}" in wording.query
        )
        expected[f"{where} shows an item's {{target}}, and {{source}} if items have one"] = (
            "{target}" in wording.item and ("{source}" in wording.item) == (task.item_source is not None)
        )
        expected[f"{where} asks for targets of items without a source side (bare)"] = (
            task.item_source is not None or bool(wording.bare)
        )
    for text, kept in expected.items():
        if not kept:
            broken(f"it does not hold that {text}")


def answers(subject: TaskSubject) -> None:
    """Ask what is an answer."""
    task = subject.task
    refused = [label for label in task.labels if not task.accepts(label)]
    if refused:
        broken(f"accepts refuses the label {refused[0]!r}")
    if task.accepts(""):
        broken("accepts takes an empty output for an answer")
    if len(subject.golds()) < 2:
        broken("accepts refuses all made-up answers; expected it to take two or more")


def scored(subject: TaskSubject) -> None:
    """Load the metrics."""
    try:
        _ = subject.task.metrics
    except InputError as error:
        broken(str(error))


def inputs(subject: TaskSubject) -> None:
    """Write raw inputs, and read them."""
    task = subject.task
    for text in (*TEXTS, f"a text with the marker in it: {task.marker}end", f"{task.instruction} again"):
        raw = task.raw_input(text)
        found = task.source_text(raw, "a query")
        if found != text:
            broken(f"source_text makes {found!r} of raw_input({text!r}), which is {raw!r}")
    try:
        task.source_text("another task's question", "a query")
    except InputError:
        return
    broken("source_text takes an input without the marker; expected an InputError")


def files(subject: TaskSubject) -> None:
    """Write users in the layouts that there are, and read them."""
    task, written = subject.task, made_up(subject.task, subject.golds())
    layouts: list[Layout] = ["lamp", "oppu"] if task.oppu_folder else ["lamp"]
    for layout in layouts:
        with read_back(task, written, layout) as data:
            for kind, found, expected in (
                ("evaluated", data.labelled(), written.evaluated),
                ("shared", list(data.shared), written.shared),
            ):
                if _plain(found) != _plain(expected):
                    broken(f"{kind} users in the {layout} layout are not read as they were written: {_first(found)}")


def prompts(subject: TaskSubject) -> None:
    """Fit prompts that are too long."""
    for wording in subject.task.wordings or (subject.task.wording,):
        _fit(subject.task.worded(wording.name), subject.golds())


def _fit(task: Task, golds: Sequence[str]) -> None:
    from lampbench.backbone import PromptEncoder

    words, target, long = _Words(), golds[0], "long text " * 2000
    items = made_up(task, golds).evaluated[0].user.history
    before, shown, ending = task.prompt("a short text").text.partition("a short text")
    if not shown:
        broken(f"the prompt does not show 'a short text': {before!r}")
    for item in items:
        if item.target not in task.render(item) or task.pair(item).target != task.training_target(item.target):
            broken(f"the target {item.target!r} of a history item is not in {task.render(item)!r}, or not trained on")
    least = len(words(task.prompt("").text).input_ids) + max(task.max_new_tokens, len(words(target).input_ids) + 2)
    for room in (least + 2, least + 40, max(_LIMIT, least + 80)):
        encoder = PromptEncoder(words, room)
        context = task.context([*items] * 50)
        asked = words.text(encoder.prompt(task.prompt(long).with_context(context), task.max_new_tokens))
        trained, learned = encoder.pair(task.example(long, target))
        for text in (asked, words.text(trained)):
            if before not in text or not text.endswith(ending):
                broken(f"with room for {room} tokens, {before!r} or {ending!r} is cut from the prompt: {text!r}")
        if words.text(learned[:-1]) != continuation(task.training_target(target)):
            broken(f"with room for {room} tokens, the target {target!r} is trained as {words.text(learned[:-1])!r}")


def scores(subject: TaskSubject) -> None:
    """Score good, bad and empty answers with every metric."""
    golds = subject.golds()
    for metric in subject.task.metrics:
        for fault in metric_faults(metric, golds, subject.task.labels, _BAD):
            broken(f"{metric.key}: {fault}")


def golds(subject: TaskSubject) -> None:
    """Look for golds from where a method stands."""
    task = subject.task
    hidden = canaries_of(task)
    secret = set(hidden)
    with read_back(task, made_up(task, hidden or subject.golds(), history=subject.golds()), "lamp") as data:
        own = {query.id for query in data.queries}

        def tells(item: object) -> bool:
            if isinstance(item, str):
                return item in secret
            return isinstance(item, Dataset) or (isinstance(item, Mapping) and not own.isdisjoint(_keys(item)))

        way = reachable([task, *data.users, *data.queries], tells)
    if way:
        broken(f"a gold can be reached from what a method gets: {way}")


_READ = ("import", "description", "answers")

TASK_CHECKS = {
    check.name: check
    for check in (
        Check(
            "import",
            "The entry point names an instance of lampbench.Task that can be imported.",
            "",
            (),
            can_be_imported,
            of_task=False,
        ),
        Check(
            "description",
            "Name, version, folder, kind, fields, labels and words of the task are filled in and fit together.",
            "See the attributes in the docstring of lampbench.Task.",
            ("import",),
            description,
            of_task=False,
        ),
        Check(
            "answers",
            "accepts takes every label, or several of the made-up answers, and refuses an empty output.",
            "If made-up answers are none of the task's, give valid ones by --answer TEXT, two or more.",
            ("import", "description"),
            answers,
            of_task=False,
        ),
        Check(
            "metrics",
            "The task names at least one metric; each is installed and scores this kind of answer.",
            "lampbench list metrics shows what is installed; a metric of your own needs an entry point.",
            ("import", "description"),
            scored,
            of_task=False,
        ),
        Check(
            "inputs",
            "raw_input and source_text undo each other for any text; an input without the marker is refused.",
            "Leave both as lampbench.Task has them, or split at the first marker only.",
            ("import", "description"),
            inputs,
            of_task=False,
        ),
        Check(
            "files",
            "Users, histories, queries and golds that are written to files are read as they were.",
            "Name every field of a history item in item_fields.",
            (*_READ, "inputs"),
            files,
            of_task=False,
        ),
        Check(
            "prompts",
            "However long text and context are, a prompt keeps the instruction and ends in the target field, and a "
            "training example keeps its target.",
            "Put the instruction into the prompt's head, the text alone into its source, the target field into its "
            "tail.",
            _READ,
            prompts,
            of_task=False,
        ),
        Check(
            "scores",
            "Each metric is finite and within its bounds on good, bad and empty answers, best on good ones, and what "
            "a query adds depends on that query alone.",
            "See lampbench.core.Metric: bounds, higher_is_better, linear.",
            (*_READ, "metrics"),
            scores,
            of_task=False,
        ),
        Check(
            "golds",
            "No gold can be reached from the task, its users and queries.",
            "Keep nothing of what accepts and source_text are called with.",
            (*_READ, "inputs", "files"),
            golds,
            of_task=False,
        ),
    )
}


def task_cases(name: str, answers: Sequence[str] = ()) -> list[Case]:
    """All checks of the task called ``name``; nothing is imported before a case runs.

    Args:
        name: The task, as on the command line.
        answers: Valid answers, two or more, if the task does not accept made-up ones.

    Raises:
        InputError: There is no task of that name.
    """
    if name not in tasks().names():
        tasks().plugin(name)
    book = Book(TaskSubject(name, tuple(answers)), TASK_CHECKS)
    return [Case(name, "", check, book) for check in TASK_CHECKS]


class _Words:
    """A tokenizer by words, white space and punctuation, which loses nothing."""

    eos_token_id = 0
    bos_token_id = None

    def __init__(self) -> None:
        self._known: dict[str, int] = {"": 0}
        self._by_id = [""]

    def __call__(self, text: str, add_special_tokens: bool = False) -> Any:
        ids = []
        for word in re.findall(r"\w+|\W", text):
            if word not in self._known:
                self._known[word] = len(self._by_id)
                self._by_id.append(word)
            ids.append(self._known[word])
        return _Encoded(ids)

    def text(self, ids: Sequence[int]) -> str:
        """The text that has these ids."""
        return "".join(self._by_id[number] for number in ids)


@dataclass(frozen=True)
class _Encoded:
    input_ids: list[int]


def _plain(entries: Sequence[LabelledUser]) -> list[Any]:
    return [(entry.user.id, list(entry.user.history), list(entry.queries)) for entry in entries]


def _first(entries: Sequence[LabelledUser]) -> str:
    return repr(_plain(entries[:1]))[:200]


def _keys(item: Mapping[Any, Any]) -> list[str]:
    return [key for key in item if isinstance(key, str)]
