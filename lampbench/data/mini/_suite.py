"""The suite's users, and their files in LaMP's official layout."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from lampbench.core import Task, tasks
from lampbench.data.mini._core import LABEL, SEED, VERSION, Generator, MiniUser, Population, Record
from lampbench.data.mini._labels import News, Reviews, Tags
from lampbench.data.mini._texts import Headlines, Titles, Tweets

GENERATORS: dict[str, Generator] = {g.task: g for g in (Tags(), News(), Reviews(), Headlines(), Titles(), Tweets())}
USERS: dict[Population, int] = {"train": 64, "dev": 48}

_SHORTEST, _LONGEST = 12, 80
_FEWEST_QUERIES, _MOST_QUERIES = 4, 8
# The tail of history lengths: Pareto, so that a few users have much more than most.
_TAIL = 2.2
_FIRST_DAY = date(2015, 1, 1)

_README = f"""{LABEL}, generator version {VERSION}.

Invented users in the file layout of the LaMP benchmark. This is not LaMP: no score on it compares
with a score on LaMP.
"""


def write_suite(out: Path, names: list[str] | None = None, seed: int = SEED) -> list[Path]:
    """Write the suite (or the tasks ``names``) below ``out``: the same bytes for the same seed.

    Returns:
        The files, in order of writing.
    """
    out.mkdir(parents=True, exist_ok=True)
    readme = out / "README.txt"
    readme.write_text(_README, encoding="utf-8")
    written = [readme]
    for name in names or sorted(GENERATORS):
        for split in USERS:
            written += _write_split(out, tasks().load(name), split, seed)
    return written


def user_records(user: MiniUser) -> tuple[list[Record], list[Record]]:
    """A suite user's history and queries, oldest first; no query's text is in the history."""
    sizes = user.draw("sizes")
    length = min(_LONGEST, int(_SHORTEST * sizes.paretovariate(_TAIL)))
    queries = sizes.randint(_FEWEST_QUERIES, _MOST_QUERIES)
    # A text that the user already wrote about is passed over, so that nothing can be looked up.
    different: dict[str, Record] = {}
    stream = user.records()
    while len(different) < length + queries:
        record = next(stream)
        different.setdefault(record.source, record)
    records = list(different.values())
    return records[:length], records[length:]


def ideal_outputs(name: str, split: Population = "dev", seed: int = SEED) -> dict[str, str]:
    """Query id -> the answer without noise: what a method that knew every style would give."""
    outputs = {}
    for index in range(USERS[split]):
        user = MiniUser(GENERATORS[name], split, index, seed)
        for number, record in enumerate(user_records(user)[1]):
            outputs[_query_id(user, number)] = record.ideal
    return outputs


def _write_split(out: Path, task: Task, split: Population, seed: int) -> list[Path]:
    questions: list[str] = []
    golds: list[dict[str, str]] = []
    for index in range(USERS[split]):
        user = MiniUser(GENERATORS[task.name], split, index, seed)
        history, queries = user_records(user)
        # All of a user's questions have the same profile, whose text is made once.
        profile = _json(_profile(user, history, task), 2)
        for number, record in enumerate(queries):
            query_id = _query_id(user, number)
            about = {"id": query_id, "user_id": _user_id(user), "input": task.raw_input(record.source)}
            opened = _json(about, 1).removesuffix("\n }")
            questions.append(f'{opened},\n  "profile": {profile}\n }}')
            golds.append({"id": query_id, "output": record.target})
    folder = out / task.official[0] / split
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {"task": task.official[0], "about": LABEL, "golds": golds}
    contents = {"questions": "[\n " + ",\n ".join(questions) + "\n]", "outputs": _json(outputs)}
    written = []
    for kind, content in contents.items():
        path = folder / f"{split}_{kind}.json"
        path.write_text(f"{content}\n", encoding="utf-8")
        written.append(path)
    return written


def _json(value: Any, level: int = 0) -> str:
    """``value`` as it stands in a file that is indented by one space, inside ``level`` lists or objects."""
    return json.dumps(value, ensure_ascii=True, indent=1).replace("\n", "\n" + " " * level)


def _profile(user: MiniUser, history: list[Record], task: Task) -> list[dict[str, str]]:
    days = user.draw("dates")
    day = _FIRST_DAY
    profile = []
    for number, record in enumerate(history):
        day += timedelta(days=days.randint(1, 60))
        item = {"id": f"{_user_id(user)}-{number}", "date": day.isoformat(), task.item_target: record.target}
        if task.item_source:
            item[task.item_source] = record.source
        profile.append(item)
    return profile


def _user_id(user: MiniUser) -> str:
    return f"mini-{user.generator.task}-{user.population}-{user.index}"


def _query_id(user: MiniUser, number: int) -> str:
    return f"{_user_id(user)}-q{number}"
