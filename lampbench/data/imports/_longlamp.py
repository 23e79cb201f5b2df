"""LongLaMP's published files, from their own field names to files in LaMP's layout and a task file.

A folder is one configuration of the data set, such as ``abstract_generation_user``, with its splits: a record per
question, with the user, ``input``, ``output`` and ``profile``. An input is a sentence that says what to write; the text
that is asked about is what follows the words that all of them have, so that prompts are the published ones.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from lampbench.core import HistoryItem, InputError, LabelledQuery, LabelledUser, Query, User, read_task_file
from lampbench.data._summary import Spread
from lampbench.data.files import Exported, date_text, export, kind
from lampbench.data.imports._report import Tally
from lampbench.data.imports._rows import Columns, RowFile

SPLITS = ("train", "val", "test")
_SETTINGS = ("user", "temporal")
# By kind, the one that is read first.
_SUFFIXES = (".parquet", ".jsonl", ".json")
# A record can have megabytes of history.
_BATCH = 16
# No prompt holds more of a text, and no reader more of a record.
_LONGEST_ITEM = 1 << 20


@dataclass(frozen=True)
class _Form:
    """How the records of one of the tasks look.

    Attributes:
        user: The field with the user.
        marker: What an input says before the text that is asked about.
        source: The text of a history item, from its fields, as inputs have it.
        target: The field of a history item with what the user wrote.
        date: The field with its date, or None.
    """

    user: str
    marker: str
    source: Callable[[Mapping[str, str]], str]
    target: str
    date: str | None = None


def _review(item: Mapping[str, str]) -> str:
    return (
        f'"{item["overall"]}" for a product with description "{item["description"]}". '
        f'The summary of the review text is "{item["summary"]}".'
    )


_FORMS = {
    "abstract_generation": _Form("name", "for the title ", lambda item: f'"{item["title"]}"', "abstract", "year"),
    "product_review": _Form("reviewerId", "overall rating of ", _review, "reviewText"),
    "topic_writing": _Form("author", "reddit post ", lambda item: item["summary"], "content"),
}
CONFIGURATIONS = tuple(f"{task}_{setting}" for task in _FORMS for setting in _SETTINGS)


@dataclass(frozen=True)
class LongLamp:
    """One configuration of LongLaMP in a folder.

    Args:
        folder: With files whose names begin with train, val or test: Parquet, JSON Lines or JSON.
        configuration: One of ``CONFIGURATIONS``.
        evaluated: The split whose users are evaluated; those of train are shared.
        tolerate: The share of records that may be left out because they cannot be read.

    Raises:
        InputError: The configuration is unknown, or the folder has no file of the evaluated split.
    """

    folder: Path
    configuration: str
    evaluated: str = "test"
    tolerate: float = 0.01

    def __post_init__(self) -> None:
        if self.configuration not in CONFIGURATIONS:
            raise InputError(
                f"{self.configuration!r} is no configuration of LongLaMP; expected one of {', '.join(CONFIGURATIONS)} "
                "(the folder's name, or --configuration)"
            )
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder; expected one with the files of {self.configuration}")
        if not _split_files(self.folder, self.evaluated):
            raise InputError(
                f"{self.folder}: no file of the split {self.evaluated!r}; expected {self.evaluated}*.parquet, "
                f"{self.evaluated}*.jsonl or {self.evaluated}*.json"
            )

    def write(self, folder: Path, say: Callable[[str], None]) -> list[Path]:
        """Write the task file, and the users in LaMP's layout, below ``folder``; gives the files, the task's first.

        ``say`` gets what was found.

        Raises:
            InputError: A file is damaged, has other fields, or too many of its records cannot be read.
        """
        path = self._write_task(folder)
        task = read_task_file(path)
        form = _FORMS[self.configuration.rpartition("_")[0]]
        evaluated, shared = (
            _Records(split, tuple(_split_files(self.folder, split)), form, Tally(task, self.tolerate))
            for split in (self.evaluated, "train")
        )
        for records in (evaluated, shared):
            for line in records.report:
                say(line)
        return [path, *export(Exported(task, evaluated, shared, label=None), "lamp", folder)]

    def _write_task(self, folder: Path) -> Path:
        """The task file of the configuration; its name tells the setting as well."""
        task, _, setting = self.configuration.rpartition("_")
        text = (files(__package__) / "longlamp" / f"{task}.toml").read_text(encoding="utf-8")
        text = re.sub(r'^(name = "[^"]+)', rf"\1-{setting}", text, count=1, flags=re.MULTILINE)
        path = folder / f"{tomllib.loads(text)['name']}.toml"
        path.write_text(text, encoding="utf-8")
        return path


@dataclass(frozen=True)
class _Record:
    """A user with one question, and how many items of the profile are left out."""

    user: LabelledUser
    left_out: int


@dataclass(frozen=True)
class _Records(Collection[LabelledUser]):
    """The records of a split, read anew each time: each is a user with one question."""

    split: str
    files: tuple[RowFile, ...]
    form: _Form
    tally: Tally

    def __len__(self) -> int:
        return self._known[0]

    def __contains__(self, record: object) -> bool:
        return any(record == own for own in self)

    def __iter__(self) -> Iterator[LabelledUser]:
        return (record.user for record in self._read() if isinstance(record, _Record))

    @property
    def report(self) -> list[str]:
        """What was found, a fact a line."""
        return self._known[1]

    @cached_property
    def _known(self) -> tuple[int, list[str]]:
        """How many records can be read, and what was found; raises InputError if too many cannot."""
        if not self.files:
            return 0, []
        sizes, users, left_out = [], set(), 0
        for record in self._read():
            self.tally.rows += 1
            if isinstance(record, _Record):
                users.add(record.user.user.id)
                sizes.append(len(record.user.user.history))
                left_out += record.left_out
            else:
                self.tally.fault(*record)
        self.tally.check_rows()
        lines = [f"{self.split}: {len(sizes):,} questions of {len(users):,} users"]
        lines += [f"  {line}" for line in self.tally.faults()]
        spread = Spread.of(sizes)
        if spread:
            lines.append(f"  history items per question: median {spread.median:g}, largest {spread.largest:,}")
        if left_out:
            lines.append(f"  history items left out, without text or too long: {left_out:,}")
        return len(sizes), lines

    def _read(self) -> Iterator[_Record | tuple[str, str]]:
        """Each record, or what is wrong with it and where it is."""
        number = 0
        columns = Columns(self.form.user, ("input", "profile"), "output")
        for file in self.files:
            for where, row in file.rows(columns):
                number += 1
                record = row if isinstance(row, str) else self._record(row, number)
                yield (record, f"{file.path}: {where}") if isinstance(record, str) else record

    def _record(self, row: Mapping[str, Any], number: int) -> _Record | str:
        """A row as a user with one question, or what is wrong with it."""
        user, asked, answer = (row[name] for name in (self.form.user, "input", "output"))
        for name, value in ((self.form.user, user), ("input", asked), ("output", answer)):
            if not isinstance(value, str) or not value.strip():
                return f"{name!r} is {kind(value)}; expected text"
        found = re.search(re.escape(self.form.marker), asked, re.IGNORECASE)
        text = asked[found.end() :].strip() if found else ""
        if not text:
            return f"'input' is {asked[:80]!r}; expected {self.form.marker!r} in it, and text after it"
        items = _items(row["profile"])
        if items is None:
            return f"'profile' is {kind(row['profile'])}; expected a list of items"
        history = tuple(item for item in (_item(own, self.form) for own in items) if item is not None)
        query = LabelledQuery(Query(f"{self.split}-{number}", user, text), answer.strip())
        return _Record(LabelledUser(User(user, history), (query,)), len(items) - len(history))


def _item(item: Mapping[str, Any], form: _Form) -> HistoryItem | None:
    """A history item; None if a text of it is missing, empty or far too long."""
    fields = {name: "" if value is None else str(value) for name, value in item.items()}
    try:
        source, target = form.source(fields), fields[form.target].strip()
    except KeyError:
        return None
    if not target or not source.strip() or len(source) + len(target) > _LONGEST_ITEM:
        return None
    date = date_text(fields.get(form.date, "")) if form.date else ""
    # Reviews have no id: the same review has the same one in every profile.
    own = fields.get("id") or hashlib.sha256(json.dumps([source, target]).encode()).hexdigest()[:16]
    return HistoryItem(own, source, target, date or "")


def _items(profile: Any) -> list[Mapping[str, Any]] | None:
    """The items of a profile: a list of records, or a record of lists, as ``datasets`` may write it."""
    if isinstance(profile, dict) and all(isinstance(column, list) for column in profile.values()):
        profile = [dict(zip(profile, values, strict=False)) for values in zip(*profile.values(), strict=False)]
    if not isinstance(profile, list) or not all(isinstance(item, dict) for item in profile):
        return None
    return profile


def _split_files(folder: Path, split: str) -> list[RowFile]:
    """The files of a split, of the first kind that there is."""
    found = sorted(path for path in folder.iterdir() if path.name.split("-")[0].split(".")[0].split("_")[0] == split)
    for suffix in _SUFFIXES:
        if own := [path for path in found if path.suffix.lower() == suffix]:
            return [RowFile(path, batch=_BATCH) for path in own]
    return []
