"""``row.json``: what a run becomes on a leaderboard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

from lampbench.core import Parameters
from lampbench.metrics import Score

SCHEMA_VERSION = 1
PHASES = ("load", "fit_shared", "adapt", "predict", "score")


def metrics_json(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Every metric in the same shape; null is "not measured" or not a finite number."""
    return {
        key: {
            "value": score.value,
            "ci95": None,
            "stderr": None,
            "n": score.n,
            "n_users": score.n_users,
            "macro": score.macro,
            "higher_is_better": score.higher_is_better,
            "primary": score.primary,
        }
        for key, score in scores.items()
    }


def cost_json(events: Sequence[Mapping[str, Any]], parameters: Parameters, state_bytes: Mapping[str, int]) -> Any:
    """What all sessions of the run cost together, from its journal."""
    measured = [event for event in events if event["event"] in PHASES]
    by_phase = {phase: [event for event in measured if event["event"] == phase] for phase in PHASES}
    seconds: dict[str, float | None] = {
        phase: sum(event["seconds"] for event in own) if own else None for phase, own in by_phase.items()
    }
    seconds["untracked"] = sum(event["untracked"] for event in events if event["event"] == "session_end")
    return {
        "parameters": {"shared": parameters.shared, "per_user": parameters.per_user},
        "bytes": dict(state_bytes),
        "seconds": seconds,
        "seconds_per_user": _spread(by_phase["adapt"]),
        "memory": {phase: _peak(event["memory"] for event in own) for phase, own in by_phase.items() if own},
        "tokens": {
            "train": _total(by_phase["fit_shared"] + by_phase["adapt"], "train_tokens"),
            "prompt": _total(by_phase["predict"], "prompt_tokens"),
            "generated": _total(by_phase["predict"], "generated_tokens"),
            "adapt_prompt": _total(by_phase["adapt"], "prompt_tokens"),
            "adapt_generated": _total(by_phase["adapt"], "generated_tokens"),
        },
    }


def cut_json(events: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """How many prompts of queries did not fit whole."""
    own = [event for event in events if event["event"] == "predict"]
    return {name: _total(own, name) for name in ("cut_contexts", "cut_sources")}


def parameter_check(events: Sequence[Mapping[str, Any]], reported: Parameters) -> dict[str, Any]:
    """Whether the method's own count is what the optimizers held, stage by stage."""
    held = {
        phase: max((event.get("optimizer_parameters", 0) for event in events if event["event"] == phase), default=0)
        for phase in ("fit_shared", "adapt")
    }
    said = {"fit_shared": reported.shared, "adapt": reported.per_user}
    return {"passed": held == said, "optimizers_held": held, "reported": said}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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


def _spread(events: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Seconds of adaptation a user; users adapted together share their time equally."""
    seconds = [event["seconds"] / len(event["users"]) for event in events for _ in event["users"]]
    if not seconds:
        return None
    percentiles = quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
    return {"mean": fmean(seconds), "p50": percentiles[9], "p95": percentiles[18]}
