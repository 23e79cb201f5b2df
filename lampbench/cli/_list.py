"""``lampbench list``."""

from __future__ import annotations

import inspect
import json
from typing import Any

import click

from lampbench.core import InputError, Registry, methods, metrics, protocols, tasks


@click.command("list")
@click.argument("kind", type=click.Choice(["methods", "tasks", "metrics", "protocols"]))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(kind: str, as_json: bool) -> None:
    """List methods, tasks, metrics or protocols: name, what it is, where it comes from.

    A plug-in that cannot be imported is listed with its error.
    """
    registry = {"methods": methods, "tasks": tasks, "metrics": metrics, "protocols": protocols}[kind]()
    entries = [_entry(registry, name) for name in registry.names()]
    if as_json:
        click.echo(json.dumps(entries, indent=1))
        return
    from tabulate import tabulate

    rows = [(e["name"], e["about"] or f"BROKEN: {e['error']}", e["distribution"] or "") for e in entries]
    click.echo(tabulate(rows, headers=("name", "what it is", "from"), maxcolwidths=[None, 80, None]))


def about(target: Any) -> str:
    """One line: an ``about`` attribute, or the first line of the docstring."""
    return getattr(target, "about", "") or (inspect.getdoc(target) or "").split("\n")[0]


def _entry(registry: Registry, name: str) -> dict[str, str | None]:
    entry: dict[str, str | None] = {"name": name, "about": None, "distribution": None, "error": None}
    try:
        plugin = registry.plugin(name)
        entry["distribution"] = plugin.distribution
        entry["about"] = about(plugin.load())
    except InputError as error:
        entry["error"] = str(error)
    return entry
