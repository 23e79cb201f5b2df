"""``lampbench test-method``."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from itertools import groupby
from textwrap import fill, indent
from typing import Any

import click

from lampbench.cli._options import overrides
from lampbench.core import InputError, config_from, methods
from lampbench.runner import load_method
from lampbench.testing import CHECKS, TASKS, Case, ContractError, Outcome, contract_cases

_WORDS = {"passed": "ok", "failed": "FAIL", "skipped": "skip", "blocked": "–"}
_TASK_WIDTH = 8
_WIDTH = 100

Outcomes = dict[Case, Outcome]


@click.command("test-method")
@click.argument("name")
@click.option("--task", default="all", show_default=True, help="Tasks of the mini suite, comma-separated, or all.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting that is not to be the default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def test_method(context: click.Context, name: str, task: str, settings: Sequence[str], as_json: bool) -> int:
    """Hold the method NAME to the contract of plug-ins, check by check.

    Everything is tried on three users a task of the mini suite with the bundled model, on the CPU and
    without a network. What each check means: docs/add-a-method.md, "Test it".

    \b
    lampbench test-method latest
    lampbench test-method perfit --task lamp3,lamp5 --set user_rank=4
    lampbench --debug test-method latest     # with tracebacks

    Exit status: 0 all passed, 1 some failed, 2 there is no such method, task or setting.
    """
    cases = contract_cases(name, _tasks(task), _settings(name, settings))
    if as_json:
        found = {case: case.outcome() for case in cases}
        click.echo(json.dumps(_as_json(name, found), indent=1))
    else:
        debug = context.find_root().params.get("debug", False)
        with_settings = f" with {', '.join(settings)}" if settings else ""
        click.echo(
            f"{name} from {_origin(name)}{with_settings}: three users a task of the mini suite, the bundled model\n"
        )
        found = _shown(cases)
        _explain(found, with_traceback=debug)
        if not debug and any(_raised(outcome) for outcome in found.values()):
            click.echo(f"\nlampbench --debug test-method {name} shows where it was raised")
        click.echo(f"\n{_verdict(name, found)}")
    return 1 if _failed(found) else 0


def _tasks(text: str) -> Sequence[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return TASKS if names == ["all"] else names


def _settings(name: str, flags: Sequence[str]) -> Mapping[str, Any]:
    """The settings asked for; raises InputError where the method has no such setting or value."""
    if not flags:
        return {}
    kind = load_method(name)
    chosen = overrides([name], {}, flags, None).of(name, kind)
    config_from(kind.Config, chosen, name)
    return chosen


def _shown(cases: Sequence[Case]) -> Outcomes:
    """Carry the cases out and show how they end: first those of the method, then a line a task, a column a check."""
    found: Outcomes = {}
    for case in (case for case in cases if not case.task):
        found[case] = case.outcome()
        click.echo(f"{case.check} {_WORDS[found[case].status]}   ", nl=False)
    checks = [check.name for check in CHECKS.values() if check.of_task]
    click.echo(f"\n\n{'task':<{_TASK_WIDTH}}{'  '.join(checks)}")
    for task, own in groupby((case for case in cases if case.task), key=lambda case: case.task):
        click.echo(f"{task:<{_TASK_WIDTH}}", nl=False)
        for case in own:
            found[case] = case.outcome()
            click.echo(f"{_WORDS[found[case].status]:<{len(case.check) + 2}}", nl=False)
        click.echo()
    return found


def _explain(found: Outcomes, *, with_traceback: bool) -> None:
    """What failed and what to do, check by check; and what else a reader should know."""
    for check, cases in _failures(found).items():
        click.echo(f"\nFAIL {check}. Expected: {CHECKS[check].promise}")
        for case in cases:
            outcome = found[case]
            click.echo(_filled(f"{case.task}: {outcome.message}" if case.task else outcome.message, "  ", "    "))
            if with_traceback and outcome.error is not None:
                click.echo(indent("".join(traceback.format_exception(outcome.error)), "    "))
        if advice := found[cases[0]].advice:
            click.echo(_filled(f"What to do: {advice}", "  ", "    "))
    if any(outcome.status == "blocked" for outcome in found.values()):
        click.echo("\n–: not tried, because it builds on a check that fails")
    for note, tasks in _notes(found).items():
        click.echo("\n" + _filled(f"note: {', '.join(tasks)}{': ' if tasks else ''}{note}", "", "  "))


def _failures(found: Outcomes) -> dict[str, list[Case]]:
    """Check -> the cases of it that failed."""
    cases = [case for case, outcome in found.items() if outcome.status == "failed"]
    return {check: own for check in CHECKS if (own := [case for case in cases if case.check == check])}


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


def _origin(name: str) -> str:
    """The distribution that the method comes from; of a name that several claim, nothing is known."""
    try:
        return methods().plugin(name).distribution
    except InputError:
        return "several distributions"


def _as_json(name: str, found: Outcomes) -> dict[str, Any]:
    checks = [
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
    return {"method": name, "from": _origin(name), "passed": not _failed(found), "checks": checks}
