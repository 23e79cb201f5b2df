"""Measures what PerFit's paper claims, in parts; benchmarks/perfit_claims.py makes docs/perfit.md of the results.

    python benchmarks/perfit_measure.py parameters
    python benchmarks/perfit_measure.py time                            # the mini suite (synthetic)
    python benchmarks/perfit_measure.py time --data DATA --model MODEL --dtype bfloat16 --users 3
    python benchmarks/perfit_measure.py time --runs runs                # of finished runs, by the clock
    python benchmarks/perfit_measure.py ablations --task lamp5,lamp2m
    python benchmarks/perfit_measure.py accuracy --runs leaderboards/results --name mini
    python benchmarks/perfit_measure.py shifts --report shifts/shifts.json --name mini

Each part writes benchmarks/results/perfit-claims-PART.json and keeps what the file has of other data. Seconds are of
the processor on one thread, so other work on the machine changes them little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from driven import Driver, adapt_seconds, asked, shared_seconds

import lampbench
from lampbench.backbone import BackboneInfo, Decoding, TransformersBackbone, describe_backbone, load_tokenizer
from lampbench.core import BackboneShape, Method, RunContext, methods, tasks, use_threads, write_json
from lampbench.data import Dataset
from lampbench.data.mini.protocol import MiniProtocol
from lampbench.hub import ModelSource
from lampbench.leaderboard import compare, read_result
from lampbench.metrics import Additive, Difference, additive, difference
from lampbench.rows import Row, read_run_row
from lampbench.runner import Plan, Settings, environment

RESULTS = Path(__file__).parent / "results"
PAIR = ("oppu", "perfit")
ENGINES = ("stacked", "solo")
PUBLISHED = {"preset": "lamp"}

# Changes of the settings that `mini` recommends, one at a time.
VARIANTS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("as recommended", "perfit", {}),
    ("stage 2 alone (reft)", "reft", {"rank": 8}),
    *((f"user rank {rank}", "perfit", {"user_rank": rank}) for rank in (1, 4, 16)),
    *((f"positions {places}", "perfit", {"positions": places}) for places in ("l4", "f4", "f1+l1")),
    *((f"layer {layer} alone", "perfit", {"layers": (layer,)}) for layer in (1, 3, 5)),
    *((f"shared rank {rank}", "perfit", {"shared_rank": rank}) for rank in (1, 32)),
    ("users start from stage 1's copy", "perfit", {"user_start": "copy"}),
)
# Reported beside the first variant, whose stage 1 it is.
STAGE_1 = "stage 1 alone"


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(_PARTS))
    parser.add_argument("--task", default="lamp5", help="names, comma-separated")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2, help="how often each time is measured")
    parser.add_argument("--data", type=Path, help="a folder in LaMP's layout; default: the mini suite")
    parser.add_argument("--model", help="default: the mini suite's")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--name", default="mini", help="what the data and model are called on the page")
    parser.add_argument("--variants", default="", help="only ablations whose names begin so, comma-separated")
    parser.add_argument("--runs", type=Path, help="finished runs of oppu and perfit, for accuracy and time")
    parser.add_argument("--report", type=Path, help="shifts.json of lampbench analyze, for shifts")
    given = parser.parse_args()
    use_threads(1)
    path = RESULTS / f"perfit-claims-{given.part}.json"
    record = json.loads(path.read_text("utf-8")) if path.exists() else {"measured": {}}
    record |= {"lampbench": lampbench.__version__, "environment": environment("cpu")}
    for key, found in _PARTS[given.part](given):
        record["measured"].setdefault(given.name, {})[key] = found
        write_json(path, record)
        print(given.name, key, found, flush=True)


def _driver(given: argparse.Namespace) -> Driver:
    data = {} if given.data is None else {"protocol": "folder", "data": given.data}
    return Driver(Settings(users=given.users, model=given.model, dtype=given.dtype, device="cpu", threads=1, **data))


def parameters(given: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """What each stage trains at Llama-2-7B's shape, counted by the methods; no weights are needed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = BackboneShape(layers=32, width=4096, context=4096)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig())
    info = BackboneInfo(ModelSource("Llama-2-7B", "its shape", "none", local=True), "float32", "meta", shape)
    bundled = MiniProtocol.default_model
    tokenizer = load_tokenizer(describe_backbone(bundled, device="cpu"))
    backbone = TransformersBackbone(info, model, tokenizer, decoding=Decoding(), batch_size=1, seed=0)
    for name in tasks().names():
        task, counts = tasks().load(name), {}
        for method in PAIR:
            kind = methods().load(method)
            config = kind.resolve(kind.Config(), task, RunContext("lamp-time", shape))
            own = kind(task=task, config=config, seed=0, backbone=backbone).parameters()
            counts[method] = (own.shared, own.per_user)
        trained, personal = counts["perfit"]
        oppu_shared, oppu_personal = counts["oppu"]
        # Stage 1 trains the users' common start as well; the paper counts the collective shift alone.
        collective = trained - personal
        yield (
            name,
            {
                "oppu": counts["oppu"],
                "perfit": (collective, personal),
                "trained in stage 1": trained,
                "reductions": (1 - collective / oppu_shared, 1 - personal / oppu_personal),
            },
        )


def time(given: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Seconds of both stages of OPPU and PerFit with published settings, in either engine, in turn."""
    if given.runs:
        yield from _time_of_runs(given.runs)
        return
    driver = _driver(given)
    for task in given.task.split(","):
        plans = {name: driver.plan(name, task, PUBLISHED) for name in PAIR}
        laps: dict[str, dict[str, dict[str, list[float]]]] = {
            engine: {name: {"shared": [], "users": []} for name in PAIR} for engine in ENGINES
        }
        for number in range(given.rounds):
            for engine in ENGINES:
                for name in PAIR if number % 2 else PAIR[::-1]:
                    method, data = driver.method(plans[name], engine), plans[name].dataset
                    laps[engine][name]["shared"].append(shared_seconds(method, data))
                    laps[engine][name]["users"].append(adapt_seconds(method, data))
        data = plans["oppu"].dataset
        yield (
            task,
            {
                "users": len(data.users),
                "items": sum(len(user.history) for user in data.users),
                "shared_queries": sum(len(user.queries) for user in data.shared),
                "clock": "processor",
                "seconds": laps,
            },
        )


def _time_of_runs(runs: Path) -> Iterator[tuple[str, Any]]:
    """The same of finished runs with published settings, by the clock."""
    for task, preset, folders in _pairs(runs):
        rows = {name: read_result(folder).row for name, folder in folders.items()}
        own = rows["perfit"]
        if preset == PUBLISHED["preset"]:
            seconds = {
                name: {"shared": [row.cost.seconds.fit_shared], "users": [row.cost.seconds.adapt]}
                for name, row in rows.items()
            }
            yield (
                task,
                {
                    "users": own.data.users,
                    "items": own.data.history_items,
                    "shared_queries": own.data.shared_queries,
                    "clock": "clock",
                    "seconds": {own.identity.engine: seconds},
                },
            )


def ablations(given: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """What PerFit scores on evaluated users under other settings: a report, from which nothing is chosen."""
    driver = _driver(given)
    for task in given.task.split(","):
        plan = driver.plan("zero-shot", task, {})
        base = _scored(plan, asked(driver.method(plan), plan.dataset).answers)
        found: dict[str, Any] = {"users": len(plan.dataset.users), "zero-shot": base.micro, "variants": {}}
        recommended: Additive | None = None
        with tempfile.TemporaryDirectory() as folder:
            for name, kind, settings in VARIANTS:
                if recommended is not None and not name.startswith(tuple(given.variants.split(","))):
                    continue
                plan = driver.plan(kind, task, settings)
                method = driver.method(plan)
                _share(method, plan, Path(folder))
                alone = _scored(plan, tuple(method.predict(plan.dataset.queries))) if recommended is None else None
                own = _scored(plan, asked(method, plan.dataset).answers)
                found["variants"][name] = _outcome(plan, own, base, recommended) | {
                    "per_user": method.parameters().per_user
                }
                if alone is not None:
                    found["variants"][STAGE_1] = _outcome(plan, alone, base, own) | {"per_user": 0}
                recommended = recommended or own
                # After every variant, so that an interrupted command has measured something.
                yield task, found


def _share(method: Method, plan: Plan, folder: Path) -> None:
    """Train the shared stage, or load it if an earlier variant had the same."""
    own = plan.method_type.shared_identity(plan.config)
    place = folder / f"{abs(hash(repr(own)))}"
    if place.exists():
        method.load_shared(place, plan.dataset.shared)
        return
    method.fit_shared(plan.dataset.shared)
    place.mkdir()
    method.save_shared(place)


def _scored(plan: Plan, answers: tuple[str, ...]) -> Additive:
    data: Dataset = plan.dataset
    golds, users = [data.golds[query.id] for query in data.queries], [query.user_id for query in data.queries]
    return additive(plan.task, answers, golds, users)[plan.task.primary.key]


def _outcome(plan: Plan, own: Additive, base: Additive, recommended: Additive | None) -> dict[str, Any]:
    against = {"zero-shot": base} | ({} if recommended is None else {"recommended": recommended})
    gaps = {name: _gap(difference([own], [other])) for name, other in against.items()}
    return {"metric": plan.task.primary.key, "score": own.micro, "against": gaps}


def accuracy(given: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """PerFit minus OPPU on the same queries, of finished runs."""
    for task, preset, folders in _pairs(given.runs):
        ours, theirs = (read_result(folders[name]) for name in ("perfit", "oppu"))
        found = compare([ours], [theirs], ("perfit", "oppu"))
        primary = tasks().load(task).primary
        yield (
            f"{task}, {preset}",
            {
                "metric": primary.key,
                "higher_is_better": primary.higher_is_better,
                "users": len(ours.users),
                "queries": ours.row.data.queries,
                "oppu": theirs.row.metrics[primary.key].value,
                "perfit": ours.row.metrics[primary.key].value,
                "difference": _gap(found.differences[primary.key]),
                "helped": found.moved.helped,
                "hurt": found.moved.hurt,
                "parameters": {
                    name: own.row.cost.parameters.per_user for name, own in (("oppu", theirs), ("perfit", ours))
                },
            },
        )


def _pairs(runs: Path) -> Iterator[tuple[str, str, dict[str, Path]]]:
    """Task, preset and folders of the finished runs of both methods with the same data, model, decoding and seed."""
    pairs: dict[tuple[str, ...], dict[str, Path]] = {}
    for path in sorted(runs.rglob("row.json")):
        row = read_run_row(path)
        if isinstance(row, Row) and row.identity.method in PAIR:
            own = row.identity
            preset = str(own.config.get("preset", "auto"))
            key = (own.task, preset, str(own.backbone), str(own.decoding_name), own.protocol_hash, str(own.limit))
            pairs.setdefault((*key, str(own.engine), str(own.seed)), {})[own.method] = path.parent
    for (task, preset, *_), folders in sorted(pairs.items()):
        if len(folders) == len(PAIR):
            yield task, preset, folders


def _gap(found: Difference) -> dict[str, Any]:
    return {"value": found.micro.value, "ci95": found.micro.ci95, "p": found.p}


def shifts(given: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """The numbers of both observations at the layer that the report shows."""
    report = json.loads(given.report.read_text("utf-8"))
    for own in report if isinstance(report, list) else report.get("tasks", [report]):
        shown = next(layer for layer in own["layers"] if layer["layer"] == own["shown_layer"])
        asked_items = own["identity"]["source"] == "history"
        yield (
            own["task"] + (", history items" if asked_items else ""),
            {
                **{name: own[name] for name in ("users", "queries", "width", "depth", "shown_layer")},
                "ranks": {name: shown[name]["ranks"] for name in ("raw", "centred")},
                "collective": {name: shown["collective"][name] for name in ("norm", "spread", "share", "chance")},
                "personal": shown["personal"],
            },
        )


_PARTS = {"parameters": parameters, "time": time, "ablations": ablations, "accuracy": accuracy, "shifts": shifts}


if __name__ == "__main__":
    main()
