"""The functions of ``import lampbench``."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampbench.api._choice import method_names, overrides, plans_of, task_names
from lampbench.api._executors import executor_of, placed
from lampbench.api._find import find_run, run_names
from lampbench.api._look import data_of_plans
from lampbench.api._progress import ProgressReporter
from lampbench.api._results import Results
from lampbench.core import InputError, convert, use_threads
from lampbench.core import methods as known_methods
from lampbench.data import Dataset
from lampbench.metrics import Score
from lampbench.metrics import score as score_outputs
from lampbench.runner import Planner, Settings, called_as, load_task, options

if TYPE_CHECKING:
    from lampbench.leaderboard import Comparison


def run(
    methods: str | Sequence[str],
    tasks: str | Sequence[str] = "all",
    *,
    set: Mapping[str, Any] | None = None,
    force: bool = False,
    **given: Any,
) -> Results:
    """Run methods on tasks and measure them, as ``lampbench run`` does.

    Finished runs are kept: the same call again returns at once, and an interrupted one is resumed.

    Args:
        methods: Names, such as ``["rag", "perfit"]``, comma-separated, or ``"all"``.
        tasks: Names, such as ``"lamp5"``, or ``"all"``.
        set: Settings of methods: ``{"k": 4}`` for all that have it, ``{"rag": {"k": 4}}`` for one.
        force: Delete earlier work of the same runs and start over.
        given: Any option of ``lampbench run``, written with underscores: ``protocol``, ``data``, ``model``,
            ``users``, ``seed``, ``swap_test``, ``out`` and so on. ``help(lampbench.Settings)`` lists them.

    Raises:
        InputError: A name, option, file or model is wrong; nothing was run then.

    Example::

        results = lampbench.run(["zero-shot", "rag"], "lamp5", users=20)
        results.table()
    """
    settings = placed(settings_from(given))
    use_threads(settings.threads)
    reporter = ProgressReporter(quiet=settings.quiet)
    names = method_names(methods, reporter.say)
    planner = Planner(settings, say=reporter.say, force=force)
    chosen_tasks = task_names(tasks, reporter.say)
    plans = plans_of(planner, names, chosen_tasks, overrides(names, set or {}, ()), reporter.say)
    with called_as(_command(names, chosen_tasks, set or {}, settings)):
        rows = executor_of(settings, reporter).run_all(plans, force=force)
    data = data_of_plans({plan.run_id: plan.dataset for plan in plans})
    return Results(rows, [plan.folder for plan in plans], data)


def _command(methods: Sequence[str], tasks: Sequence[str], set: Mapping[str, Any], settings: Settings) -> list[str]:
    """The command that does the same, for the rows."""
    words = ["lampbench", "run", "--method", ",".join(methods), "--task", ",".join(tasks)]
    for key, value in set.items():
        own = {f"{key}.{name}": given for name, given in value.items()} if isinstance(value, Mapping) else {key: value}
        words += [word for name, given in own.items() for word in ("--set", f"{name}={given}")]
    default = Settings()
    for name in options():
        value, flag = getattr(settings, name), f"--{name.replace('_', '-')}"
        if value != getattr(default, name):
            words += [flag] if value is True else [flag, str(value)]
    return words


def settings_from(given: Mapping[str, Any]) -> Settings:
    """The settings that keyword arguments ask for; raises InputError if a name or a value is wrong."""
    from lampbench.core import unknown_name

    types = typing.get_type_hints(Settings)
    names = [field.name for field in fields(Settings)]
    for name in given:
        if name not in names:
            raise unknown_name("option", name, names)
    return Settings(**{name: convert(value, types[name], name) for name, value in given.items()})


def compare(first: str | Path, second: str | Path, *, out: str | Path = "runs") -> Comparison:
    """Compare two finished runs on the same queries: the first minus the second, with intervals and tests.

    Args:
        first: A run folder, the beginning of a run's id, or ``"TASK/METHOD"``.
        second: As ``first``; what it is compared with.
        out: The folder in which runs are looked for.

    Raises:
        InputError: There is no such run, or the two did not answer the same queries.
    """
    from lampbench.leaderboard import compare as compare_results
    from lampbench.leaderboard import read_result

    results = [read_result(find_run(own, Path(out))) for own in (first, second)]
    ours, theirs = run_names([result.row for result in results])
    return compare_results(results[:1], results[1:], (ours, theirs))


def load_dataset(task: str, protocol: str = "mini", *, data: str | Path | None = None) -> Dataset:
    """One task's data under a protocol: ``shared`` users, ``evaluated`` users with their queries, ``golds``.

    Args:
        task: Its name, such as ``"lamp5"``.
        protocol: ``NAME`` or ``NAME,KEY=VALUE``.
        data: The protocol's data folder, if it needs one.

    Raises:
        InputError: A name is wrong, or the data is missing or wrong.
    """
    settings = Settings(protocol=protocol, data=Path(data) if data is not None else None)
    return Planner(settings, say=ProgressReporter().say).dataset(load_task(task))


def score(
    task: str,
    answers: Mapping[str, str] | Sequence[str],
    golds: Mapping[str, str] | Sequence[str],
    *,
    users: Mapping[str, str] | Sequence[str] | None = None,
) -> dict[str, Score]:
    """Score answers by the official metrics of a task.

    Args:
        task: Its name, such as ``"lamp5"``.
        answers: Query id -> answer, or answers in the order of ``golds``.
        golds: Query id -> gold, or golds in order. Every gold needs an answer.
        users: The user of each query, in the same form: with it, scores have 95% intervals over users.

    Returns:
        Metric -> score, the primary metric first; ``score["rouge-L"].value`` is the number.

    Raises:
        InputError: The task is unknown, or answers and golds are not of the same queries.
    """
    if isinstance(answers, Mapping) and isinstance(golds, Mapping):
        if answers.keys() != golds.keys():
            odd = sorted(answers.keys() ^ golds.keys())
            raise InputError(
                f"answers and golds differ: {len(odd)} queries are in one of them only, such as {odd[0]!r}"
            )
        ids = list(golds)
        if isinstance(users, Mapping):
            if not golds.keys() <= users.keys():
                raise InputError(f"users: no user of query {min(golds.keys() - users.keys())!r}")
            users = [users[query] for query in ids]
        answers, golds = [answers[query] for query in ids], [golds[query] for query in ids]
    if isinstance(answers, (Mapping, str)) or isinstance(golds, (Mapping, str)) or isinstance(users, (Mapping, str)):
        raise InputError("answers, golds and users must have one form: all mappings by query id, or all sequences")
    if len(answers) != len(golds) or (users is not None and len(users) != len(golds)):
        raise InputError(f"{len(answers)} answers, {len(golds)} golds; expected one of each per query")
    return score_outputs(load_task(task), answers, golds, users)


def methods() -> dict[str, str]:
    """Installed methods: name -> what it is."""
    registry = known_methods()
    return {name: registry.plugin(name).about() for name in registry.names()}
