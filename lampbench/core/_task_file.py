"""Tasks that a file describes: TOML as people write it, or the JSON that a run keeps of it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lampbench.core._config import config_from
from lampbench.core._errors import InputError, unknown_name
from lampbench.core._files import write_json
from lampbench.core._metric import AnswerKind
from lampbench.core._registry import file_plugin, tasks
from lampbench.core._task import ANY_QUESTION, Task
from lampbench.core._wording import Wording

FROM_THE_DATA = "from the data"
# What a run or a result keeps of its task, if a file described it.
KEPT_TASK = "task.json"

_LABELS = "{labels}"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_FIELD = re.compile(r"[^\s{}:,][^{}:,\n]*")
# Fields that every item and question has.
_RESERVED = ("id", "date", "user_id", "profile")
_ENDS_AT_LINE, _ENDS_AT_MODEL = "line", "model"
_METRICS: Mapping[AnswerKind, tuple[str, ...]] = {
    "labels": ("accuracy", "f1"),
    "rating": ("MAE", "RMSE"),
    "text": ("rouge-L", "rouge-1"),
}
_TOKENS: Mapping[AnswerKind, int] = {"labels": 16, "rating": 10, "text": 64}
_MOST_TOKENS, _MOST_RATINGS = 1024, 100


@dataclass(frozen=True)
class TaskFile:
    """What a task file says; each field is a key of it.

    Attributes:
        name: The task's name, and that of the folder with its data: up to 100 lower-case letters, digits, ``-``
            and ``_``.
        version: To be raised with every change after which scores should no longer be compared.
        about: One line for lists. Default: "``target`` from ``source``".
        kind: What an answer is: ``labels``, ``rating`` or ``text``.
        instruction: What the model is told to do; ``{labels}`` in it becomes the list of labels.
        source: The field, or fields, that hold what is asked about.
        target: The field that holds the answer.
        labels: All labels, or ``"from the data"``; for ``kind = "labels"``.
        scale: The lowest and the highest rating; for ``kind = "rating"``.
        metrics: Names, the primary one first. Default: those that LaMP uses for this kind.
        max_new_tokens: The longest answer, in tokens, up to 1,024.
        ends: What ends an answer: ``line`` (the first newline), ``model`` (only the model's own end token), or any
            other text, at which an answer is cut.
        training_words, retrieved_words: The longest source text in training, and of an item in a prompt.
        profile_question: Asks a model for a profile of the user. Default: that of every task.
        prompt: The table ``[prompt]``, as a wording, or None for the plain one.
    """

    name: str = ""
    version: int = 1
    about: str = ""
    kind: AnswerKind = "text"
    instruction: str = ""
    source: tuple[str, ...] = ()
    target: str = ""
    labels: tuple[str, ...] = ()
    scale: tuple[int, ...] = ()
    metrics: tuple[str, ...] = ()
    max_new_tokens: int | None = None
    ends: str = _ENDS_AT_LINE
    training_words: int = 768
    retrieved_words: int = 368
    profile_question: str = ANY_QUESTION
    prompt: Wording | None = None

    @property
    def needs_labels(self) -> bool:
        """Whether the labels are those that the data has."""
        return self.labels == (FROM_THE_DATA,)

    @property
    def item_source(self) -> str:
        """The field of an item that holds the source text; several fields are joined in one of their own."""
        return self.source[0] if len(self.source) == 1 else "source" if self.target != "source" else "input"

    def joined(self, record: Mapping[str, str]) -> str:
        """The source text of a record: its source field, or a line ``name: text`` per field that is not empty."""
        if len(self.source) == 1:
            return record[self.source[0]]
        return "\n".join(f"{name}: {record[name]}" for name in self.source if record[name].strip())

    def with_labels(self, labels: Iterable[str]) -> Task:
        """The task with the labels that the data has; raises InputError if they cannot be labels."""
        return replace(self, labels=tuple(labels)).checked(f"the labels of {self.name} in the data").task()

    def checked(self, where: str) -> TaskFile:
        """Itself; raises InputError, which names ``where``, if something is missing or wrong."""
        for fault in self._faults():
            raise InputError(f"{where}: {fault}")
        return self

    def task(self) -> Task:
        """The task."""
        # As data has them: without labels, any answer may be one.
        labels = () if self.needs_labels else self.labels
        accepts: Any = _OneOf(frozenset(labels)) if labels else bool
        if self.kind == "rating":
            low, high = self.scale
            labels, accepts = tuple(str(number) for number in range(low, high + 1)), _Between(low, high)
        instruction = self.instruction.replace(_LABELS, ", ".join(labels)) if labels else self.instruction
        return Task(
            name=self.name,
            version=self.version,
            official=(self.name,),
            about=self.about or f"{self.target} from {' and '.join(self.source)}",
            kind=self.kind,
            instruction=instruction,
            marker=self._marker,
            item_source=self.item_source,
            item_target=self.target,
            item_fields=frozenset({"id", "date", self.item_source, self.target}),
            source_word=self.item_source,
            target_word=self.target,
            max_new_tokens=self.max_new_tokens or _TOKENS[self.kind],
            scored_by=self.metrics or _METRICS[self.kind],
            accepts=accepts,
            one_line=self.ends == _ENDS_AT_LINE,
            stop="" if self.ends in (_ENDS_AT_LINE, _ENDS_AT_MODEL) else self.ends,
            wordings=(self._wording(instruction),),
            labels=labels,
            training_words=self.training_words,
            retrieved_words=self.retrieved_words,
            profile_question=self.profile_question,
            definition=self,
        )

    def to_json(self) -> dict[str, Any]:
        """The keys that are not the default, as JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in values.items() if value != getattr(TaskFile, name)}
        if self.prompt is not None:
            plain = {name: value for name, value in asdict(self.prompt).items() if name != "name"}
            given["prompt"] = {name: value for name, value in plain.items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    @property
    def _marker(self) -> str:
        # Not a part of the instruction, which holds labels that only the data may know.
        return f"\n{self.source[0]}: " if len(self.source) == 1 else "\n---\n"

    def _wording(self, instruction: str) -> Wording:
        if self.prompt is not None:
            return replace(self.prompt, question=self.prompt.question.replace("{instruction}", instruction))
        if len(self.source) == 1:
            source, target = self.source[0], self.target
            return Wording(
                "plain",
                f"{instruction}\n {source}: {{text}} {target}:",
                f"{source}: {{source}} {target}: {{target}}\n",
                query=f"{instruction} {{text}}",
            )
        return Wording(
            "plain",
            f"{instruction}\n{{text}}\n{self.target}:",
            f"{{source}}\n{self.target}: {{target}}\n",
            query=f"{instruction} {{text}}",
        )

    def _faults(self) -> list[str]:
        """What is wrong, the most basic first."""
        found = []
        if not _NAME.fullmatch(self.name):
            found.append(f"name is {self.name!r}; expected up to 100 lower-case letters, digits, '-' and '_'")
        for name in ("instruction", "source", "target"):
            if not getattr(self, name):
                found.append(f"{name} is missing")
        for field in (*self.source, self.target):
            if field in _RESERVED or not _FIELD.fullmatch(field):
                found.append(f"{field!r} cannot be the name of a field; {', '.join(_RESERVED)} have a meaning already")
        if len({*self.source, self.target}) < 1 + len(self.source):
            found.append("a field occurs twice in source and target")
        numbers = {
            "version": self.version,
            "training_words": self.training_words,
            "retrieved_words": self.retrieved_words,
        }
        found += [f"{name} is {value}; expected 1 or more" for name, value in numbers.items() if value < 1]
        if self.max_new_tokens is not None and not 1 <= self.max_new_tokens <= _MOST_TOKENS:
            found.append(f"max_new_tokens is {self.max_new_tokens}; expected 1 to {_MOST_TOKENS:,}")
        if not self.ends:
            found.append("ends is empty; expected line, model, or the text that ends an answer")
        if len(self.source) and self._marker in self.instruction:
            found.append(f"instruction holds {self._marker!r}, which divides it from the text")
        if "{text}" in self.instruction + "".join(self.labels):
            found.append("instruction or a label holds {text}; the text follows by itself, or where [prompt] says")
        if _LABELS in self.instruction and self.kind == "text":
            found.append(f"instruction holds {_LABELS}, but the kind is 'text'")
        return found + self._kind_faults() + self._prompt_faults()

    def _kind_faults(self) -> list[str]:
        found = []
        if (self.kind == "labels") != bool(self.labels):
            found.append(
                f"labels are missing; expected a list of them, or {FROM_THE_DATA!r}"
                if self.kind == "labels"
                else f"labels are given, but the kind is {self.kind!r}"
            )
        if self.labels and not self.needs_labels:
            if len(set(self.labels)) < max(2, len(self.labels)):
                found.append("labels must be two or more, each of them once")
            if any(label != label.strip() or not label or "\n" in label for label in self.labels):
                found.append("a label is empty, has several lines, or begins or ends with a space")
        if (self.kind == "rating") != bool(self.scale):
            found.append(
                "scale is missing; expected the lowest and the highest rating, such as [1, 5]"
                if self.kind == "rating"
                else f"scale is given, but the kind is {self.kind!r}"
            )
        if self.scale and (len(self.scale) != 2 or not 0 < self.scale[1] - self.scale[0] < _MOST_RATINGS):
            found.append(
                f"scale is {list(self.scale)}; expected the lowest and the highest rating, such as [1, 5], at most "
                f"{_MOST_RATINGS - 1} apart"
            )
        if self.kind != "text" and self.ends != _ENDS_AT_LINE:
            found.append(f"ends is {self.ends!r}; answers of the kind {self.kind!r} are one line")
        return found

    def _prompt_faults(self) -> list[str]:
        own = self.prompt
        if own is None:
            return []
        found = []
        if own.question.count("{text}") != 1:
            found.append("[prompt] question must hold {text} once")
        if "{target}" not in own.item or "{source}" not in own.item:
            found.append("[prompt] item must hold {source} and {target}")
        if "{text}" not in own.query:
            found.append("[prompt] query must hold {text}")
        return found


@dataclass(frozen=True)
class _OneOf:
    """Accepts labels. A class, so that a task can be sent to another process."""

    labels: frozenset[str]

    def __call__(self, output: str) -> bool:
        return output in self.labels


@dataclass(frozen=True)
class _Between:
    """Accepts numbers of a scale."""

    low: int
    high: int

    def __call__(self, output: str) -> bool:
        try:
            return self.low <= float(output) <= self.high
        except ValueError:
            return False


def read_task_file(path: Path) -> Task:
    """The task that a file describes.

    Raises:
        InputError: There is no such file, it is not TOML (or JSON), or a key is unknown, missing or wrong.
    """
    values = _read(path)
    table = values.pop("prompt", None)
    if table is not None and not isinstance(table, dict):
        raise InputError(f"{path}: prompt is {table!r}; expected a table [prompt]")
    own: TaskFile = config_from(TaskFile, values, str(path))
    if table is not None:
        where = f"{path}: [prompt]"
        if "name" in table:
            raise unknown_name(f"setting of {where}", "name", [own.name for own in fields(Wording)][1:])
        own = replace(own, prompt=config_from(Wording, table, where, base=Wording("own", question="", item="")))
    return own.checked(str(path)).task()


def keep_task(task: Task, folder: Path) -> None:
    """Write what the task's file said into ``folder``; nothing if the task is a plug-in."""
    if task.definition is not None:
        write_json(folder / KEPT_TASK, task.definition.to_json())


def find_kept_task(folder: Path, name: str, *, with_others: bool = True) -> None:
    """Let the task that a run's or result's folder keeps be found by its name, if it keeps one.

    Args:
        folder: The folder.
        name: Of the task that its row is about.
        with_others: Whether it is read together with others, whose task of this name must be the same.

    Raises:
        InputError: The file is damaged or describes another task, or the name is already that of another task.
    """
    path = folder / KEPT_TASK
    if not path.is_file():
        return
    task = read_task_file(path)
    if task.name != name:
        raise InputError(f"{path}: describes the task {task.name!r}, but the row is about {name!r}; delete the file")
    for known in tasks().claims(task.name) if with_others else ():
        if known.target not in (None, task):
            raise InputError(
                f"{path}: not the task {task.name!r} of {known.value}: the task file was edited between these runs, "
                "or their data has other labels; move the runs of one of them to another folder (--out), and give an "
                "edited file another name"
            )
    tasks().add(file_plugin(task.name, task, path))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: no such task file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply") from None
    except ValueError as error:
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        raise InputError(f"{path}: not valid {kind}: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected the keys of a task, found a {type(values).__name__}")
    return values
