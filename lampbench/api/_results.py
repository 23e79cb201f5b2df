"""Results of runs, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampbench.api._find import find_run, runs_below
from lampbench.api._gains import Gain, gains
from lampbench.api._look import DataOf, Look, data_at
from lampbench.api._table import legend, run_notes, run_table
from lampbench.core import InputError
from lampbench.rows import Row, RunRow, read_run_row

if TYPE_CHECKING:
    import pandas as pd


class Results:
    """What runs gave: ``run`` and ``load_results`` return it.

    In a notebook it shows its ``table``; printed, the table that ends ``lampbench run``. For everything that was
    measured, look into ``rows``: they are what the runs' ``row.json`` files hold.

    Attributes:
        rows: The runs, in order. A run that failed or was interrupted has a ``status`` that says so, and no metrics.
        folders: The folder of each run.
    """

    def __init__(self, rows: Sequence[RunRow], folders: Sequence[Path], data_of: DataOf) -> None:
        self.rows = tuple(rows)
        self.folders = tuple(folders)
        self._data_of = data_of

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[RunRow]:
        return iter(self.rows)

    def __str__(self) -> str:
        parts = [run_table(self.rows, self.gains), legend(self.rows, self.gains), "\n".join(run_notes(self.rows))]
        return "\n\n".join(part for part in parts if part)

    def __repr__(self) -> str:
        return f"<Results: {len(self.rows)} runs>\n{self}"

    def _repr_html_(self) -> str:
        html: str = self.table()._repr_html_()  # type: ignore[operator]  # pandas gives notebooks this
        return html

    @cached_property
    def gains(self) -> dict[str, Gain]:
        """Run id -> what the run gains over zero-shot, of runs on whose queries zero-shot ran too."""
        return gains(self.rows, self.folders)

    def table(self) -> pd.DataFrame:
        """One line per run.

        Columns: ``task``, ``method``, ``metric`` (the task's primary one), ``score`` with its 95% interval
        (``low``, ``high``), ``gain`` over zero-shot with its interval (``gain_low``, ``gain_high``), ``p`` and
        ``verdict`` (better, worse or unclear, at 5%), ``parameters_per_user`` and ``shared_parameters``,
        ``seconds_per_user`` of adaptation, ``shared_seconds``, ``ms_per_query``, ``swapped`` (the score with other
        users' states), ``seed``, ``protocol``, ``model``, ``status``, ``run_id`` and ``folder``. What was not
        measured is missing (NaN or None).
        """
        import pandas as pd

        lines = [_line(row, folder, self.gains.get(row.run_id)) for row, folder in zip(self, self.folders, strict=True)]
        return pd.DataFrame(lines, columns=list(_COLUMNS))

    def answers(self) -> pd.DataFrame:
        """One line per run and query, of finished runs.

        Columns: ``task``, ``method``, ``run_id``, ``user``, ``query`` (its id), ``text``, ``answer``, ``gold`` and
        ``score`` (the primary metric of this query alone).

        Raises:
            InputError: The data of a run is not at hand.
        """
        import pandas as pd

        lines = [
            {
                "task": row.identity.task, "method": row.identity.method, "run_id": row.run_id, "user": own.user.id,
                "query": own.query.id, "text": own.query.text, "answer": own.answer, "gold": own.gold,
                "score": own.score,
            }
            for row, folder in zip(self.rows, self.folders, strict=True) if isinstance(row, Row)
            for own in Look(row, folder, self._data_of).asked
        ]  # fmt: skip
        columns = ("task", "method", "run_id", "user", "query", "text", "answer", "gold", "score")
        return pd.DataFrame(lines, columns=list(columns))


def load_results(folder: str | Path, *, data: str | Path | None = None) -> Results:
    """The runs in a folder: a run folder, ``runs``, or a results folder of leaderboards.

    Args:
        folder: Looked through with everything in it.
        data: The data folder of the runs' protocol, which only ``answers`` needs, and only if the protocol does.

    Raises:
        InputError: There are no runs, or a file is damaged.
    """
    folders = runs_below(Path(folder))
    return Results([read_run_row(own / "row.json") for own in folders], folders, data_at(Path(data) if data else None))


def finished_run(reference: str | Path, out: Path) -> tuple[Row, Path]:
    """The finished run that ``reference`` names; raises InputError if there is none."""
    folder = find_run(reference, out)
    row = read_run_row(folder / "row.json")
    if not isinstance(row, Row):
        raise InputError(f"{folder}: the run is {row.status} and has no results; lampbench run continues it")
    return row, folder


_COLUMNS = (
    "task", "method", "metric", "score", "low", "high", "gain", "gain_low", "gain_high", "p", "verdict",
    "parameters_per_user", "shared_parameters", "seconds_per_user", "shared_seconds", "ms_per_query", "swapped",
    "seed", "protocol", "model", "status", "run_id", "folder",
)  # fmt: skip


def _line(row: RunRow, folder: Path, gain: Gain | None) -> dict[str, Any]:
    own = row.identity
    line: dict[str, Any] = {
        "task": own.task, "method": own.method, "seed": own.seed, "protocol": own.protocol,
        "model": own.backbone.id if own.backbone else None, "status": row.status, "run_id": row.run_id,
        "folder": str(folder),
    }  # fmt: skip
    if not isinstance(row, Row):
        return line
    key, metric = row.primary
    cost = row.cost
    line |= {
        "metric": key, "score": metric.value, "low": metric.ci95 and metric.ci95[0],
        "high": metric.ci95 and metric.ci95[1], "parameters_per_user": cost.parameters.per_user,
        "shared_parameters": cost.parameters.shared,
        "seconds_per_user": cost.seconds_per_user.mean if cost.seconds_per_user else 0.0,
        "shared_seconds": cost.seconds.fit_shared or 0.0,
        "ms_per_query": 1000 * (cost.seconds.predict or 0.0) / row.data.queries,
        "swapped": row.swap[key] if row.swap else None,
    }  # fmt: skip
    if gain is not None:
        micro = gain.difference.micro
        line |= {"gain": micro.value, "p": gain.p, "verdict": gain.verdict}
        line |= {"gain_low": micro.ci95 and micro.ci95[0], "gain_high": micro.ci95 and micro.ci95[1]}
    return line
