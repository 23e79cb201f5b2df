"""The table that ends a run, and the notes below it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill

from tabulate import tabulate

from lampbench.api._find import ID_DIGITS
from lampbench.api._gains import BASELINE, Gain
from lampbench.data import Leak, findings
from lampbench.metrics import LEVEL
from lampbench.rows import JOINT, Data, Row, RunRow

_WIDTH = 100


def run_table(rows: Sequence[RunRow], gains: Mapping[str, Gain]) -> str:
    """A table per task: scores with intervals, gains over zero-shot, and what they cost; at most 100 columns wide."""
    alike = len({row.identity.protocol for row in rows}) < 2
    groups: dict[str, list[RunRow]] = defaultdict(list)
    for row in rows:
        own = row.identity
        groups[own.task if alike else f"{own.task}, {own.protocol}"].append(row)
    return "\n\n".join(_task_table(name, own, gains) for name, own in groups.items())


def _task_table(task: str, rows: Sequence[RunRow], gains: Mapping[str, Gain]) -> str:
    finished = [row for row in rows if isinstance(row, Row)]
    if not finished:
        title = f"{task}: no finished run"
    else:
        key, metric = finished[0].primary
        title = f"{task}: {key} with its 95% interval; {'higher' if metric.higher_is_better else 'lower'} is better"
    columns = {
        "method": [row.identity.method for row in rows],
        "score": [_score(row) if isinstance(row, Row) else row.status.upper() for row in rows],
        f"over {BASELINE}": [_gain(gains.get(row.run_id)) for row in rows],
        "swapped state": [_swapped(row) for row in rows],
        "params/user": [f"{row.cost.parameters.per_user:,}" if row.cost else "" for row in rows],
        "s/user": [_seconds(row) for row in rows],
        "run": [row.run_id[:ID_DIGITS] for row in rows],
    }
    # A column in which nothing stands says nothing.
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    align = ["left" if name in ("method", "score", "run") else "right" for name in shown]
    lines = list(zip(*shown.values(), strict=True))
    return f"{title}\n{tabulate(lines, headers=list(shown), disable_numparse=True, colalign=align)}"


def _score(row: Row) -> str:
    _, metric = row.primary
    if metric.value is None:
        return "not finite"
    interval = f" [{metric.ci95[0]:.3f}, {metric.ci95[1]:.3f}]" if metric.ci95 else ""
    return f"{metric.value:.3f}{interval}"


def _gain(gain: Gain | None) -> str:
    if gain is None:
        return ""
    value = gain.difference.micro.value
    return "not finite" if value is None else f"{value:+.3f} {gain.verdict}"


def _swapped(row: RunRow) -> str:
    if not isinstance(row, Row) or row.swap is None:
        return ""
    key, metric = row.primary
    value = row.swap[key]
    if value is None or metric.value is None:
        return "not finite"
    return f"{value:.3f} ({value - metric.value:+.3f})"


def _seconds(row: RunRow) -> str:
    if row.cost is None:
        return ""
    spread = row.cost.seconds_per_user
    return f"{spread.mean:.2f}" if spread else "0"


def run_notes(rows: Sequence[RunRow]) -> list[str]:
    """What a reader of the table must know, a text per kind of note and task, wrapped as the table is."""
    of_data: dict[str, None] = {}
    notes: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        method, task = row.identity.method, row.identity.task
        whose = task if row.identity.limit is None else f"{task}, all users of the protocol"
        of_data |= dict.fromkeys(f"{whose}: {note}" for note in _data_notes(row.data))
        for note, count in _row_notes(row):
            notes[f"{task}: {note}"].append(f"{method} {count}".strip())
    texts = [*of_data, *(f"{note}: {', '.join(methods)}" for note, methods in notes.items())]
    return [_filled(f"note: {text}") for text in texts]


def legend(rows: Sequence[RunRow], gains: Mapping[str, Gain]) -> str:
    """What words in the table mean; empty if none of them occur."""
    texts = []
    if gains:
        texts.append(
            f"better, worse: p < {LEVEL:g} in a paired permutation test over users, by Holm over the methods of a "
            "task; unclear: these users cannot tell."
        )
    if any(row.swap for row in rows):
        texts.append("swapped state: the score if every user is answered with another user's state.")
    return "\n".join(map(_filled, texts))


def _data_notes(data: Data) -> Iterator[str]:
    """Notes on the data, the same for every method."""
    for found in findings([Leak(name, own.count, own.of, own.examples) for name, own in data.leaks.items()]):
        yield f"leak check: {found}"
    yield from data.notes


def _row_notes(row: RunRow) -> Iterator[tuple[str, str]]:
    """Notes on one row: what, and how many."""
    if not isinstance(row, Row):
        yield f"{row.status} ({row.error})", ""
        return
    data = row.data
    if row.identity.joint:
        yield f"{JOINT}; boards show it without a rank", ""
    if row.identity.limit is not None:
        yield f"limited to the first {data.users} users", ""
    for count, what in (
        (data.invalid_outputs, f"outputs that are not valid answers, of {data.queries}"),
        (data.cut_contexts, f"prompts whose context was cut to fit the model, of {data.queries}"),
        (data.cut_sources, f"prompts whose text was cut to fit the model, of {data.queries}"),
        (data.cut_while_adapting, "training examples or profile prompts that were cut to fit the model"),
    ):
        if count:
            yield what, str(count)
    if data.lengths is not None and data.lengths.at_limit:
        yield "answers that ended at the token limit", f"{data.lengths.at_limit:.1%}"
    if data.lengths is not None and data.lengths.unfinished_thoughts:
        what = f"empty answers because a thought did not end (--thinking N allows more), of {data.queries}"
        yield what, str(data.lengths.unfinished_thoughts)
    server = row.environment.server
    if server is not None:
        yield f"{_model(row)} is served: the same command may give other answers another day", ""
        if server.top_k is False:
            yield "sampled without top-k, which the server does not know", ""
    for name in row.failed_checks:
        yield f"CHECK FAILED, {name}: {row.checks[name].found}", ""


def _model(row: Row) -> str:
    return row.identity.backbone.id if row.identity.backbone else ""


def _filled(text: str) -> str:
    """Wrapped to the width of the table; ids stay whole."""
    return fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
