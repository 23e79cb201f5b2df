"""Write ``tests/tiny``: LaMP-shaped data of a few invented users, and a small random Llama.

Run ``python tests/make_tiny.py`` to write both again. They prove that the chain works; no score on
them means anything.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from lampbench.core import Task, tasks

HERE = Path(__file__).parent / "tiny"
TOPICS = ("rivers", "engines", "voting", "proteins", "orchards", "glaciers", "tariffs", "satellites", "ferries")
PLACES = ("the north", "a small town", "the coast", "two cities", "the old harbour")
VERBS = ("measures", "explains", "follows", "questions", "compares", "restores")


def sentence(generator: random.Random) -> str:
    topic, other = generator.sample(TOPICS, 2)
    return f"This work {generator.choice(VERBS)} {topic} and {other} in {generator.choice(PLACES)}."


def target(task: Task, source: str, taste: int, generator: random.Random) -> str:
    """What the user with this taste answers; one answer in five is noise."""
    if task.labels:
        return task.labels[taste % len(task.labels)] if generator.random() < 0.8 else generator.choice(task.labels)
    words = source.removesuffix(".").split()
    title = f"{words[2]} {words[3]} in {words[-1]}"
    return title.upper() if taste % 2 else title.capitalize() + "!"


def item(task: Task, number: int, user: str, taste: int, generator: random.Random) -> dict[str, str]:
    source = sentence(generator)
    record = {"id": f"{user}-{number}", "date": f"20{number:02d}-03-{1 + number % 28:02d}"}
    record[task.item_target] = target(task, source, taste, generator)
    if task.item_source:
        record[task.item_source] = source
    return record


def write_split(task: Task, split: str, users: int, first: int) -> None:
    generator = random.Random(f"{task.name} {split}")
    questions, golds = [], []
    for number in range(first, first + users):
        user = f"{split}{number}"
        profile = [item(task, i, user, number, generator) for i in range(5 + 2 * (number % 3))]
        # Files of the benchmark are not guaranteed to be sorted by date.
        generator.shuffle(profile)
        for q in range(2):
            source = sentence(generator)
            query = f"{user}-q{q}"
            raw = task.raw_input(source)
            questions.append({"id": query, "user_id": user, "input": raw, "profile": profile})
            golds.append({"id": query, "output": target(task, source, number, generator)})
    folder = HERE / "lamp_layout" / task.official[0] / split
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {"task": task.official[0], "golds": golds}
    for name, content in (("questions", questions), ("outputs", outputs)):
        (folder / f"{split}_{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_model() -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = [path.read_text(encoding="utf-8") for path in sorted((HERE / "lamp_layout").rglob("*.json"))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=448, special_tokens=special, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(HERE / "model")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
        # Wide enough that greedy answers differ from prompt to prompt.
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(HERE / "model")


def main() -> None:
    for name in tasks().names():
        task = tasks().load(name)
        write_split(task, "train", users=2, first=10)
        write_split(task, "dev", users=3, first=0)
    write_model()


if __name__ == "__main__":
    main()
