"""Answers of runs for people: in a terminal, and as one HTML page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill, indent
from typing import Any

from lampbench.api._find import ID_DIGITS, run_names
from lampbench.api._look import Asked, Look
from lampbench.core import InputError

_WIDTH = 100
# Characters of an answer in a list of queries, at least.
_LEAST = 16
# What a page shows of one history: a page of thousands of items is no page.
_MOST_ITEMS = 200


@dataclass(frozen=True)
class Shown:
    """One query of a run, perhaps beside another run's answer to it.

    Attributes:
        asked: The run's.
        other: The other run's; None without one.
        change: How much better the run scores, by the primary metric; positive is better. None if that is not known.
    """

    asked: Asked
    other: Asked | None
    change: float | None


def shown(look: Look, against: Look | None) -> list[Shown]:
    """A run's queries, beside those of another run of the same data.

    Raises:
        InputError: The two runs did not answer the same queries.
    """
    if against is None:
        return [Shown(asked, None, None) for asked in look.asked]
    ours, theirs = look.row.identity, against.row.identity
    if (ours.task, ours.protocol_hash, ours.limit) != (theirs.task, theirs.protocol_hash, theirs.limit):
        raise InputError(
            f"--against {against.folder}: {theirs.task} {theirs.protocol} is not what {look.folder} answered "
            f"({ours.task} {ours.protocol}); only answers to the same queries can be set side by side"
        )
    sign = 1 if look.task.primary.higher_is_better else -1
    return [
        Shown(own, other, None if own.score is None or other.score is None else sign * (own.score - other.score))
        for own, other in zip(look.asked, against.asked, strict=True)
    ]


def chosen(entries: Sequence[Shown], user: str | None, query: str | None) -> list[Shown]:
    """The entries of one user, or of one query; raises InputError if there are none."""
    found = [own for own in entries if user in (None, own.asked.user.id) and query in (None, own.asked.query.id)]
    if not found:
        what, known = "user", entries[0].asked.user.id
        if query is not None:
            what, known = "query", entries[0].asked.query.id
        given = query if query is not None else user
        raise InputError(f"the run has no {what} {given!r}; one that it has is {known!r}")
    return found


def ordered(look: Look, against: Look | None, entries: Sequence[Shown]) -> list[Shown]:
    """The worst first, or, beside another run, those that changed most."""
    higher = look.task.primary.higher_is_better

    def place(own: Shown) -> float:
        if against is not None:
            return -abs(own.change or 0.0)
        score = own.asked.score
        return 0.0 if score is None else score if higher else -score

    return sorted(entries, key=place)


def list_text(look: Look, against: Look | None, entries: Sequence[Shown]) -> str:
    """A line per query."""
    from tabulate import tabulate

    names = _names(look, against)
    ids = max(len(own.asked.query.id) for own in entries)
    room = max(_LEAST, (_WIDTH - ids - 12 - (10 if against else 0)) // (3 if against else 2) - 2)
    headers = ["query", look.task.primary.key, names[0], *([names[1], "change"] if against else []), "gold"]
    lines = [
        [
            own.asked.query.id, _number(own.asked.score), _short(own.asked.answer, room),
            *([_short(own.other.answer, room), _number(own.change, "+.3f")] if own.other else []),
            _short(own.asked.gold, room),
        ]
        for own in entries
    ]  # fmt: skip
    return tabulate(lines, headers=headers, disable_numparse=True)


def query_text(look: Look, against: Look | None, own: Shown) -> str:
    """Everything about one query."""
    asked = own.asked
    prompt, remark = look.prompts.of(asked.user, asked.query)
    head = f"query {asked.query.id} of user {asked.user.id} ({len(asked.user.history)} history items)"
    parts = [head]
    if prompt is not None and prompt.context:
        parts.append(_block("context", [piece.strip("\n") for piece in prompt.context]))
    text = asked.query.text if prompt is None else f"{prompt.head}{prompt.source}{prompt.tail}"
    parts.append(_block("query" if prompt is None else "prompt", [text]))
    if remark:
        parts.append(f"({remark})")
    key, names = look.task.primary.key, _names(look, against)
    parts.append(_block(f"{names[0]}: {key} {_number(asked.score)}", [asked.answer]))
    if own.other is not None:
        title = f"{names[1]}: {key} {_number(own.other.score)}"
        parts.append(_block(f"{title} ({_number(own.change, '+.3f')} for {names[0]})", [own.other.answer]))
    parts.append(_block("gold", [asked.gold]))
    return "\n\n".join(parts)


def page(look: Look, against: Look | None, entries: Sequence[Shown]) -> str:
    """One HTML page with all of it: no other file is needed, and nothing is fetched."""
    import jinja2

    users = {own.asked.user.id: own.asked.user for own in entries}
    histories = {
        name: {
            "items": [
                {"date": item.date, "source": item.source, "target": item.target}
                for item in list(user.history)[-_MOST_ITEMS:]
            ],
            "total": len(user.history),
        }
        for name, user in users.items()
    }
    content = {
        "names": _names(look, against),
        "metric": look.task.primary.key,
        "higher": look.task.primary.higher_is_better,
        "queries": [_entry(look, against, own) for own in entries],
        "histories": histories,
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lampbench.api"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    facts = {"run": look.row.run_id, "protocol": look.row.identity.protocol, "label": look.row.data.label}
    title = f"{look.row.identity.task}: answers of {' and '.join(_names(look, against))}"
    # In a script element only "<" could end it; escaped, half of a surrogate pair is no trouble either.
    data = json.dumps(content).replace("<", "\\u003c")
    return environment.get_template("answers.html").render(title=title, facts=facts, data=data)


def _entry(look: Look, against: Look | None, own: Shown) -> Mapping[str, Any]:
    asked = own.asked
    prompt, remark = look.prompts.of(asked.user, asked.query)
    entry: dict[str, Any] = {
        "id": asked.query.id, "user": asked.user.id, "gold": asked.gold, "answer": asked.answer, "score": asked.score,
        "context": [piece.strip("\n") for piece in prompt.context] if prompt else [],
        "prompt": f"{prompt.head}{prompt.source}{prompt.tail}" if prompt else asked.query.text, "remark": remark,
    }  # fmt: skip
    if own.other is not None:
        entry |= {"other": own.other.answer, "otherScore": own.other.score, "change": own.change}
    return entry


def _names(look: Look, against: Look | None) -> list[str]:
    """What the runs are called."""
    return run_names([look.row] if against is None else [look.row, against.row], ID_DIGITS)


def _block(title: str, texts: Sequence[str]) -> str:
    lines = [line for text in texts for line in (text.splitlines() or [""])]
    wrapped = [fill(line, _WIDTH - 4, break_long_words=False) if line.strip() else line for line in lines]
    return f"{title}\n{indent(chr(10).join(wrapped), '    ')}"


def _short(text: str, room: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1] + "…"


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)
