"""The bundled model's tokenizer, architecture and training loop."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lampbench.backbone import PromptEncoder
from lampbench.pretrain._examples import examples

_TOKENIZER_EXAMPLES = 3000
_BOS, _EOS = "<s>", "</s>"
_ROWS = 8

_Encoded = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class PretrainRecipe:
    """Size and training of the bundled model."""

    vocabulary: int = 1536
    width: int = 192
    layers: int = 6
    heads: int = 6
    feed_forward: int = 512
    context: int = 1024
    steps: int = 1500
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: int = 60
    context_weight: float = 0.1
    target_weight: float = 12.0


def train_tokenizer(recipe: PretrainRecipe, seed: int) -> Any:
    """A byte-level BPE tokenizer of transformers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[_BOS, _EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"{pair.prompt.text} {pair.target}" for pair in itertools.islice(examples(seed), _TOKENIZER_EXAMPLES))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=_BOS, eos_token=_EOS, clean_up_tokenization_spaces=False
    )


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer so that transformers 4 and 5 both read it."""
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    # Written by hand, because transformers 5 names a class here that transformers 4 does not have.
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _BOS,
        "eos_token": _EOS,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def train_model(
    recipe: PretrainRecipe, tokenizer: Any, seed: int, progress: Callable[[int, float], None] = lambda step, loss: None
) -> Any:
    """A Llama trained from scratch on ``examples``; ``progress`` hears of every step and its loss."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.width,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=recipe.context,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=True,
        )
    )
    encoder = PromptEncoder(tokenizer, recipe.context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
    warmup = min(recipe.warmup, 1 + recipe.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, (recipe.steps - step) / max(1, recipe.steps - warmup)),
    )
    model.train()
    stream = examples(seed)
    for step in range(recipe.steps):
        batch = [encoder.pair(pair) for pair in itertools.islice(stream, recipe.batch_size)]
        optimizer.zero_grad(set_to_none=True)
        loss = _backward(model, batch, recipe)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(step + 1, loss)
    return model.eval()


def _backward(model: Any, batch: list[_Encoded], recipe: PretrainRecipe) -> float:
    """Gradients of the weighted mean cross-entropy.

    Each target counts the same, however long: a label of two tokens would otherwise teach little beside a title of
    twenty. Tokens before it count less. Lengths differ tenfold; rows of similar length go through the model together.
    """
    total = sum(recipe.context_weight * (len(prompt) - 1) + recipe.target_weight for prompt, _ in batch)
    by_length = sorted(batch, key=lambda row: len(row[0]) + len(row[1]))
    loss = 0.0
    for start in range(0, len(batch), _ROWS):
        part = _weighted_sum(model, by_length[start : start + _ROWS], recipe) / total
        part.backward()
        loss += float(part.detach())
    return loss


def _weighted_sum(model: Any, batch: list[_Encoded], recipe: PretrainRecipe) -> Tensor:
    width = max(len(prompt) + len(target) for prompt, target in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    weights = torch.zeros(len(batch), width)
    for row, (prompt, target) in enumerate(batch):
        length = len(prompt) + len(target)
        ids[row, :length] = torch.tensor(prompt + target)
        weights[row, : len(prompt)] = recipe.context_weight
        weights[row, len(prompt) : length] = recipe.target_weight / len(target)
    # Padded on the right: with causal attention no real token sees a pad, so no mask is needed.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights[:, 1:].flatten()).sum()
