"""How long a run takes on many workers, what it stores and moves, and what is full first: a model.

    python benchmarks/scale_plan.py                  # the table of docs/scale.md
    python benchmarks/scale_plan.py --seconds 2.5 --state 0.3 --users 20000 --gpus 16

Time is the shared stage on one GPU, then users spread evenly, then the last shard, for which others wait. Seconds a
user are given, or follow from a model's size: no GPU was at hand, so nothing in the table is a measurement but
what the driver takes for a shard and reads a second. `scale.py` compares the same model with measured runs on the CPU.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

# Llama-2-7B: parameters, layers, parameters a layer; 512 tokens a prompt, 100 items a history, 2 epochs, 5 queries.
_N, _LAYERS, _LAYER, _TOKENS, _ITEMS, _EPOCHS, _QUERIES = 6.74e9, 32, 0.2024e9, 512, 100, 2, 5
# An H100's bfloat16 peak, and the share of it that training is taken to reach.
_FLOPS = 989e12 * 0.4
_SHARED_QUERIES, _SHARED_EPOCHS = 20_000, 3
# Measured on one CPU core: the driver's time for a shard, and how fast it hashes what a worker wrote.
_DRIVER_SECONDS, _HASH_BYTES = 0.02, 1.2e9
_USERS_AT_ONCE = 64


@dataclass(frozen=True)
class MethodCost:
    """What a user costs.

    Attributes:
        seconds: Of one GPU, adapting and answering.
        state: Bytes.
        shared: Seconds of the shared stage, which one GPU does.
    """

    name: str
    seconds: float
    state: float
    shared: float


@dataclass(frozen=True)
class Forecast:
    """One line of the plan: hours, bytes stored, bytes a second into storage, and the driver's share of its time."""

    hours: float
    shared_hours: float
    state: float
    traffic: float
    driver: float


def oppu() -> MethodCost:
    """LoRA r=8 on q and v in float32: every token passes every layer forward and backward (4 N L)."""
    example = 4 * _N * _TOKENS
    adapting = _ITEMS * _EPOCHS * example / _FLOPS
    return MethodCost(
        "oppu", adapting + _answering(), 4_194_304 * 4, _SHARED_QUERIES * _SHARED_EPOCHS * example / _FLOPS
    )


def perfit(layer: int = 15, rank: int = 8) -> MethodCost:
    """One intervention: below its layer one forward pass, whose hidden states are kept; above it as any training."""
    below = 2 * layer * _LAYER * _TOKENS
    above = 4 * (_LAYERS - layer) * _LAYER * _TOKENS
    adapting = _ITEMS * (below + _EPOCHS * above) / _FLOPS
    shared = _SHARED_QUERIES * (below + _SHARED_EPOCHS * above) / _FLOPS
    return MethodCost("perfit", adapting + _answering(), (2 * 4096 * rank + rank) * 4, shared)


def _answering() -> float:
    """Reading the prompts; writing 64 tokens reads the weights 64 times for 32 prompts together."""
    return _QUERIES * 2 * _N * _TOKENS / _FLOPS + _QUERIES / 32 * 64 * 2 * _N / 3.35e12


def forecast(method: MethodCost, users: int, gpus: int) -> Forecast:
    """What ``users`` of a method take on ``gpus``."""
    shard = min(_USERS_AT_ONCE, -(-users // (3 * gpus)))
    spread = users * method.seconds / gpus + shard * method.seconds / 2
    rate = gpus / method.seconds
    driver = rate / shard * _DRIVER_SECONDS + rate * method.state / _HASH_BYTES
    hours = (method.shared + spread * max(1.0, driver)) / 3600
    return Forecast(hours, method.shared / 3600, users * method.state, rate * method.state, driver)


def scheduled(runs: Sequence[tuple[float, Sequence[float]]], workers: int) -> float:
    """Seconds until the units of several runs are done, each taken by the first worker that is free.

    Args:
        runs: Of each run, seconds of its shared stage, and of its shards, which come after it.
        workers: How many.
    """
    free = [0.0] * workers
    waiting = [(0.0, -max(stage, 1e-9), run) for run, (stage, _) in enumerate(runs)]
    ended = 0.0
    heapq.heapify(waiting)
    while waiting:
        # Of what can begin when a worker is next free, the longest.
        now = max(heapq.heappop(free), waiting[0][0])
        ready = [unit for unit in waiting if unit[0] <= now]
        unit = min(ready, key=lambda unit: unit[1])
        waiting.remove(unit)
        heapq.heapify(waiting)
        end = now - unit[1]
        heapq.heappush(free, end)
        ended = max(ended, end)
        if unit[2] >= 0:
            for seconds in runs[unit[2]][1]:
                heapq.heappush(waiting, (end, -seconds, -1))
    return ended


def main() -> None:
    """Print the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="of one GPU a user, as a row says: adapting and answering")
    parser.add_argument("--state", type=float, default=1.0, help="MB a user")
    parser.add_argument("--shared", type=float, default=0.0, help="seconds of the shared stage")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--gpus", type=int, default=8)
    options = parser.parse_args()
    sizes = [(1_000, 8), (100_000, 64), (1_000_000, 512)]
    costs = [perfit(), oppu()]
    if options.seconds:
        sizes = [(options.users, options.gpus)]
        costs = [MethodCost("given", options.seconds, options.state * 1e6, options.shared)]
    print("| method | users | GPUs | s/user | hours | of which shared | state | into storage | driver busy |")
    print("|---|---|---|---|---|---|---|---|---|")
    for cost in costs:
        for users, gpus in sizes:
            line = forecast(cost, users, gpus)
            print(
                f"| {cost.name} | {users:,} | {gpus} | {cost.seconds:.1f} | {line.hours:.1f} | "
                f"{line.shared_hours:.1f} | {line.state / 1e9:,.1f} GB | {line.traffic / 1e6:,.0f} MB/s | "
                f"{line.driver:.0%} |"
            )


if __name__ == "__main__":
    main()
