"""Results as records of Every Eval Ever, schema 0.3.0 (https://github.com/evaleval/every_eval_ever, MIT)."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from lampbench.core import Metric, Task, tasks
from lampbench.data import SYNTHETIC
from lampbench.leaderboard._results import Result
from lampbench.metrics import RESAMPLES
from lampbench.rows import MetricValue, Row

SCHEMA = "0.3.0"
_LAMP = "https://lamp-benchmark.github.io"
_OURS = "lampbench"
_BOOTSTRAP = "bootstrap over users, and over the queries of each"


def eee_records(results: Sequence[Result], organization: str) -> dict[PurePosixPath, str]:
    """Path below a datastore -> JSON text: a record per run, the same for the same run.

    Args:
        results: What to export; a run without a finite score has no record.
        organization: Who ran them.
    """
    records = {}
    for result in results:
        record = _record(result.row, tasks().load(result.identity.task), organization)
        if record["evaluation_results"]:
            place = PurePosixPath("data", _OURS, *record["model_info"]["id"].split("/", 1))
            records[place / f"{_uuid(result.row.run_id)}.json"] = json.dumps(record, indent=1, allow_nan=False) + "\n"
    return records


def _record(row: Row, task: Task, organization: str) -> dict[str, Any]:
    own, model = row.identity, _model(row)
    time = row.provenance.finished or row.provenance.started
    stamp = str(int(datetime.fromisoformat(time).timestamp())) if time else "0"
    name = f"{_OURS}.{own.task}.{own.method}.{row.run_id}"
    known = {metric.key: metric for metric in task.metrics}
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{name}/{model['id']}/{stamp}",
        "evaluation_timestamp": stamp,
        # Of the row, and not of this file, so that the same results give the same bytes.
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": "LampBench",
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": "other",
        },
        "model_info": model,
        "eval_library": {"name": _OURS, "version": row.provenance.version},
        "evaluation_results": [
            _result(row, key, metric, known.get(key), stamp)
            for key, metric in row.metrics.items()
            if metric.value is not None
        ],
    }


def _model(row: Row) -> dict[str, Any]:
    """The language model with the method that personalizes it."""
    own = row.identity.backbone
    details = {"deployment_type": "unknown", "model_availability": "unknown", "method": row.identity.method}
    if own is None:
        return {
            "name": f"{row.identity.method} (no language model)",
            "id": f"{_OURS}/none",
            "additional_details": details,
        }
    served = row.environment.server is not None
    details |= {"deployment_type": "unknown" if served else "self_deployed", "revision": own.revision}
    details |= {"precision": own.precision, **({} if served else {"model_availability": "open_weights"})}
    return {
        "name": own.id,
        # Whose a folder is, nobody knows.
        "id": own.id if "/" in own.id else f"{_OURS if row.data.label else 'unknown'}/{own.id}",
        "additional_details": details,
    }


def _result(row: Row, key: str, metric: MetricValue, known: Metric | None, stamp: str) -> dict[str, Any]:
    own = row.identity
    about = f"{own.task} under {own.protocol}, method {own.method}"
    title = f"{row.data.label}: {about}" if row.data.label else about
    low, high = known.bounds if known else (None, None)
    return {
        "evaluation_result_id": f"{row.run_id}.{key}",
        "evaluation_name": title,
        "evaluation_timestamp": stamp,
        "source_data": _source(row),
        "metric_config": {
            "evaluation_description": f"{title}. {SYNTHETIC}" if row.data.label else title,
            "metric_id": key,
            "metric_name": key,
            "lower_is_better": not metric.higher_is_better,
            "score_type": "continuous",
            "min_score": _bound(low),
            "max_score": _bound(high),
            "additional_details": {"primary": str(metric.primary).lower()},
        },
        "score_details": {"score": metric.value, "uncertainty": _uncertainty(metric)},
        "generation_config": _generation(row),
    }


def _source(row: Row) -> dict[str, Any]:
    details = {
        "protocol": row.identity.protocol,
        "protocol_hash": row.identity.protocol_hash,
        "users": str(row.data.users),
        "queries": str(row.data.queries),
    }
    if row.data.label:
        details |= {"label": row.data.label, "synthetic": "true"}
    if isinstance(row.data.licence, str):
        # Only LaMP's own data has a known licence.
        details["licence"] = row.data.licence
        name = f"LaMP: {row.identity.task}"
        return {"dataset_name": name, "source_type": "url", "url": [_LAMP], "additional_details": details}
    name = row.data.label or f"{row.identity.task} under {row.identity.protocol}"
    return {"dataset_name": name, "source_type": "other", "additional_details": details}


def _uncertainty(metric: MetricValue) -> dict[str, Any]:
    found: dict[str, Any] = {"num_samples": metric.n}
    if metric.stderr is not None:
        found["standard_error"] = {"value": metric.stderr, "method": _BOOTSTRAP}
    if metric.ci95 is not None:
        lower, upper = metric.ci95
        found["confidence_interval"] = {
            "lower": lower, "upper": upper, "confidence_level": 0.95, "method": _BOOTSTRAP,
        }  # fmt: skip
        found["num_bootstrap_samples"] = RESAMPLES
    return found


def _generation(row: Row) -> dict[str, Any]:
    """How answers were made, and what was trained for it; no command line, which may name folders."""
    own, decoding = row.identity, row.identity.decoding or {}
    arguments: dict[str, Any] = {}
    if "max_new_tokens" in decoding:
        arguments["max_tokens"] = decoding["max_new_tokens"]
    if decoding.get("mode") == "greedy":
        arguments["temperature"] = 0.0
    arguments |= {name: decoding.get("sampling", {}).get(name) for name in decoding.get("sampling", {})}
    details = {
        "method": own.method,
        "method_version": str(own.method_version),
        "config": json.dumps(own.config, sort_keys=True),
        "decoding": json.dumps(decoding, sort_keys=True),
        "seed": str(own.seed),
        "trained_parameters_shared": str(row.cost.parameters.shared),
        "trained_parameters_per_user": str(row.cost.parameters.per_user),
        "run_id": row.run_id,
    }
    return {"generation_args": arguments, "additional_details": details}


def _bound(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return "Infinity" if value > 0 else "-Infinity"


def _uuid(run_id: str) -> uuid.UUID:
    """A version 4 UUID that is the same for the same run."""
    return uuid.UUID(bytes=hashlib.sha256(f"{_OURS} {run_id}".encode()).digest()[:16], version=4)
