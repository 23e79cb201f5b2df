"""``row.json``: what a run becomes on a leaderboard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from statistics import fmean, quantiles
from typing import Any, Literal

from msgspec import UNSET, UnsetType, convert
from msgspec.structs import replace

import lampbench
from lampbench import rows
from lampbench.core import Parameters, file_sha256
from lampbench.data import Dataset, Fault
from lampbench.metrics import Score, invalid_outputs
from lampbench.rows import PHASES, SCHEMA_VERSION
from lampbench.runner._environment import command_line, environment, source_commit
from lampbench.runner._folder import RunFolder, state_bytes
from lampbench.runner._plan import Plan

__all__ = ["PHASES", "SCHEMA_VERSION", "finished_row", "now", "open_row"]


def open_row(
    plan: Plan,
    dataset: Dataset,
    folder: RunFolder,
    status: Literal["success", "failed", "incomplete"],
    error: str | None = None,
    where: Mapping[str, Any] | None = None,
) -> rows.RunRow:
    """The row of a run without a result: what was run, where, and how far it came.

    ``where`` is the environment that it ran in; None for this process.
    """
    commit, dirty = source_commit()
    sessions = [event for event in folder.journal() if event["event"] == "session_start"]
    return rows.RunRow(
        run_id=plan.run_id,
        status=status,
        identity=_identity(plan.identity),
        data=_data(dataset),
        environment=rows.Environment(
            **(where or environment(plan.backbone.device if plan.backbone else "cpu")), server=_server(folder)
        ),
        provenance=rows.Provenance(
            version=lampbench.__version__,
            commit=commit,
            dirty=dirty,
            plugin=rows.Origin(plan.plugin.distribution, plan.plugin.value),
            argv=command_line(),
            started=sessions[0]["time"] if sessions else None,
            finished=now() if status == "success" else None,
            resumed=max(0, len(sessions) - 1),
        ),
        error=error,
    )


def finished_row(
    plan: Plan,
    dataset: Dataset,
    folder: RunFolder,
    parameters: Parameters,
    scores: Mapping[str, Score],
    swapped: Mapping[str, Score] | None,
    checks: Mapping[str, Mapping[str, Any]],
    where: Mapping[str, Any] | None = None,
) -> rows.Row:
    """The row of a finished run: everything above with metrics, cost, checks and artifacts.

    ``swapped`` are the scores with other users' states, None if they were not asked for; ``checks`` what the
    isolation guards found; ``where`` as above.
    """
    events = folder.journal()
    opened = open_row(plan, dataset, folder, "success", where=where)
    outputs = list(folder.predictions().values())
    data = replace(
        opened.data,
        invalid_outputs=invalid_outputs(plan.task, outputs),
        lengths=_lengths(events),
        **_cut_prompts(events),
    )
    users = dataset.users
    state = rows.StateBytes(
        shared=state_bytes(folder.shared_state),
        per_user=round(sum(state_bytes(folder.user_state(user.id)) for user in users) / len(users)),
    )
    return rows.Row(
        run_id=opened.run_id,
        status="success",
        identity=opened.identity,
        data=data,
        metrics={key: _metric(score) for key, score in scores.items()},
        swap=None if swapped is None else {key: own.value for key, own in swapped.items()},
        cost=_cost(events, parameters, state),
        environment=opened.environment,
        provenance=opened.provenance,
        checks={
            "parameters": _parameter_check(events, parameters),
            **{name: rows.Check(**found) for name, found in checks.items()},
        },
        artifacts={
            path.name: file_sha256(path) for path in (folder.official_path, folder.predictions_path, folder.sums_path)
        },
    )


def now() -> str:
    """The time in the format of rows and journals: UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _identity(values: Mapping[str, Any]) -> rows.Identity:
    backbone = values["backbone"]
    return rows.Identity(**{**values, "backbone": convert(backbone, rows.BackboneIdentity) if backbone else None})


def _server(folder: RunFolder) -> rows.Server | None:
    """What the replies of a served model say about it; None if there is none."""
    if not folder.replies_path.exists():
        return None
    replies = folder.replies().values()
    sampled = [reply.top_k for reply in replies if reply.top_k is not None]
    return rows.Server(
        models=tuple(sorted({_without_folder(reply.model) for reply in replies if reply.model})),
        fingerprints=tuple(sorted({reply.fingerprint for reply in replies if reply.fingerprint})),
        top_k=all(sampled) if sampled else None,
    )


def _without_folder(model: str) -> str:
    """A model's name; if a server names it by its path, the last part."""
    return PurePosixPath(model).name if model.startswith(("/", "~", ".")) else model


def _data(data: Dataset) -> rows.Data:
    return rows.Data(
        label=data.label,
        users=len(data.users),
        queries=len(data.queries),
        history_items=sum(len(user.history) for user in data.users),
        shared_users=len(data.shared),
        shared_queries=sum(len(user.queries) for user in data.shared),
        source_hashes=dict(data.sources),
        leaks={leak.name: rows.LeakCount(leak.count, leak.of, leak.examples) for leak in data.leaks},
        notes=tuple(data.notes),
        reading=_reading(data),
        licence=UNSET if data.licence is None else data.licence.name,
    )


def _reading(data: Dataset) -> rows.Reading | UnsetType:
    """What was found while reading the files, in the row's form; unset if nothing."""
    found = data.reading

    def faulty(faults: Sequence[Fault]) -> tuple[rows.FaultyRecord, ...]:
        return tuple(rows.FaultyRecord(file=fault.file, id=fault.id, what=fault.what) for fault in faults)

    reading = rows.Reading(
        set_aside=faulty(found.set_aside),
        items_set_aside=faulty(found.items_set_aside),
        mended=faulty(found.mended),
        ignored_fields=dict(found.ignored_fields),
        repeated_items=found.repeated_items,
        users_without_history=sum(not user.history for user in data.users),
    )
    return UNSET if reading == rows.Reading() else reading


def _metric(score: Score) -> rows.MetricValue:
    """A metric in the shape of every other; null is "not measured" or not a finite number."""
    return rows.MetricValue(
        value=score.micro.value,
        ci95=score.micro.ci95,
        stderr=score.micro.stderr,
        n=score.n,
        n_users=score.n_users,
        macro=None if score.macro is None else rows.Interval(score.macro.value, score.macro.ci95, score.macro.stderr),
        higher_is_better=score.higher_is_better,
        primary=score.primary,
        official=UNSET if score.official is None else str(score.official),
    )


def _cost(events: Sequence[Mapping[str, Any]], parameters: Parameters, state: rows.StateBytes) -> rows.Cost:
    """What all sessions of the run cost together, from its journal."""
    measured = [event for event in events if event["event"] in PHASES]
    by_phase = {phase: [event for event in measured if event["event"] == phase] for phase in PHASES}
    seconds = {phase: sum(event["seconds"] for event in own) if own else None for phase, own in by_phase.items()}
    untracked = sum(event["untracked"] for event in events if event["event"] == "session_end")
    return rows.Cost(
        parameters=rows.ParameterCounts(parameters.shared, parameters.per_user),
        seconds=rows.PhaseSeconds(**seconds, untracked=untracked),
        taken=_taken(by_phase["fit_shared"]),
        elapsed=sum(map(_elapsed, _sessions(events))),
        check_seconds=sum(event["seconds"] for event in events if event["event"] == "check"),
        seconds_per_user=_spread(by_phase["adapt"]),
        memory={phase: _peak(event["memory"] for event in own) for phase, own in by_phase.items() if own},
        tokens=rows.Tokens(
            train=_total(by_phase["fit_shared"] + by_phase["adapt"], "train_tokens"),
            prompt=_total(by_phase["predict"], "prompt_tokens"),
            generated=_total(by_phase["predict"], "generated_tokens"),
            adapt_prompt=_total(by_phase["adapt"], "prompt_tokens"),
            adapt_generated=_total(by_phase["adapt"], "generated_tokens"),
        ),
        bytes=state,
    )


def _taken(events: Sequence[Mapping[str, Any]]) -> rows.TakenStage | None:
    """Where the shared stage comes from; None if this run trained it, or has none."""
    taken = events[-1].get("taken") if events else None
    return None if taken is None else rows.TakenStage(**taken)


def _sessions(events: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The events of each session."""
    sessions: list[list[Mapping[str, Any]]] = []
    for event in events:
        if event["event"] == "session_start" or not sessions:
            sessions.append([])
        sessions[-1].append(event)
    return sessions


def _elapsed(session: Sequence[Mapping[str, Any]]) -> float:
    """Seconds by the clock from a session's start to its end, or to its last known event.

    Several workers use more seconds in that time; those are in ``seconds``.
    """
    ends = [event["elapsed"] for event in session if event["event"] == "session_end" and "elapsed" in event]
    shards = [event["at"] for event in session if event["event"] == "shard"]
    if ends or shards:
        return float(max([*ends, *shards]))
    return float(sum(event.get("seconds", 0.0) + event.get("untracked", 0.0) for event in session))


def _cut_prompts(events: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """How many prompts were cut: of queries, context and text separately; and while adapting."""
    asked = [event for event in events if event["event"] == "predict"]
    learned = [event for event in events if event["event"] in ("fit_shared", "adapt")]
    parts = [_total(learned, name) for name in ("cut_contexts", "cut_sources")]
    return {
        "cut_contexts": _total(asked, "cut_contexts"),
        "cut_sources": _total(asked, "cut_sources"),
        "cut_while_adapting": None if None in parts else sum(part or 0 for part in parts),
    }


def _lengths(events: Sequence[Mapping[str, Any]]) -> rows.Lengths | None:
    """How long the queries' prompts and answers were, over all sessions; None if no model counted them."""
    asked = [event for event in events if event["event"] == "predict" and "prompts" in event["tokens"]]
    if not asked:
        return None
    total = {name: sum(event["tokens"][name] for event in asked) for name in asked[0]["tokens"]}

    def mean(name: str, of: str) -> float | None:
        return total[name] / total[of] if total[of] else None

    return rows.Lengths(
        prompt_mean=mean("prompt_tokens", "prompts"),
        prompt_longest=max(event["tokens"]["longest_prompt"] for event in asked) if total["prompts"] else None,
        answer_mean=mean("answer_tokens", "answers"),
        at_limit=mean("answers_at_limit", "answers"),
        thought_mean=mean("thought_tokens", "answers"),
        unfinished_thoughts=total["unfinished_thoughts"] if total["answers"] else None,
    )


def _parameter_check(events: Sequence[Mapping[str, Any]], reported: Parameters) -> rows.Check:
    """Whether the method's own count is what an optimizer held, stage by stage; null: not checked."""
    counts = {
        phase: [event["optimizer_parameters"] for event in events if event["event"] == phase]
        for phase in ("fit_shared", "adapt")
    }
    said = {"fit_shared": reported.shared, "adapt": reported.per_user}
    if any(count is None for own in counts.values() for count in own):
        return rows.Check(passed=None, optimizers_held=None, reported=said)
    held = {phase: max(own, default=0) for phase, own in counts.items()}
    return rows.Check(passed=held == said, optimizers_held=held, reported=said)


def _total(events: Iterable[Mapping[str, Any]], name: str) -> int | None:
    counts = [event["tokens"][name] for event in events if name in event["tokens"]]
    return sum(counts) if counts else None


def _peak(memories: Iterable[Mapping[str, int | None]]) -> dict[str, int | None]:
    peaks: dict[str, int | None] = {}
    for memory in memories:
        for name, value in memory.items():
            known = peaks.get(name)
            peaks[name] = value if known is None else max(known, value or 0)
    return peaks


def _spread(events: Sequence[Mapping[str, Any]]) -> rows.UserSeconds | None:
    """Seconds of adaptation per user; users adapted together share their time equally."""
    seconds = [event["seconds"] / len(event["users"]) for event in events for _ in event["users"]]
    if not seconds:
        return None
    percentiles = quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
    return rows.UserSeconds(mean=fmean(seconds), p50=percentiles[9], p95=percentiles[18])
