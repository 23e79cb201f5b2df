"""Quantized weights against full precision: memory, processor time, and answers.

    python benchmarks/precision.py --model DIR --data DIR [--queries 6] [--items 4]

Each precision loads the model, answers the same queries of lamp5 as zero-shot does, and trains one user's LoRA on a few
history items for one epoch. Time is the process's own processor time, which other programs on the machine do not move.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from lampbench.adapters import LoraSpec, Recipe, TrainingJob, train_together
from lampbench.backbone import Decoding, TransformersBackbone, describe_backbone
from lampbench.core import Task, tasks
from lampbench.data import Dataset
from lampbench.data.protocols import FolderProtocol

PRECISIONS = (None, "nf4", "int8")
RECIPE = Recipe(epochs=1, learning_rate=1e-4, weight_decay=1e-2, warmup_ratio=0.1, clip=0.3, batch_size=4)


def measured(
    model: str, quantize: str | None, task: Task, data: Dataset, asked: int, items: int
) -> tuple[dict[str, Any], list[str]]:
    """What one precision costs, and its answers."""
    info = describe_backbone(model, dtype="float32", device="cpu", quantize=quantize)
    clock = [time.process_time()]
    backbone = TransformersBackbone.load(info, decoding=Decoding(), batch_size=asked, seed=0)
    clock.append(time.process_time())
    prompts = [task.prompt(query.text, query.id) for query in data.queries[:asked]]
    answers = backbone.answer(task, prompts)
    clock.append(time.process_time())
    user, spec = data.users[0], LoraSpec(8, 8.0)
    pairs = [task.pair(item) for item in user.history[:items]]
    for _ in train_together(backbone, [TrainingJob(user.id, 0, pairs, [spec.fresh(backbone, 0)])], [spec], RECIPE):
        pass
    clock.append(time.process_time())
    load, answer, train = (later - earlier for earlier, later in pairwise(clock))
    held = [*backbone.model.parameters(), *backbone.model.buffers()]
    megabytes = sum(tensor.nbytes for tensor in held) / 1e6
    figures = {"weights_mb": megabytes, "load_s": load, "answer_s": answer, "train_s": train}
    return {name: round(value, 1) for name, value in figures.items()}, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=6)
    parser.add_argument("--items", type=int, default=4)
    given = parser.parse_args()
    task = tasks().load("lamp5")
    data = FolderProtocol().load(task, given.data)
    full: list[str] = []
    for quantize in PRECISIONS:
        figures, answers = measured(given.model, quantize, task, data, given.queries, given.items)
        full = full or answers
        figures["same_answers"] = sum(map(str.__eq__, answers, full))
        print(json.dumps({"precision": quantize or "float32", **figures, "queries": len(answers)}), flush=True)
        for answer in answers[:3]:
            print(f"  {answer[:100]}", flush=True)


if __name__ == "__main__":
    main()
