"""``lampbench test-method`` and ``lampbench test-task``."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import fill, indent
from typing import Any

import click

from lampbench.api import overrides
from lampbench.cli._flags import completes
from lampbench.core import InputError, Registry, config_from, methods, tasks
from lampbench.runner import load_method
from lampbench.testing import (
    CHECKS,
    TASK_CHECKS,
    TASKS,
    Case,
    Check,
    ContractError,
    Outcome,
    contract_cases,
    task_cases,
)

_WORDS = {"passed": "ok", "failed": "FAIL", "skipped": "skip", "blocked": "–"}
_TASK_WIDTH = 8
_WIDTH = 100

Outcomes = dict[Case, Outcome]


@click.command("test-method")
@click.argument("name", shell_complete=completes(methods))
@click.option("--task", default="all", show_default=True, help="Tasks of the mini suite, comma-separated, or all.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting other than the default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def test_method(context: click.Context, name: str, task: str, settings: Sequence[str], as_json: bool) -> int:
    """Check that the method NAME keeps the contract of plug-ins.

    Everything is tried on three users per task of the mini suite with the bundled model, on the CPU and
    without a network. What each check means: docs/add-a-method.md, "Test it".

    \b
    lampbench test-method latest
    lampbench test-method perfit --task lamp3,lamp5 --set user_rank=4
    lampbench --debug test-method latest     # with tracebacks

    Exit status: 0 all passed, 1 some failed, 2 there is no such method, task or setting.
    """
    name = methods().canonical(name) or name
    about = f" with {', '.join(settings)}" if settings else ""
    about += ": three users per task of the mini suite, the bundled model"
    cases = contract_cases(name, _tasks(task), _settings(name, settings))
    return _carry_out(_Tried("method", name, methods(), CHECKS, about), cases, context, as_json)


@click.command("test-task")
@click.argument("name", shell_complete=completes(tasks))
@click.option("--answer", "answers", multiple=True, metavar="TEXT", help="A valid answer, if made-up ones are not.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def test_task(context: click.Context, name: str, answers: Sequence[str], as_json: bool) -> int:
    """Check that the task NAME and its metrics keep the contract of plug-ins.

    Everything is tried on made-up users, without a model, data or network. What each check means:
    docs/add-a-task.md, "Install and test it".

    \b
    lampbench test-task subject
    lampbench test-task codes --answer A-17 --answer B-04
    lampbench --debug test-task subject     # with tracebacks

    Exit status: 0 all passed, 1 some failed, 2 there is no such task.
    """
    name = tasks().canonical(name) or name
    tried = _Tried("task", name, tasks(), TASK_CHECKS, ": made-up users, no model")
    return _carry_out(tried, task_cases(name, answers), context, as_json)


@dataclass(frozen=True)
class _Tried:
    """A plug-in on trial.

    Attributes:
        kind: ``method`` or ``task``.
        checks: Its contract.
        about: What it is tried on, for the first line.
    """

    kind: str
    name: str
    registry: Registry
    checks: Mapping[str, Check]
    about: str

    @property
    def origin(self) -> str:
        """The distribution that it comes from; of a name that several claim, nothing is known."""
        try:
            return self.registry.plugin(self.name).distribution
        except InputError:
            return "several distributions"


def _carry_out(tried: _Tried, cases: Sequence[Case], context: click.Context, as_json: bool) -> int:
    """Carry the cases out and tell how they end; gives the exit status."""
    if as_json:
        found = {case: case.outcome() for case in cases}
        click.echo(json.dumps(_as_json(tried, found), indent=1))
    else:
        debug = context.find_root().params.get("debug", False)
        click.echo(f"{tried.name} from {tried.origin}{tried.about}\n")
        found = _shown(cases, tried.checks)
        _explain(found, tried.checks, with_traceback=debug)
        if not debug and any(_raised(outcome) for outcome in found.values()):
            click.echo(f"\nlampbench --debug test-{tried.kind} {tried.name} shows where it was raised")
        click.echo(f"\n{_verdict(tried.name, found)}")
    return 1 if _failed(found) else 0


def _tasks(text: str) -> Sequence[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return TASKS if names == ["all"] else [tasks().canonical(name) or name for name in names]


def _settings(name: str, flags: Sequence[str]) -> Mapping[str, Any]:
    """The settings asked for; raises InputError if the method has no such setting or value."""
    if not flags:
        return {}
    kind = load_method(name)
    chosen = overrides([name], {}, flags, None).of(name, kind)
    config_from(kind.Config, chosen, name)
    return chosen


def _shown(cases: Sequence[Case], known: Mapping[str, Check]) -> Outcomes:
    """Carry the cases out and show how they end: first those without a task, then a line per task."""
    found: Outcomes = {}
    for case in (case for case in cases if not case.task):
        found[case] = case.outcome()
        click.echo(f"{case.check} {_WORDS[found[case].status]}   ", nl=False)
    click.echo()
    checks = [check.name for check in known.values() if check.of_task]
    if not checks:
        return found
    click.echo(f"\n{'task':<{_TASK_WIDTH}}{'  '.join(checks)}")
    for task, own in groupby((case for case in cases if case.task), key=lambda case: case.task):
        click.echo(f"{task:<{_TASK_WIDTH}}", nl=False)
        for case in own:
            found[case] = case.outcome()
            click.echo(f"{_WORDS[found[case].status]:<{len(case.check) + 2}}", nl=False)
        click.echo()
    return found


def _explain(found: Outcomes, checks: Mapping[str, Check], *, with_traceback: bool) -> None:
    """What failed and what to do, check by check; and what else a reader should know."""
    for check, cases in _failures(found, checks).items():
        click.echo(f"\nFAIL {check}. Expected: {checks[check].promise}")
        for case in cases:
            outcome = found[case]
            click.echo(_filled(f"{case.task}: {outcome.message}" if case.task else outcome.message, "  ", "    "))
            if with_traceback and outcome.error is not None:
                click.echo(indent("".join(traceback.format_exception(outcome.error)), "    "))
        if advice := found[cases[0]].advice:
            click.echo(_filled(f"What to do: {advice}", "  ", "    "))
    if any(outcome.status == "blocked" for outcome in found.values()):
        click.echo("\n–: not tried, because it builds on a check that fails")
    for note, where in _notes(found).items():
        click.echo("\n" + _filled(f"note: {', '.join(where)}{': ' if where else ''}{note}", "", "  "))


def _failures(found: Outcomes, checks: Mapping[str, Check]) -> dict[str, list[Case]]:
    """Check -> the cases of it that failed."""
    cases = [case for case, outcome in found.items() if outcome.status == "failed"]
    return {check: own for check in checks if (own := [case for case in cases if case.check == check])}


def _raised(outcome: Outcome) -> bool:
    """Whether there is more to see: an error of the method's own, or the log of a run that failed."""
    error = outcome.error
    return error is not None and (not isinstance(error, ContractError) or hasattr(error, "__notes__"))


def _notes(found: Outcomes) -> dict[str, list[str]]:
    """Note -> the tasks that it is about."""
    notes: dict[str, list[str]] = {}
    for case, outcome in found.items():
        for note in outcome.notes:
            notes.setdefault(note, []).extend([case.task] if case.task else [])
    return notes


def _filled(text: str, first: str, others: str) -> str:
    return fill(
        text, _WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )


def _verdict(name: str, found: Outcomes) -> str:
    statuses = [outcome.status for outcome in found.values()]
    passed, failed = statuses.count("passed"), statuses.count("failed")
    seconds = sum(outcome.seconds for outcome in found.values())
    if failed:
        return f"{name} breaks the contract: {failed} of {passed + failed} checks failed ({seconds:.0f} s)"
    return f"{name} keeps the contract: {passed} checks passed ({seconds:.0f} s)"


def _failed(found: Outcomes) -> bool:
    return any(outcome.status == "failed" for outcome in found.values())


def _as_json(tried: _Tried, found: Outcomes) -> dict[str, Any]:
    told = [
        {
            "check": case.check,
            "task": case.task or None,
            "status": outcome.status,
            "message": outcome.message,
            "advice": outcome.advice,
            "notes": list(outcome.notes),
            "seconds": round(outcome.seconds, 3),
        }
        for case, outcome in found.items()
    ]
    return {tried.kind: tried.name, "from": tried.origin, "passed": not _failed(found), "checks": told}
