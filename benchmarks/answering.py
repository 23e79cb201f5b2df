"""Answers of many prompts: the backbone's against transformers' generate, and prompt tokens with and without sharing.

    python benchmarks/answering.py --model MODEL --data LAMP_FOLDER --out benchmarks/results/answering-cpu.json
    python benchmarks/answering.py --data LAMP_FOLDER --shape 0.5b --device cuda

The same weights, dtype, threads and prompts for all. Every repetition runs each way once, in turn:

    ours      TransformersBackbone.write: rows that have ended leave the batch, beginnings are read once
    batches   generate in batches of 32, sorted by length, padded on the left
    single    generate, one prompt at a time

Prompts are those of LaMP-5, with as many words as give about --tokens tokens. For answers of mixed length, each token
of the vocabulary ends an answer with the probability 1 / --mean, drawn once, for all ways alike: a real model's own
ends depend on what it was trained for. Seconds are of the
processor, as other work may run beside; --wall for those of the clock.

The second part counts the tokens that are read for the prompts of LaMP-2M and LaMP-2N without a context.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lampbench.backbone import Decoding, TransformersBackbone, describe_backbone
from lampbench.core import Prompt, tasks
from lampbench.data import Dataset
from lampbench.data.mini.protocol import MiniProtocol
from lampbench.data.protocols import FolderProtocol
from lampbench.runner import environment

BATCH = 32


def texts_of(data: Dataset) -> Iterator[str]:
    """Source texts, queries first."""
    yield from (query.text for query in data.queries)
    for user in data.users:
        yield from (item.source for item in user.history)


def prompts_of(backbone: TransformersBackbone, data: Dataset, count: int, tokens: int) -> list[Prompt]:
    """Prompts of LaMP-5 of different lengths, a third shorter or longer than ``tokens``."""
    task, words = tasks().load("lamp5"), " ".join(texts_of(data)).split()
    draw, found, at = random.Random(0), [], 0
    for number in range(count):
        wanted = round(tokens * draw.uniform(0.67, 1.33))
        taken = 10
        while len(backbone.encoder.prompt(task.prompt(" ".join(words[at : at + taken])), 64)) < wanted:
            taken += 5
        found.append(task.prompt(" ".join(words[at : at + taken]), str(number)))
        at = (at + taken) % (len(words) // 2)
    return found


def set_ends(backbone: TransformersBackbone, mean: float) -> list[int]:
    """Draw what ends an answer; the backbone and generate both read it from the model's generation config."""
    draw = random.Random(1)
    drawn = [token for token in range(backbone.model.config.vocab_size) if draw.random() < 1 / mean]
    ends = sorted({backbone.encoder.eos, *drawn})
    backbone.model.generation_config.eos_token_id = ends
    return ends


@torch.inference_mode()
def generated(
    backbone: TransformersBackbone, prompts: Sequence[Prompt], new: int, ends: list[int], size: int
) -> list[str]:
    """What transformers' ``generate`` writes, in batches of ``size``."""
    rows = [backbone.encoder.prompt(prompt, new) for prompt in prompts]
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
    texts = [""] * len(rows)
    for start in range(0, len(order), size):
        own = order[start : start + size]
        width = max(len(rows[number]) for number in own)
        ids = torch.tensor([[backbone.pad] * (width - len(rows[i])) + rows[i] for i in own], device=backbone.device)
        mask = torch.tensor([[0] * (width - len(rows[i])) + [1] * len(rows[i]) for i in own], device=backbone.device)
        found = backbone.model.generate(
            ids, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=new, eos_token_id=ends,
            pad_token_id=backbone.pad,
        )  # fmt: skip
        for number, written in zip(own, found[:, width:].tolist(), strict=True):
            last = next((at for at, token in enumerate(written) if token in ends), len(written))
            # Padding follows an end; it may be read as text.
            texts[number] = backbone.tokenizer.decode(
                written[: last + 1], skip_special_tokens=True, clean_up_tokenization_spaces=False
            ).strip()
    return texts


@contextmanager
def tokens_read(backbone: TransformersBackbone) -> Iterator[list[int]]:
    """The number of ids in each pass of the model, padding included."""
    found: list[int] = []

    def count(module: Any, arguments: Any, keywords: Any) -> None:
        found.append(keywords["input_ids"].numel())

    with backbone.model.register_forward_pre_hook(count, with_kwargs=True):
        yield found


def timed(
    backbone: TransformersBackbone, prompts: Sequence[Prompt], given: argparse.Namespace, ways: Sequence[str]
) -> dict[str, Any]:
    """Seconds of each way, and whether all wrote the same."""
    ends = set_ends(backbone, given.mean)
    backbone.write(prompts[:2], 2)
    before = backbone.usage.generated_tokens
    run: dict[str, Callable[[], list[str]]] = {
        "ours": lambda: backbone.write(prompts, given.new),
        "batches": lambda: generated(backbone, prompts, given.new, ends, BATCH),
        "single": lambda: generated(backbone, prompts, given.new, ends, 1),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    texts: dict[str, list[str]] = {}
    clock = time.perf_counter if given.wall or given.device != "cpu" else time.process_time
    for _ in range(given.rounds):
        for way in ways:
            start = clock()
            texts[way] = run[way]()
            if given.device != "cpu":
                torch.cuda.synchronize()
            seconds[way].append(clock() - start)
            print(f"{way}: {seconds[way][-1]:.1f} s", flush=True)
    medians = {way: statistics.median(own) for way, own in seconds.items()}
    rows = [len(backbone.encoder.prompt(prompt, given.new)) for prompt in prompts]
    return {
        "prompts": len(prompts),
        "prompt_tokens": {"least": min(rows), "mean": round(statistics.mean(rows)), "most": max(rows)},
        "answer_tokens": {
            "most": given.new,
            "mean": round((backbone.usage.generated_tokens - before) / given.rounds / len(prompts), 1),
        },
        "seconds": {way: [round(one, 2) for one in own] for way, own in seconds.items()},
        "same_as_ours": {way: sum(map(str.__eq__, texts["ours"], own)) for way, own in texts.items() if way != "ours"},
        "times_as_fast": {way: round(own / medians["ours"], 2) for way, own in medians.items() if way != "ours"},
    }


def shared(backbone: TransformersBackbone, name: str, folder: Path, limit: int) -> dict[str, Any]:
    """Tokens read for a task's prompts without a context, with and without sharing; padding is in both."""
    task = tasks().load(name)
    queries = FolderProtocol().load(task, folder).queries[:limit]
    prompts = [task.prompt(query.text, query.id) for query in queries]
    found: dict[str, Any] = {"prompts": len(prompts)}
    for way, shares in (("whole", False), ("shared", True)):
        backbone.shares_beginnings = shares
        with tokens_read(backbone) as passes:
            backbone.write(prompts, 1)
        found[way] = sum(passes)
    found["times_fewer"] = round(found["whole"] / found["shared"], 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MiniProtocol().default_model, help="default: the bundled one")
    parser.add_argument("--data", type=Path, required=True, help="a folder in LaMP's layout")
    parser.add_argument("--shape", help="random weights of a shape of engine.py, with the bundled tokenizer")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--mean", type=float, default=20, help="tokens of an answer, about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", default="ours,batches,single")
    parser.add_argument("--wall", action="store_true", help="the clock's seconds, not the processor's")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.shape:
        from engine import random_work

        backbone = random_work(given.shape, given.device, 1, 1, 10, 4, BATCH).backbone
    else:
        info = describe_backbone(given.model, dtype=given.dtype, device=given.device)
        backbone = TransformersBackbone.load(info, decoding=Decoding(), batch_size=BATCH, seed=0)
    data = FolderProtocol().load(tasks().load("lamp5"), given.data)
    prompts = prompts_of(backbone, data, given.prompts, given.tokens)
    found = {
        "model": given.shape or Path(given.model).name,
        "dtype": backbone.info.dtype,
        "threads": torch.get_num_threads(),
        "environment": environment(given.device),
        "answers": timed(backbone, prompts, given, given.ways.split(",")),
        "beginnings": {name: shared(backbone, name, given.data, 4 * BATCH) for name in ("lamp2m", "lamp2n")},
    }
    print(json.dumps(found, indent=2))
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
