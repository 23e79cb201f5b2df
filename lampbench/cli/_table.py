"""The table that ends a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from lampbench.data import Leak, findings
from lampbench.rows import PHASES, Data, Row, RunRow


def run_table(rows: Sequence[RunRow]) -> str:
    """Rows of ``row.json`` as one table: all scores, parameters, seconds per phase, run id."""
    headers = ["method", "task", "primary", "secondary", "shared params", "params/user"]
    headers += [*(f"{phase} s" for phase in PHASES), "run"]
    align = ("left", "left", *["right"] * (len(headers) - 3), "left")
    return tabulate([_cells(row) for row in rows], headers=headers, disable_numparse=True, colalign=align)


def run_notes(rows: Sequence[RunRow]) -> list[str]:
    """What a reader of the table must know, one line per kind of note and task."""
    of_data: dict[str, None] = {}
    notes: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        method, task = row.identity.method, row.identity.task
        whose = task if row.identity.limit is None else f"{task}, all users of the protocol"
        of_data |= dict.fromkeys(f"{whose}: {note}" for note in _data_notes(row.data))
        for note, count in _row_notes(row):
            notes[f"{task}: {note}"].append(f"{method} {count}".strip())
    return [*of_data, *(f"{note}: {', '.join(methods)}" for note, methods in notes.items())]


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
    if row.identity.limit is not None:
        yield f"limited to the first {data.users} users", ""
    for count, what in (
        (data.invalid_outputs, f"outputs that are no valid answer, of {data.queries}"),
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


def _cells(row: RunRow) -> list[str]:
    names = [row.identity.method, row.identity.task]
    if not isinstance(row, Row):
        return [*names, row.status.upper(), *[""] * (3 + len(PHASES)), row.run_id]
    primary_first = sorted(row.metrics.items(), key=lambda entry: not entry[1].primary)
    primary, *others = (_score(key, metric.value) for key, metric in primary_first)
    parameters, seconds = row.cost.parameters, row.cost.seconds.by_phase
    return [
        *names,
        primary,
        ", ".join(others),
        f"{parameters.shared:,}",
        f"{parameters.per_user:,}",
        *("–" if seconds[phase] is None else f"{seconds[phase]:.2f}" for phase in PHASES),
        row.run_id,
    ]


def _score(key: str, value: float | None) -> str:
    return f"{key} {'not finite' if value is None else f'{value:.4f}'}"
