"""``lampbench doctor``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lampbench.doctor import Finding, Report

_MARKS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
_COLOURS = {"note": "yellow", "problem": "red"}
# What is longer does not push the rest of its section to the right.
_WIDEST = 62


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> int:
    """Look for what is wrong with this installation, and say what to do about it.

    It looks at versions, metadata, every plug-in, device and load, folders, and network settings. It uses no network,
    and prints no token or password.

    Exit status: 0 nothing is wrong, 1 something is.
    """
    from lampbench.doctor import examine

    if sys.stderr.isatty():
        click.echo("importing everything …", err=True)
    report = examine()
    click.echo(json.dumps(report.to_json(), indent=1) if as_json else report_text(report))
    return 1 if report.problems else 0


def report_text(report: Report) -> str:
    """The report, section by section, and its problems once more with what to do."""
    parts = ["\n".join([name, *_lines(section)]) for name, section in report.sections.items()]
    problems = [f"  {problem.name}: {problem.text} -> {problem.do}" for problem in report.problems]
    many = "1 problem:" if len(problems) == 1 else f"{len(problems)} problems:"
    return "\n\n".join([*parts, "\n".join([many, *problems]) if problems else "Nothing is wrong."])


def _lines(section: Sequence[Finding]) -> Iterator[str]:
    names = max((len(finding.name) for finding in section), default=0)
    values = max((len(f.value) for f in section if len(f.value) <= _WIDEST), default=0)
    for finding in section:
        mark = click.style(f"{_MARKS[finding.mark]:<7}", fg=_COLOURS.get(finding.mark))
        yield f"  {mark}  {finding.name:<{names}}  {finding.value:<{values}}  {finding.text}".rstrip()
