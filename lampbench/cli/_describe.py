"""``lampbench list`` and ``lampbench describe``: what is installed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from lampbench.cli._flags import completes
from lampbench.cli._options import cache_option, tolerate_option, use_cache
from lampbench.cli._protocol import data_text, protocol_data
from lampbench.core import (
    HistoryItem,
    InputError,
    Metric,
    Plugin,
    Registry,
    Task,
    config_fields,
    methods,
    metrics,
    protocols,
    tasks,
    unknown_name,
)
from lampbench.data import Licence
from lampbench.runner import Settings, load_method

_REGISTRIES = {"method": methods, "task": tasks, "metric": metrics, "protocol": protocols}


@click.command("list")
@click.argument("kind", type=click.Choice([f"{kind}s" for kind in _REGISTRIES]))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(kind: str, as_json: bool) -> None:
    """List methods, tasks, metrics or protocols: name, what it is, where it comes from.

    Methods are read from their source files without being imported; `lampbench doctor` imports them and names those
    that fail. A plug-in that has to be imported and fails is listed with its error.
    """
    registry = _REGISTRIES[kind.removesuffix("s")]()
    entries = [_entry(registry, name) for name in registry.names()]
    if as_json:
        click.echo(json.dumps(entries, indent=1))
        return
    from tabulate import tabulate

    rows = [(e["name"], e["about"] or f"BROKEN: {e['error']}", e["distribution"] or "") for e in entries]
    click.echo(tabulate(rows, headers=("name", "what it is", "from"), maxcolwidths=[None, 80, None]))


def _entry(registry: Registry, name: str) -> dict[str, str | None]:
    entry: dict[str, str | None] = {"name": name, "about": None, "distribution": None, "error": None}
    try:
        plugin = registry.plugin(name)
        entry["distribution"] = plugin.distribution
        entry["about"] = plugin.about()
    except InputError as error:
        entry["error"] = str(error)
    return entry


@click.command()
@click.argument(
    "names", nargs=-1, required=True, metavar="[KIND] NAME", shell_complete=completes(*_REGISTRIES.values())
)
@click.option("--task", help="With a protocol: the tasks whose data to count, comma-separated, or all.")
@click.option("--data", type=click.Path(path_type=Path), help="With a protocol: its data folder.")
@click.option(
    "--model", help="With a protocol: the model whose tokenizer counts tokens. Default: the protocol's, if any."
)
@click.option(
    "--strict",
    is_flag=True,
    help="With a protocol: refuse data in which a leak check finds something, or a record cannot be read.",
)
@click.option(
    "--power",
    is_flag=True,
    help="With a protocol: the smallest difference that its users and queries could show, by simulation.",
)
@tolerate_option
@cache_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def describe(names: tuple[str, ...], as_json: bool, cache: Path | None, **data_options: Any) -> None:
    """Show what NAME (a method, task, metric or protocol) is, where it comes from and what can be set.

    For a protocol with --task, also its users, queries, histories, answers, tokens, leak checks and hash.

    \b
    lampbench describe perfit
    lampbench describe protocol mini --task lamp5
    lampbench describe protocol cold-k,k=4,base=folder --task all --data DIR --model DIR
    """
    use_cache(cache)
    kind, name = _asked(names)
    # A protocol's settings stand behind its name.
    kind, plugin = _find(kind, name.partition(",")[0])
    name = ",".join([plugin.name, *name.split(",")[1:]])
    given = [option for option, value in data_options.items() if value not in (None, False, Settings().tolerate)]
    if kind != "protocol" and given:
        raise InputError(
            f"--task, --data, --model, --strict, --power and --tolerate describe a protocol; {name!r} is a {kind}"
        )
    given = [option for option in given if option != "task"]
    if given and not data_options["task"]:
        raise InputError(f"--{given[0]} needs --task: whose data to describe, tasks or all")
    target: Any = load_method(name) if kind == "method" else plugin.load()
    facts: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "distribution": plugin.distribution,
        "entry_point": plugin.value,
    }
    facts |= _FACTS[kind](target)
    if data_options["task"]:
        facts["data"] = protocol_data(name, **data_options)
    click.echo(json.dumps(facts, indent=1) if as_json else _as_text(facts))


def _asked(names: tuple[str, ...]) -> tuple[str | None, str]:
    if len(names) == 1:
        return None, names[0]
    if len(names) > 2 or names[0] not in _REGISTRIES:
        raise InputError(f"expected NAME, or {' or '.join(_REGISTRIES)} and NAME; found {' '.join(names)!r}")
    return names[0], names[1]


def _find(kind: str | None, name: str) -> tuple[str, Plugin]:
    registries = {known: registry() for known, registry in _REGISTRIES.items() if kind in (None, known)}
    for known, registry in registries.items():
        if registry.canonical(name) is not None:
            return known, registry.plugin(name)
    names = [name for registry in registries.values() for name in registry.names()]
    raise unknown_name(kind or "method, task, metric or protocol", name, names)


def _protocol_facts(protocol: Any) -> dict[str, Any]:
    recommended = protocol.recommended if isinstance(protocol.recommended, Mapping) else {}
    return {
        "about": inspect.getdoc(protocol),
        "licence of its data": None if not isinstance(protocol.licence, Licence) else str(protocol.licence),
        "recommended settings": [f"{name} ({_pairs(values)})" for name, values in recommended.items()] or None,
        "config": _settings(protocol.Config),
    }


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _settings(config: type) -> list[dict[str, Any]]:
    return [{"name": f.name, "type": f.type, "default": f.default, "help": f.help} for f in config_fields(config)]


def _method_facts(method: Any) -> dict[str, Any]:
    return {
        "about": inspect.getdoc(method),
        "paper": method.paper or None,
        "version": method.version,
        "needs_backbone": method.needs_backbone,
        "needs_weights": method.needs_backbone and method.needs_weights,
        "config": _settings(method.Config),
    }


def _task_facts(task: Task) -> dict[str, Any]:
    own = task.definition
    text = "<text>" if own is None else own.joined({name: f"<{name}>" for name in own.source})
    return {
        "about": task.about,
        "version": task.version,
        "instruction": task.instruction,
        "prompt": task.prompt(text).text,
        "prompts": [wording.name for wording in task.wordings] or ["plain"],
        "history item": f"{task.item_source or '(nothing)'} -> {task.item_target}",
        "history item in a prompt": None if own is None else task.render(HistoryItem("", text, f"<{own.target}>")),
        "answers": _answers(task),
        "labels": list(task.labels) or None,
        "metrics": [f"{m.key} ({'higher' if m.higher_is_better else 'lower'} is better)" for m in task.metrics],
    }


def _answers(task: Task) -> str:
    if task.one_line:
        return "one line; newlines in training targets become spaces"
    return f"any text, cut at {task.stop!r}" if task.stop else "any text"


def _metric_facts(metric: Metric) -> dict[str, Any]:
    return {
        "about": metric.about,
        "direction": f"{'higher' if metric.higher_is_better else 'lower'} is better",
        "scores": sorted(metric.kinds),
        "over users": metric.per_user,
    }


_FACTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "method": _method_facts,
    "task": _task_facts,
    "metric": _metric_facts,
    "protocol": _protocol_facts,
}


def _as_text(facts: dict[str, Any]) -> str:
    from tabulate import tabulate

    lines = [f"{facts['name']} ({facts['kind']})", "", str(facts["about"]), ""]
    shown = {k: v for k, v in facts.items() if k not in ("name", "kind", "about", "config", "data") and v is not None}
    lines += [f"{key}: {', '.join(map(str, v)) if isinstance(v, list) else v}" for key, v in shown.items()]
    if "config" in facts:
        rows = [(f["name"], f["type"], _default(f["default"]), f["help"]) for f in facts["config"]]
        how = "NAME,KEY=VALUE" if facts["kind"] == "protocol" else "--set"
        headers = (f"setting ({how})", "type", "default", "what it does")
        lines += ["", tabulate(rows, headers=headers, disable_numparse=True) if rows else "Nothing can be set."]
    for data in facts.get("data", ()):
        lines += ["", data_text(data)]
    return "\n".join(lines)


def _default(value: Any) -> str:
    return "none" if value is None else str(value)
