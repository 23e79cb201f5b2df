"""How often rank groups are split wrongly, and how often rightly, on made-up boards whose truth is known.

    python benchmarks/rank_error.py                  # all cells, some minutes
    python benchmarks/rank_error.py --boards 100 --methods 5
    python benchmarks/rank_error.py --out benchmarks/results/rank-error.json

A split is wrong if a group ends at a method that is, in truth, not worse than the group's best. Beside the procedure of
the boards is the one of the first boards, which tested every method against its group's best at an unadjusted 5%.

Users have uneven numbers of queries and differ in how hard they are, queries too, and methods differ in which users
they suit. Scores are an accuracy, a skewed error (lower is better), or macro-F1, which is no mean over queries. Truths:

equal         all methods are alike
unlike        all are equally good, but some serve all users alike and others some users well and some badly
one           the first method is better than all others, which are equal
several       a third of the methods are better, and equal
ladder        every method is a little worse than the one before
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import lampbench
from lampbench.core import metrics
from lampbench.metrics import Additive, Means, rank_groups
from lampbench.runner import environment

METRICS = {"accuracy": "accuracy", "error": "MAE", "macro-F1": "f1"}
METHODS, USERS = (2, 5, 9, 20), (12, 48)
TRUTHS = ("equal", "unlike", "one", "several", "ladder")
LEVEL = 0.05
_LABELS = 5
# How much better a better method is, in standard deviations of what makes an answer right.
_BETTER = 0.4

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Cell:
    """One kind of board."""

    metric: str
    truth: str
    methods: int
    users: int

    def quality(self) -> Array:
        """How good each method is, in truth; higher is better."""
        places = np.arange(self.methods)
        if self.truth in ("equal", "unlike"):
            return np.zeros(self.methods)
        if self.truth == "ladder":
            return -_BETTER * places / (self.methods - 1) * min(3, self.methods - 1)
        better = 1 if self.truth == "one" else max(2, self.methods // 3)
        return np.where(places < better, _BETTER, 0.0)


def made_board(cell: Cell, generator: np.random.Generator) -> Means:
    """The sums of all methods of one board."""
    count, users = cell.methods, cell.users
    sizes = 1 + (2 * generator.pareto(2.2, size=users)).astype(int).clip(0, 30)
    of = np.repeat(np.arange(users), sizes)
    taste = np.linspace(0.2, 2.0, count) if cell.truth == "unlike" else np.full(count, 0.5)
    hard = generator.normal(0, 0.7, users)[of] + generator.normal(0, 0.7, len(of))
    latent = hard + (taste[:, None] * generator.normal(size=(count, users)))[:, of]
    latent += generator.normal(0, 0.7, (count, len(of)))
    spread = np.sqrt(3 * 0.7**2 + taste**2)
    # In units of its own spread: equally good methods are right equally often, however they differ.
    latent = latent / spread[:, None] + cell.quality()[:, None]
    return Means([[own] for own in _SUMS[cell.metric](latent, of, users, generator)], resamples=400)


def _accuracy(latent: Array, of: Any, users: int, generator: np.random.Generator) -> Iterator[Additive]:
    for own in latent > 0:
        yield _additive("accuracy", np.stack([own, np.ones(len(own))], axis=1), of, users)


def _error(latent: Array, of: Any, users: int, generator: np.random.Generator) -> Iterator[Additive]:
    """Log-normal: a few answers are very wrong."""
    for own in np.exp(-1.2 * latent):
        yield _additive("MAE", np.stack([own, np.ones(len(own))], axis=1), of, users)


def _f1(latent: Array, of: Any, users: int, generator: np.random.Generator) -> Iterator[Additive]:
    """Users have favourite labels; a wrong answer is any other label."""
    likes = generator.dirichlet(np.full(_LABELS, 0.7), size=users)
    gold = np.array([generator.choice(_LABELS, p=likes[user]) for user in of])
    for own in latent > 0:
        wrong = (gold + generator.integers(1, _LABELS, size=len(of))) % _LABELS
        predicted, truth = np.eye(_LABELS)[np.where(own, gold, wrong)], np.eye(_LABELS)[gold]
        yield _additive("f1", np.concatenate([predicted * truth, predicted + truth], axis=1), of, users)


_SUMS: dict[str, Callable[..., Iterator[Additive]]] = {"accuracy": _accuracy, "error": _error, "macro-F1": _f1}


def _additive(key: str, terms: Array, of: Any, users: int) -> Additive:
    sums = np.zeros((users, terms.shape[1]))
    np.add.at(sums, of, terms)
    return Additive.of(metrics().load(key), sums)


def unadjusted(means: Means, order: list[int]) -> list[int]:
    """The ranks of the first boards: every method against the best of its group, at 5% each."""
    ranks: list[int] = []
    while len(ranks) < len(order):
        rest = order[len(ranks) :]
        p_values = means.p_values(rest[1:], rest[0]) if len(rest) > 1 else []
        alike = next((place for place, p in enumerate(p_values, 1) if p <= LEVEL), len(rest))
        ranks += [len(ranks) + 1] * alike
    return ranks


def judged(ranks: list[int], quality: list[float]) -> tuple[bool, float | None]:
    """Whether a group was split wrongly, and the share of the truly worse methods that are below the best's group.

    ``quality`` is in the order of the ranks.
    """
    starts = sorted(set(ranks))
    wrong = any(quality[new - 1] >= quality[old - 1] for old, new in pairwise(starts))
    worse = [rank > 1 for rank, own in zip(ranks, quality, strict=True) if own < max(quality)]
    return wrong, sum(worse) / len(worse) if worse else None


def simulate(cell: Cell, boards: int, compared: int) -> dict[str, Any]:
    """Boards of one kind; the unadjusted procedure is tried on the first ``compared``."""
    generator = np.random.default_rng([cell.methods, cell.users, TRUTHS.index(cell.truth), len(cell.metric)])
    higher = metrics().load(METRICS[cell.metric]).higher_is_better
    quality = cell.quality()
    ours, theirs = [], []
    for number in range(boards):
        means = made_board(cell, generator)
        order = sorted(range(cell.methods), key=lambda place: -means.values[place] if higher else means.values[place])
        truth = [float(quality[place]) for place in order]
        ours.append(judged(rank_groups(means, order, higher_is_better=higher), truth))
        if number < compared:
            theirs.append(judged(unadjusted(means, order), truth))
    about = {"metric": cell.metric, "truth": cell.truth, "methods": cell.methods, "users": cell.users}
    return {
        **about,
        "boards": boards,
        **_shares("", ours),
        "unadjusted_boards": compared,
        **_shares("unadjusted_", theirs),
    }


def _shares(prefix: str, found: list[tuple[bool, float | None]]) -> dict[str, float | None]:
    power = [own for _, own in found if own is not None]
    return {
        f"{prefix}wrong": round(sum(wrong for wrong, _ in found) / len(found), 4),
        f"{prefix}power": round(sum(power) / len(power), 4) if power else None,
    }


def cells(methods: tuple[int, ...], users: tuple[int, ...]) -> list[Cell]:
    """All kinds of boards."""
    return [
        Cell(metric, truth, count, own)
        for metric in METRICS
        for truth in TRUTHS
        for count in methods
        for own in users
        # Two methods cannot be several better ones and a worse one, and their ladder is one better.
        if not (count == 2 and truth in ("several", "ladder"))
    ]


def main() -> None:
    """Simulate; print and write shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, default=1000)
    parser.add_argument("--equal-boards", type=int, help="boards of cells in which all methods are equally good")
    parser.add_argument(
        "--compared", type=int, default=1000, help="boards of a cell that are ranked without adjustment"
    )
    parser.add_argument("--methods", type=int, nargs="+", default=METHODS)
    parser.add_argument("--users", type=int, nargs="+", default=USERS)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    start, found = time.perf_counter(), []
    for cell in cells(tuple(options.methods), tuple(options.users)):
        equal = cell.truth in ("equal", "unlike")
        boards = options.equal_boards or options.boards if equal else options.boards
        found.append(simulate(cell, boards, min(boards, options.compared)))
        own = found[-1]
        print(
            f"{cell.metric:9} {cell.truth:8} {cell.methods:3} methods {cell.users:3} users: wrong {own['wrong']:.3f} "
            f"(unadjusted {own['unadjusted_wrong']:.3f}), power {own['power']} ({own['unadjusted_power']})",
            flush=True,
        )
        if options.out:
            about = {"lampbench": lampbench.__version__, "level": LEVEL, "environment": environment("cpu")}
            seconds = time.perf_counter() - start
            options.out.write_text(json.dumps({**about, "seconds": seconds, "cells": found}, indent=1) + "\n")
    print(f"most wrong: {max(own['wrong'] for own in found):.3f}")


if __name__ == "__main__":
    main()
