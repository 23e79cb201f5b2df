"""A protocol's data in numbers, for ``lampbench describe protocol``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lampbench.cli._options import for_tasks
from lampbench.core import Task
from lampbench.data import Dataset, Leak, Protocol, TokenSummary, count_tokens, findings, summarize
from lampbench.runner import Planner, Settings, load_protocol

_BATCH = 1000


def protocol_data(
    name: str, *, task: str, data: Path | None, model: str | None, strict: bool, tolerate: float, power: bool
) -> list[dict[str, Any]]:
    """Each task's users, queries, tokens and findings as JSON values; raises InputError as ``for_tasks`` does."""
    settings = Settings(protocol=name, data=data, strict=strict, tolerate=tolerate)
    planner = Planner(settings, say=lambda text: click.echo(text, err=True))
    protocol, canonical = load_protocol(name)

    def describe(the_task: Task) -> dict[str, Any]:
        found = planner.dataset(the_task)
        facts = _facts(the_task, found, protocol, model)
        shown = {"power": _power(planner.labelled(the_task), found)} if power else {}
        return {"task": the_task.name, "protocol": canonical, **facts, **shown}

    return for_tasks(task, describe)


def data_text(facts: Mapping[str, Any]) -> str:
    """One task's data, a fact a line."""
    users = f"{facts['users']:,} evaluated, {facts['shared_users']:,} shared"
    lines = {
        "hash": facts["hash"],
        "data": facts["label"],
        "licence": facts["licence"],
        "users": users,
        "queries per user": _spread(facts["queries"]),
        "history items per user": _spread(facts["history"]),
        "shared: queries per user": _spread(facts["shared_queries"]),
        "shared: history items per user": _spread(facts["shared_history"]),
        "answers": ", ".join(f"{label} {count}" for label, count in facts["labels"].items()),
        "words per answer": _spread(facts["gold_words"]),
    }
    if facts["tokens"]:
        lines |= {
            f"tokens ({facts['tokenizer']}, without BOS and EOS): a prompt": _spread(facts["tokens"]["prompts"]),
            "tokens: a user's history to train on": _spread(facts["tokens"]["histories"]),
            "tokens: a shared query to train on": _spread(facts["tokens"]["shared"]),
        }
    if power := facts.get("power"):
        lines["smallest difference"] = _power_text(power)
    texts = [f"{facts['task']} under {facts['protocol']}"]
    texts += [f"  {key}: {value}" for key, value in lines.items() if value]
    found = findings([Leak.from_json(*leak) for leak in facts["leaks"].items()])
    unknown = [name for name, leak in facts["leaks"].items() if leak["count"] is None]
    texts += [f"  leak check: {text}" for text in found or ["nothing found"]]
    if unknown:
        texts.append(f"  leak checks that this data cannot answer: {', '.join(unknown)}")
    texts += [f"  note: {note}" for note in facts["notes"]]
    texts += [f"  file: {source} sha256 {sha256}" for source, sha256 in facts["source_hashes"].items()]
    return "\n".join(texts)


def _facts(task: Task, data: Dataset, protocol: Protocol, model: str | None) -> dict[str, Any]:
    tokenizer = model or protocol.default_model
    return {
        "hash": data.hash,
        "label": data.label,
        "licence": None if data.licence is None else str(data.licence),
        **asdict(summarize(task, data)),
        "tokenizer": Path(tokenizer).name if tokenizer else None,
        "tokens": asdict(_tokens(task, data, tokenizer)) if tokenizer else None,
        "leaks": {leak.name: leak.to_json() for leak in data.leaks},
        "notes": list(data.notes),
        "reading": asdict(data.reading),
        "source_hashes": dict(data.sources),
    }


def _tokens(task: Task, data: Dataset, model: str) -> TokenSummary:
    from lampbench.backbone import describe_backbone, load_tokenizer

    tokenizer = load_tokenizer(describe_backbone(model, dtype="auto", device="cpu"))

    def count(texts: list[str]) -> list[int]:
        counts: list[int] = []
        for start in range(0, len(texts), _BATCH):
            encoded = tokenizer(texts[start : start + _BATCH], add_special_tokens=False)
            counts += [len(ids) for ids in encoded.input_ids]
        return counts

    return count_tokens(task, data, count)


def _power(task: Task, data: Dataset) -> dict[str, Any]:
    """What difference in the primary metric the users could show.

    No method has run. What two methods differ by at random, query by query, is taken from two guesses that are about
    equally good: the user's latest target, and the one before it.
    """
    import numpy as np

    from lampbench.metrics import additive, smallest_difference

    metric = task.primary
    known: dict[str, Any] = {"metric": metric.key, "users": 0, "queries": 0, "difference": None}
    asked = [user for user in data.labelled() if len(user.user.history) > 1]
    if not asked or not metric.linear:
        return known
    users = [entry.user.id for entry in asked for _ in entry.queries]
    golds = [query.target for entry in asked for query in entry.queries]
    guesses = [[entry.user.history[-back].target for entry in asked for _ in entry.queries] for back in (1, 2)]
    latest, earlier = (additive(task, guess, golds, users)[metric.key].own for guess in guesses)
    counts = np.array([len(entry.queries) for entry in asked], dtype=float)
    found = smallest_difference(latest - earlier, counts)
    return {**known, "users": len(asked), "queries": len(golds), "difference": found}


def _power_text(power: Mapping[str, Any]) -> str:
    if not power["users"]:
        return f"not known: {power['metric']} is not a mean over queries, or no user has two history items"
    on = f"by {power['users']:,} users with {power['queries']:,} queries"
    if power["difference"] is None:
        return f"none can be shown in {power['metric']} {on}; ask more users"
    return (
        f"{power['difference']:.3f} in {power['metric']} between two methods is shown (p < 0.05) in 80% of all trials "
        f"{on}; a simulation, with differences at random as between two guesses from a user's history"
    )


def _spread(spread: Mapping[str, Any] | None) -> str:
    if spread is None:
        return ""
    return f"median {spread['median']:,g}, largest {spread['largest']:,}, {spread['total']:,} in all"
