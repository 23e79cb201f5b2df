"""Many users in one pass against one user after another: the whole user phase, side by side.

    python benchmarks/engine.py                              # the mini suite on this machine
    python benchmarks/engine.py --shape 7b --device cuda     # a 7B-shaped model with random weights

Every round runs each rung once, in turn, on the same users: preparing, training and answering.

    library   peft, or LoReFT modules (pyreft's where it is installed), in transformers' Trainer, a user at a
              time; answers by transformers' generate, one prompt at a time
    solo      --engine solo: a plain loop, a user at a time; answers a user at a time
    hygiene   the engine with one user at a time and nothing kept: logits and last layer at targets only, no
              backward below the lowest adapted layer, no attention mask
    caching   the same, keeping what never changes
    stacking  many users in one pass
    batched   the same, and answers for many users in one batch

The floor is what must be computed (floor.py) at the rate at which this machine multiplies matrices.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from floor import Savings, answering_flops, product_rate, training_flops
from library import library_phase
from tabulate import tabulate

import lampbench
from lampbench.adapters import (
    AdapterSpec,
    EngineOptions,
    InterventionSpec,
    LoraSpec,
    Positions,
    Recipe,
    State,
    TrainingJob,
    train_alone,
    train_together,
)
from lampbench.backbone import Adapter, BackboneInfo, Decoding, TransformersBackbone
from lampbench.core import BackboneShape, HistoryItem, Query, Task, User, tasks
from lampbench.hub import ModelSource
from lampbench.runner import environment

RUNGS = ("library", "solo", "hygiene", "caching", "stacking", "batched")
# Layers, width, MLP width, heads, key-value heads, vocabulary; sizes of SmolLM2-135M, Qwen2.5-0.5B and Llama-2-7B.
SHAPES = {
    "tiny": (4, 64, 128, 4, 2, 1536),
    "135m": (30, 576, 1536, 9, 3, 49_152),
    "0.5b": (24, 896, 4864, 14, 2, 151_936),
    "7b": (32, 4096, 11_008, 32, 32, 32_000),
}


@dataclass(frozen=True)
class Case:
    """One method's user phase."""

    name: str
    spec: AdapterSpec
    recipe: Recipe
    beneath: InterventionSpec | None = None

    def below(self, backbone: TransformersBackbone) -> list[Adapter]:
        """The frozen adapter of the shared stage; what it holds does not matter here."""
        return [] if self.beneath is None else [self.beneath.frozen(backbone, [self.beneath.fresh(backbone, 0)])]


@dataclass(frozen=True)
class Work:
    """The users and what they are asked."""

    backbone: TransformersBackbone
    task: Task
    users: Sequence[User]
    queries: Sequence[Query]

    def jobs(self, spec: AdapterSpec) -> list[TrainingJob]:
        return [
            TrainingJob(user.id, i, [self.task.pair(item) for item in user.history], [spec.fresh(self.backbone, i)])
            for i, user in enumerate(self.users)
        ]


def cases(backbone: TransformersBackbone, epochs: int, batch_size: int) -> list[Case]:
    layers = backbone.shape.layers
    recipe = Recipe(epochs, 1e-3, 1e-2, 0.1, 0.3, batch_size)
    middle = tuple(sorted({round(layer * layers / 32) for layer in ((14, 15, 16) if layers >= 32 else (10, 16, 21))}))
    everywhere, last = (InterventionSpec(middle, 8, Positions.parse(text)) for text in ("all", "l4"))
    return [
        Case("oppu", LoraSpec(8, 8.0, 0.05), recipe),
        Case("perfit all", everywhere, recipe, beneath=everywhere),
        Case("perfit l4", last, recipe, beneath=last),
    ]


def run_rung(rung: str, work: Work, case: Case) -> tuple[float, float]:
    """Seconds of training and of answering."""
    backbone, spec = work.backbone, case.spec
    clock = Clock(backbone.device)
    jobs, beneath = work.jobs(spec), case.below(backbone)
    if rung == "library":
        return library_phase(backbone, work.task, jobs, work.queries, spec, case.recipe, beneath, clock)
    if rung == "solo":
        states = {job.name: train_alone(backbone, job, [spec], case.recipe, beneath=beneath)[0] for job in jobs}
    else:
        options = {
            "hygiene": EngineOptions(users=1, constants=0, split_prompts=False),
            "caching": EngineOptions(users=1),
        }.get(rung, EngineOptions())
        trained = train_together(backbone, jobs, [spec], case.recipe, beneath=beneath, options=options)
        states = {job.name: state for job, (state,) in trained}
    training = clock.lap()
    answer(work, spec, states, beneath, together=rung == "batched")
    return training, clock.lap()


def answer(work: Work, spec: AdapterSpec, states: dict[str, State], beneath: list[Adapter], *, together: bool) -> None:
    backbone = work.backbone
    if together:
        names = list(states)
        prompts = [work.task.prompt(query.text, query.id) for query in work.queries]
        whose = [names.index(query.user_id) for query in work.queries]
        backbone.answer(work.task, prompts, [*beneath, spec.frozen(backbone, list(states.values()), whose)])
        return
    for name, state in states.items():
        prompts = [work.task.prompt(query.text, query.id) for query in work.queries if query.user_id == name]
        backbone.answer(work.task, prompts, [*beneath, spec.frozen(backbone, [state])])


class Clock:
    """Seconds between laps, the device synchronised."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self._last = self._now()

    def lap(self) -> float:
        before, self._last = self._last, self._now()
        return self._last - before

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def flops(work: Work, case: Case) -> dict[str, dict[str, float]]:
    """What each rung computes in training, and in answering; the last rung's is the least."""
    backbone = work.backbone
    pairs = [backbone.encoder.pair(work.task.pair(item)) for user in work.users for item in user.history]
    sizes = [(len(prompt), len(target)) for prompt, target in pairs]

    def train(savings: Savings) -> float:
        return training_flops(backbone, case.spec, case.recipe, sizes, savings=savings, beneath=case.beneath)

    plain, hygienic, least = train(Savings(False, False)), train(Savings(True, False)), train(Savings())
    before = (backbone.usage.prompt_tokens, backbone.usage.generated_tokens)
    states = {user.id: case.spec.fresh(backbone, 0) for user in work.users}
    answer(work, case.spec, states, case.below(backbone), together=True)
    queries = len(work.queries)
    read = (backbone.usage.prompt_tokens - before[0]) // queries
    written = (backbone.usage.generated_tokens - before[1]) // queries
    training = dict(zip(RUNGS, (plain, plain, hygienic, least, least, least), strict=True))
    return {
        "training": training,
        "answering": dict.fromkeys(RUNGS, answering_flops(backbone, [read] * queries, [written] * queries)),
    }


def mini_work(task_name: str, users: int, batch_size: int) -> Work:
    """The first users of the bundled suite, with its model."""
    from lampbench.runner import Plan, Planner, Settings

    plan = Planner(Settings(users=users, device="cpu")).plan("zero-shot", task_name, {})
    assert isinstance(plan, Plan)
    assert plan.backbone is not None
    data = plan.dataset.first_users(users)
    backbone = TransformersBackbone.load(plan.backbone, decoding=Decoding(), batch_size=batch_size, seed=0)
    return Work(backbone, plan.task, data.users, data.queries)


def random_work(shape: str, device: str, users: int, items: int, prompt: int, target: int, batch_size: int) -> Work:
    """Random weights and invented users whose texts have LaMP-5's lengths, in tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from lampbench.backbone import describe_backbone, load_tokenizer
    from lampbench.data.mini.protocol import MiniProtocol

    layers, width, mlp, heads, kv_heads, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        num_hidden_layers=layers, hidden_size=width, intermediate_size=mlp, num_attention_heads=heads,
        num_key_value_heads=kv_heads, vocab_size=vocabulary, max_position_embeddings=2048,
    )  # fmt: skip
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    model_of_mini = MiniProtocol().default_model
    assert model_of_mini is not None
    tokenizer = load_tokenizer(describe_backbone(model_of_mini, device="cpu"))
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        model = LlamaForCausalLM(config).eval().requires_grad_(False)
        torch.set_default_dtype(torch.float32)
    info = BackboneInfo(
        ModelSource(shape, shape, "random", local=True), str(dtype).removeprefix("torch."), device,
        BackboneShape(layers, width, 2048),
    )  # fmt: skip
    backbone = TransformersBackbone(info, model, tokenizer, decoding=Decoding(), batch_size=batch_size, seed=0)
    words = [word for word in (tokenizer.decode([i]).strip() for i in range(300, 1500)) if word.isalpha()]
    draw = random.Random(0)

    def text(tokens: int) -> str:
        length = draw.randint(tokens // 2, tokens * 3 // 2)
        return " ".join(draw.choice(words) for _ in range(length))

    task = tasks().load("lamp5")
    people = [
        User(f"u{u}", tuple(HistoryItem(f"{u}.{i}", text(prompt), text(target)) for i in range(items)))
        for u in range(users)
    ]
    return Work(backbone, task, people, [Query(f"q{u}", f"u{u}", text(prompt)) for u in range(users)])


def measure(work: Work, case: Case, rungs: Sequence[str], rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Medians over rounds; within a round every rung runs once."""
    seconds: dict[str, list[tuple[float, float]]] = {rung: [] for rung in rungs}
    rates = []
    memory = {}
    for _ in range(rounds):
        rates.append(product_rate(work.backbone))
        for rung in rungs:
            if work.backbone.device.startswith("cuda"):
                torch.cuda.reset_peak_memory_stats()
            seconds[rung].append(run_rung(rung, work, case))
            say(f"{case.name:12} {rung:9} train {seconds[rung][-1][0]:8.2f} s  answer {seconds[rung][-1][1]:7.2f} s")
            if work.backbone.device.startswith("cuda"):
                memory[rung] = torch.cuda.max_memory_allocated()
    rate = statistics.median(rates)
    needed = flops(work, case)
    least = {part: min(by_rung.values()) / rate for part, by_rung in needed.items()}
    result = {}
    for rung, laps in seconds.items():
        train, reply = (statistics.median(part) for part in zip(*laps, strict=True))
        result[rung] = {
            "training_seconds": train,
            "answering_seconds": reply,
            "training_flops": needed["training"][rung],
            "training_flops_a_second": needed["training"][rung] / train,
            "training_over_floor": train / least["training"],
            "users_an_hour": 3600 * len(work.users) / (train + reply),
            "peak_bytes": memory.get(rung),
        }
    return {"rungs": result, "floor_seconds": least, "product_rate": rate}


def table(results: dict[str, Any]) -> str:
    """All figures as a Markdown table, as docs/engine.md has it."""
    head = ("case", "rung", "training s", "answering s", "against library", "GFLOP to train", "GFLOP/s")
    rows = []
    for case, result in results.items():
        first, *_ = result["rungs"].values()
        base = first["training_seconds"] + first["answering_seconds"]
        for rung, values in result["rungs"].items():
            train, reply = values["training_seconds"], values["answering_seconds"]
            rows.append([
                case, rung, f"{train:.1f}", f"{reply:.1f}", f"{base / (train + reply):.2f}",
                f"{values['training_flops'] / 1e9:,.0f}", f"{values['training_flops_a_second'] / 1e9:.0f}",
                f"{values['training_over_floor']:.2f}",
            ])  # fmt: skip
        least, rate = result["floor_seconds"], f"{result['product_rate'] / 1e9:.0f}"
        rows.append([case, "*floor*", f"{least['training']:.1f}", f"{least['answering']:.1f}", "", "", rate, "1"])
    return tabulate(rows, (*head, "training over its floor"), tablefmt="github", disable_numparse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["mini", *SHAPES], default="mini")
    parser.add_argument("--task", default="lamp5", help="of the mini suite")
    parser.add_argument("--cases", default="oppu,perfit all,perfit l4")
    parser.add_argument("--rungs", default=",".join(RUNGS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--items", type=int, default=16, help="history items a user, of random models")
    parser.add_argument("--prompt", type=int, default=300, help="mean tokens of a text, of random models")
    parser.add_argument("--target", type=int, default=16, help="mean tokens of a target, of random models")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args()
    if given.shape == "mini":
        work = mini_work(given.task, given.users, 32)
    else:
        work = random_work(given.shape, given.device, given.users, given.items, given.prompt, given.target, 32)
    results = {}
    for case in cases(work.backbone, given.epochs, given.batch_size):
        if case.name in given.cases.split(","):
            results[case.name] = measure(work, case, given.rungs.split(","), given.rounds, print)
    print(table(results))
    if given.out:
        about = {name: str(value) for name, value in vars(given).items() if name != "out"}
        record = {"lampbench": lampbench.__version__, "about": about, "environment": environment(given.device)}
        given.out.write_text(json.dumps({**record, "cases": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
