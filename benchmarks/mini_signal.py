"""Is the mini suite honest? Reads finished runs and checks what personalization is worth on it.

    lampbench run --method all --task all
    python benchmarks/mini_signal.py runs

For each task: zero-shot against chance and against each method (paired over users, sign-flip
permutation test), every method against what is attainable given the noise, and how much of PerFit's
gain is left when each user gets another user's state. Writes a Markdown table to standard output.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from lampbench.core import Task, tasks
from lampbench.data.mini import ideal_outputs
from lampbench.metrics import score
from lampbench.rows import Row
from lampbench.runner import Plan, Planner, RunFolder, Settings

_PERMUTATIONS = 20_000
_METHODS = (
    *("majority", "rag", "pag", "lora", "user-lora", "oppu", "reft", "perfit"),
    *("cope", "style-vector", "lofit", "lora-bank", "user-prefix", "pplug"),
)


def main() -> None:
    """Print one table: a column per task, a row per method."""
    runs = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
    planner = Planner(Settings(out=runs))
    found = [_column(planner, tasks().load(name)) for name in tasks().names()]
    print(f"| | {' | '.join(tasks().names())} |")
    print("|---" * (1 + len(found)) + "|")
    for name in found[0]:
        print(f"| {name} | {' | '.join(column[name] for column in found)} |")


def _column(planner: Planner, task: Task) -> dict[str, str]:
    """What is said of one task: row -> text."""
    plans = {method: _plan(planner, method, task) for method in ("zero-shot", *_METHODS)}
    data = plans["zero-shot"].dataset
    golds = [data.golds[query.id] for query in data.queries]
    users = [query.user_id for query in data.queries]

    def per_user(outputs: dict[str, str]) -> np.ndarray:
        """The primary metric of each user; larger is better."""
        values = []
        for user in data.users:
            rows = [i for i, owner in enumerate(users) if owner == user.id]
            own = score(task, [outputs[data.queries[i].id] for i in rows], [golds[i] for i in rows])
            values.append(own[task.primary.key].value)
        return np.array(values) * (1 if task.primary.higher_is_better else -1)

    def value(outputs: dict[str, str]) -> float:
        overall = score(task, [outputs[query.id] for query in data.queries], golds)[task.primary.key].value
        return float("nan") if overall is None else overall

    outputs = {method: RunFolder(plan.folder).predictions() for method, plan in plans.items()}
    base = per_user(outputs["zero-shot"])
    chance = {query.id: "3" if task.kind == "rating" else "" for query in data.queries}
    swapped = _swapped(plans["perfit"])
    gain, kept = value(outputs["perfit"]) - value(outputs["zero-shot"]), value(swapped) - value(outputs["zero-shot"])
    return {
        "metric": task.primary.key,
        "chance": "0.067" if task.kind == "labels" else f"{value(chance):.3f}",
        "zero-shot": f"{value(outputs['zero-shot']):.3f}",
        **{method: f"{value(outputs[method]):.3f} ({_p(per_user(outputs[method]) - base)})" for method in _METHODS},
        "attainable": f"{value(ideal_outputs(task.name)):.3f}",
        "PerFit, another user's state": f"{value(swapped):.3f} ({kept / gain:.0%} of the gain)",
    }


def _plan(planner: Planner, method: str, task: Task) -> Plan:
    plan = planner.plan(method, task.name, {})
    if not isinstance(plan, Plan) or not isinstance(RunFolder(plan.folder).row(), Row):
        sys.exit(f"no finished run of {method} on {task.name} below {planner.settings.out}: run lampbench first")
    return plan


def _p(differences: np.ndarray) -> str:
    """Two-sided sign-flip permutation test of the mean difference over users, as ``p=…`` or ``p<0.001``."""
    generator = np.random.default_rng(0)
    signs = generator.choice([-1.0, 1.0], size=(_PERMUTATIONS, len(differences)))
    extreme = np.abs((signs * differences).mean(axis=1)) >= abs(differences.mean()) - 1e-12
    p = float((1 + extreme.sum()) / (1 + _PERMUTATIONS))
    return "p<0.001" if p < 0.001 else f"p={p:.3f}"


def _swapped(plan: Plan) -> dict[str, str]:
    """PerFit's answers when every user gets the next user's saved state."""
    from lampbench.backbone import Decoding, TransformersBackbone

    assert plan.backbone is not None
    backbone = TransformersBackbone.load(plan.backbone, decoding=Decoding(), batch_size=16, seed=plan.settings.seed)
    method = plan.method_type(task=plan.task, config=plan.config, seed=plan.settings.seed, backbone=backbone)
    folder, data = RunFolder(plan.folder), plan.dataset
    method.load_shared(folder.shared_state, data.shared)
    for user, other in zip(data.users, [*data.users[1:], *data.users[:1]], strict=True):
        method.load_user(user, folder.user_state(other.id))
    return dict(zip([query.id for query in data.queries], method.predict(data.queries), strict=True))


if __name__ == "__main__":
    main()
