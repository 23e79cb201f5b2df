"""``lampbench describe``."""

from __future__ import annotations

import inspect
import json
from typing import Any

import click

from lampbench.cli._list import about
from lampbench.core import Plugin, Task, config_fields, methods, protocols, tasks, unknown_name
from lampbench.runner import load_method


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def describe(name: str, as_json: bool) -> None:
    """Show what NAME (a method, task or protocol) is, where it comes from and what can be set."""
    kind, plugin = _find(name)
    target: Any = load_method(name) if kind == "method" else plugin.load()
    facts = {"name": name, "kind": kind, "distribution": plugin.distribution, "entry_point": plugin.value}
    facts |= _method_facts(target) if kind == "method" else _task_facts(target) if kind == "task" else _about(target)
    click.echo(json.dumps(facts, indent=1) if as_json else _as_text(facts))


def _find(name: str) -> tuple[str, Plugin]:
    registries = {"method": methods(), "task": tasks(), "protocol": protocols()}
    for kind, registry in registries.items():
        if name in registry.names():
            return kind, registry.plugin(name)
    known = [known for registry in registries.values() for known in registry.names()]
    raise unknown_name("method, task or protocol", name, known)


def _about(target: Any) -> dict[str, Any]:
    return {"about": about(target)}


def _method_facts(method: Any) -> dict[str, Any]:
    return {
        "about": inspect.getdoc(method),
        "paper": method.paper or None,
        "version": method.version,
        "needs_backbone": method.needs_backbone,
        "config": [
            {"name": f.name, "type": f.type, "default": f.default, "help": f.help} for f in config_fields(method.Config)
        ],
    }


def _task_facts(task: Task) -> dict[str, Any]:
    return {
        "about": task.about,
        "version": task.version,
        "instruction": task.instruction,
        "prompt": task.prompt("<text>").text,
        "history item": f"{task.item_source or '(nothing)'} -> {task.item_target}",
        "labels": list(task.labels) or None,
        "metrics": [f"{m.key} ({'higher' if m.higher_is_better else 'lower'} is better)" for m in task.metrics],
    }


def _as_text(facts: dict[str, Any]) -> str:
    from tabulate import tabulate

    lines = [f"{facts['name']} ({facts['kind']})", "", str(facts["about"]), ""]
    shown = {k: v for k, v in facts.items() if k not in ("name", "kind", "about", "config") and v is not None}
    lines += [f"{key}: {', '.join(map(str, v)) if isinstance(v, list) else v}" for key, v in shown.items()]
    if "config" in facts:
        rows = [(f["name"], f["type"], _default(f["default"]), f["help"]) for f in facts["config"]]
        headers = ("setting (--set)", "type", "default", "what it does")
        lines += ["", tabulate(rows, headers=headers, disable_numparse=True) if rows else "Nothing can be set."]
    return "\n".join(lines)


def _default(value: Any) -> str:
    return "none" if value is None else str(value)
