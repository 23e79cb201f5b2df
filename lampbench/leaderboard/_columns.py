"""The columns of a board, each written once: Markdown, CSV, JSON, LaTeX and HTML go over the same list.

A new column made of an existing field is one more ``Column`` in ``COLUMNS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from lampbench.core import Metric, Task
from lampbench.leaderboard._added import AddedScore
from lampbench.leaderboard._board import ADAPTED, RAW, Entry
from lampbench.leaderboard._cells import (
    Cell,
    count,
    estimate_cell,
    megabytes,
    moved_cell,
    one_digit,
    p_value,
    seconds,
    share,
)
from lampbench.metrics import LEVEL, Estimate

Order = Literal["ascending", "descending"]
# Choices of columns on a page: what methods reach, what they cost, and how they were run.
View = Literal["quality", "cost", "run"]
_VIEWS: dict[str, View] = {"cost": "cost", "runs": "run"}
# Metrics that rescoring added, each with one of its scores.
Added: TypeAlias = Mapping[str, AddedScore]
_NOTHING_ADDED: Added = MappingProxyType({})


@dataclass(frozen=True)
class Column:
    """A column of a board.

    Attributes:
        title: The heading, the same in every table.
        group: The heading above several columns side by side.
        value: Reads the value off an entry, not rounded: a number, a text or a record.
        cell: What tables show of a value; None if the column is in JSON and CSV only.
        meaning: What the column says; every table is explained by it.
        path: Keys that lead to the value in JSON, which CSV joins by dots; empty if the column is in tables only.
        unit: What pages write small under the title.
        first: The order that puts the best first.
        numeric: Whether it is sorted as numbers.
        main: Whether a page shows it before anyone asks for other columns.
    """

    title: str
    group: str
    value: Callable[[Entry], Any]
    cell: Callable[[Any], Cell] | None
    meaning: str = ""
    path: tuple[str, ...] = ()
    unit: str = ""
    first: Order = "ascending"
    numeric: bool = True
    main: bool = False

    @property
    def view(self) -> View:
        """Which choice of columns it belongs to, beside the main ones."""
        return _VIEWS.get(self.group, "quality")

    def show(self, entry: Entry) -> Cell:
        """The cell of an entry; empty if the column is not in tables."""
        return self.cell(self.value(entry)) if self.cell else Cell("")


def columns(task: Task, added: Added = _NOTHING_ADDED) -> tuple[Column, ...]:
    """Every column of the task's boards, from left to right: those of its metrics, and those of every task.

    ``added`` are the metrics that rescoring added on a board.
    """
    primary = task.primary
    return (
        *_NAMES,
        *(_score(metric, primary) for metric in task.metrics),
        _over_users(primary),
        *(_added(key, score) for key, score in added.items()),
        _difference(RAW, primary, _OVER_RAW, ("against_zero_shot",)),
        *_OF_GAIN,
        _difference(ADAPTED, primary, _OVER_ADAPTED, ("against_lora",)),
        *COLUMNS,
    )


def table_columns(task: Task, added: Added = _NOTHING_ADDED) -> tuple[Column, ...]:
    """The columns that tables show."""
    return tuple(column for column in columns(task, added) if column.cell)


def meanings(tasks: Iterable[Task], added: Added = _NOTHING_ADDED) -> dict[tuple[str, ...], str]:
    """Titles of the columns that tables show -> what they say; titles with the same meaning are joined."""
    titles: dict[str, dict[str, None]] = {}
    for task in tasks:
        for column in table_columns(task, added):
            titles.setdefault(column.meaning, {})[column.title] = None
    return {tuple(own): meaning for meaning, own in titles.items()}


def good_end(metric: Metric) -> str:
    """Which end of a metric is good, in words."""
    return _end(metric.higher_is_better)


def _end(higher_is_better: bool) -> str:
    return "higher is better" if higher_is_better else "lower is better"


def best_first(metric: Metric) -> Order:
    """The order that puts a metric's best value first."""
    return "descending" if metric.higher_is_better else "ascending"


def _number(
    title: str,
    group: str,
    value: Callable[[Entry], float | None],
    form: Callable[[Any], str],
    meaning: str,
    *,
    path: tuple[str, ...] = (),
    unit: str = "",
    first: Order = "ascending",
    main: bool = False,
) -> Column:
    """A column of one number, sorted by the number itself."""
    return Column(title, group, value, lambda own: Cell(form(own), sort=own), meaning, path, unit, first, main=main)


def _cost(
    title: str,
    key: str,
    value: Callable[[Entry], float | None],
    form: Callable[[Any], str],
    meaning: str,
    *,
    main: bool = False,
) -> Column:
    return _number(title, "cost", value, form, meaning, path=("cost", key), main=main)


def _saved(title: str, key: str, value: Callable[[Entry], float | None], meaning: str) -> Column:
    return _number(title, "cost", value, share, meaning, path=("cost", key), unit="of OPPU's", first="descending")


def _words(
    title: str,
    group: str,
    value: Callable[[Entry], str],
    meaning: str,
    *,
    path: tuple[str, ...] = (),
    first: Order = "ascending",
    main: bool = False,
) -> Column:
    """A column of a text, sorted without regard to case."""
    return Column(
        title, group, value, lambda own: Cell(own, sort=own.lower()), meaning, path, "", first, numeric=False, main=main
    )


def _length(name: str, value: Callable[[Entry], float | None], meaning: str) -> Column:
    """A column of how long prompts and answers were: in JSON and CSV only."""
    return Column(name.replace("_", " "), "lengths", value, None, meaning, ("lengths", name))


def _versions(entry: Entry) -> str:
    return ", ".join(sorted({result.row.provenance.version for result in entry.results}))


def _date(entry: Entry) -> str:
    return max(str(result.row.provenance.finished)[:10] for result in entry.results)


def _runs(entry: Entry) -> list[dict[str, Any]]:
    return [{"run_id": result.row.run_id, "seed": result.row.identity.seed} for result in entry.results]


_NAMES = (
    Column(
        "rank",
        "",
        lambda e: e,
        lambda entry: Cell(entry.standing, sort=entry.rank),
        "The rank of a group of entries. From the best score down, a group ends at the first entry that is "
        "significantly worse than the group's best; the place of that entry is the next rank. Entries of one rank "
        "cannot be told apart from the best of their group. All pairs of entries are tested by permutation over users: "
        "the chance that any group of a board ends wrongly is at most 5%. An entry is not ranked if it failed a check "
        "or has no score, and joint if it trained on all evaluated users together; the reason is below the table.",
        main=True,
    ),
    Column("place of the rank group", "", lambda e: e.rank, None, path=("rank",)),
    _words(
        "method",
        "",
        lambda e: e.name,
        "The method's name. Settings follow in brackets if they differ from the defaults, which are the settings that "
        "the protocol recommends for its own model, or else the published ones.",
        main=True,
    ),
    Column("unranked", "", lambda e: e.unranked, None, path=("unranked",)),
    Column("joint", "", lambda e: e.joint, None, path=("joint",)),
)


def _score(metric: Metric, primary: Metric) -> Column:
    """The scores of one metric; JSON holds the mean over users beside them."""
    return Column(
        metric.key,
        "score",
        lambda e: dict(zip(("micro", "macro"), e.scores[metric.key], strict=True)),
        lambda scores: estimate_cell(scores["micro"]),
        "Over all queries, the mean over seeds, with a 95% interval from a bootstrap over users.",
        path=("scores", metric.key),
        unit=good_end(metric),
        first=best_first(metric),
        main=metric.key == primary.key,
    )


def _added(key: str, score: AddedScore) -> Column:
    """The scores of one metric that rescoring added."""
    higher = score.higher_is_better
    return Column(
        f"{key} (added)",
        "added",
        lambda e: e.added(key),
        lambda own: estimate_cell(Estimate(own.value, own.ci95) if own else None),
        "Added after the runs by lampbench rescore, from their answers; no rank and no test rests on it. Over all "
        "queries, the mean over seeds, with a 95% interval if it is one run.",
        path=("added", key),
        unit="" if higher is None else _end(higher),
        first="ascending" if higher is False else "descending",
    )


def _over_users(metric: Metric) -> Column:
    return Column(
        "over users",
        "score",
        lambda e: e.scores[metric.key][1],
        estimate_cell,
        "The primary metric as the mean of users' own scores: a user with many queries counts as much as one with few. "
        "Absent if users have no score of their own (macro-F1).",
        unit=f"{metric.key}, {good_end(metric)}",
        first=best_first(metric),
    )


def _difference(baseline: str, metric: Metric, meaning: str, path: tuple[str, ...]) -> Column:
    """The gain over one of the board's baselines."""
    return Column(
        f"against {baseline}",
        f"against {baseline}",
        lambda e: e.gains.get(baseline),
        lambda gain: estimate_cell(gain.differences[metric.key].micro if gain else None, "+"),
        meaning,
        path,
        f"{metric.key}, {good_end(metric)}",
        best_first(metric),
        main=baseline == RAW,
    )


_OVER_RAW = (
    "The difference of the primary metric from that of the same model without history, on the same queries: the entry "
    "of zero-shot that is named with the table, with the published or recommended settings."
)
_OVER_ADAPTED = (
    "The difference from the model that was adapted to the task and to no user: the task LoRA alone, which the "
    "baselines of OPPU's and PerFit's tables use."
)

_OF_GAIN: tuple[Column, ...] = (
    _number(
        "p",
        "against zero-shot",
        lambda e: e.gain.p if e.gain else None,
        p_value,
        "The p-value of the difference against zero-shot, from permutations over users, adjusted by Holm for all "
        "entries of the board.",
        unit="Holm",
    ),
    Column(
        "users helped/hurt",
        "against zero-shot",
        lambda e: e.gain.moved if e.gain else None,
        moved_cell,
        "How many users score better than with zero-shot, and how many score worse.",
        first="descending",
    ),
    _number(
        "left with another's state",
        "against zero-shot",
        lambda e: e.gain.swapped if e.gain and e.gain.p < LEVEL else None,
        share,
        "The share of a significant gain that is left when every user has the next user's state (--swap-test). Near "
        "0% or below, the gain is personal. Near 100%, anyone's state would do.",
        unit="share of the gain",
    ),
)

COLUMNS: tuple[Column, ...] = (
    _number(
        "invalid",
        "answers",
        lambda e: e.invalid,
        share,
        "Answers that are not valid for the task: empty, a label that does not exist, or no rating on the scale.",
        path=("invalid",),
        unit="share of answers",
    ),
    _length("prompt_mean", lambda e: e.length("prompt_mean"), "Tokens of a prompt, as the model read it."),
    _length("prompt_longest", lambda e: e.length("prompt_longest"), "Tokens of the longest prompt."),
    _length("cut_contexts", lambda e: e.cut("cut_contexts"), "The share of prompts whose context was cut to fit."),
    _length("cut_sources", lambda e: e.cut("cut_sources"), "The share of prompts whose text was cut to fit."),
    _length("answer_mean", lambda e: e.length("answer_mean"), "Tokens of an answer, without its thought."),
    _length("at_limit", lambda e: e.length("at_limit"), "The share of answers that ended at the token limit."),
    _length("thought_mean", lambda e: e.length("thought_mean"), "Tokens of the thought before an answer."),
    _length(
        "unfinished_thoughts",
        lambda e: e.length("unfinished_thoughts"),
        "Answers that are empty because a thought did not end, the mean over seeds.",
    ),
    _cost(
        "shared params",
        "shared_parameters",
        lambda e: e.shared_parameters,
        count,
        "Trainable parameters of the stage that all users share, as the optimizers held them.",
    ),
    _cost(
        "params/user",
        "user_parameters",
        lambda e: e.user_parameters,
        count,
        "Trainable parameters of one user, as the optimizers held them.",
        main=True,
    ),
    _saved(
        "params saved",
        "parameter_reduction",
        lambda e: e.parameter_reduction,
        "The share of a user's trainable parameters that is saved: 1 - this / OPPU's. OPPU's are those of the entry of "
        "oppu that is named with the table, with the published or recommended settings.",
    ),
    _cost("bytes/user", "user_bytes", lambda e: e.user_bytes, count, "The size of one user's state on disk."),
    _cost(
        "s/user",
        "seconds_per_user",
        lambda e: e.seconds_per_user,
        seconds,
        "Mean seconds to adapt to one user. Absent for a method that does nothing per user before the queries.",
        main=True,
    ),
    _cost("shared s", "shared_seconds", lambda e: e.shared_seconds, one_digit, "Seconds of the shared stage."),
    _saved(
        "time saved",
        "time_reduction",
        lambda e: e.time_reduction,
        "The share of the seconds to adapt to one user and to answer that user's queries that is saved, against the "
        "same entry of oppu; only if all these runs were on one class of hardware. The shared stage is not counted.",
    ),
    _cost(
        "ms/query",
        "ms_per_query",
        lambda e: e.query_ms,
        one_digit,
        "Mean milliseconds to answer one query.",
        main=True,
    ),
    _cost("tokens/query", "tokens_per_query", lambda e: e.query_tokens, count, "Tokens of the prompt of one query."),
    _cost("peak MB", "peak_bytes", lambda e: e.peak_bytes, megabytes, "The highest memory of any phase."),
    _number(
        "seeds",
        "runs",
        lambda e: e.averaged,
        str,
        "How many runs are averaged. Runs that give the same answers with every seed count as one.",
        path=("averaged",),
        first="descending",
        main=True,
    ),
    _words("hardware", "runs", lambda e: e.hardware, "The class of machine that the runs were on.", path=("hardware",)),
    _words("version", "runs", _versions, "LampBench's version.", first="descending"),
    _words("date", "runs", _date, "When the last of the runs ended.", first="descending"),
    Column("runs", "", _runs, None, path=("runs",)),
)
