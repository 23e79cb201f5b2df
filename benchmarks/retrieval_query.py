"""How often the best item by BM25 has the gold's label: by what the retriever is asked.

    python benchmarks/retrieval_query.py --data DATA --out benchmarks/results/retrieval-query.json

It is asked the instruction with its label list and the text, the task's own query, or the text alone. DATA is a folder
in LaMP's layout; its evaluated users of lamp2m and lamp2n are asked.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from lampbench.core import Task, protocols, tasks
from lampbench.data import Dataset
from lampbench.retrieval import Bm25Index


def hits(task: Task, data: Dataset, asked: Callable[[str], str]) -> int:
    """How many queries get an item with the gold's label."""
    found = 0
    for own in data.labelled():
        index = Bm25Index([task.document(item) for item in own.user.history])
        for entry in own.queries:
            (best,) = index.top(asked(entry.query.text), 1)
            found += own.user.history[best].target == entry.target
    return found


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="a JSON file")
    given = parser.parse_args()
    found = {}
    for name in ("lamp2m", "lamp2n"):
        task = tasks().load(name)
        data = protocols().load("folder")().load(task, given.data)
        ways: dict[str, Callable[[str], str]] = {
            "with the label list": lambda text, task=task: f"{task.instruction} {text}",  # type: ignore[misc]
            "the task's query": task.retrieval_query,
            "the text alone": str,
        }
        own = {way: hits(task, data, asked) for way, asked in ways.items()}
        found[name] = {"queries": len(data.queries), "same label as the gold": own}
        print(f"{name}, {len(data.queries)} queries: {', '.join(f'{way} {n}' for way, n in own.items())}")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
