"""The bundled model's tokenizer, architecture and training loop."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lampbench.backbone import PromptEncoder
from lampbench.core import Pair
from lampbench.pretrain._examples import Example, examples, label_examples

_TOKENIZER_EXAMPLES = 3000
_BOS, _EOS = "<s>", "</s>"
_ROWS = 8

_Row = tuple[list[int], list[float]]


@dataclass(frozen=True, slots=True)
class PretrainRecipe:
    """Size and training of the bundled model."""

    vocabulary: int = 1536
    width: int = 192
    layers: int = 6
    heads: int = 6
    feed_forward: int = 512
    context: int = 1024
    batch_size: int = 32
    steps: int = 1300
    learning_rate: float = 2e-3
    warmup: int = 60
    label_steps: int = 300
    label_learning_rate: float = 1e-3
    label_warmup: int = 30
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
    pairs = (example.pair for example in itertools.islice(examples(seed), _TOKENIZER_EXAMPLES))
    texts = (pair.prompt.answered_by(pair.target) for pair in pairs)
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
    """A Llama trained from scratch on ``examples``, and then on ``label_examples``.

    ``progress`` hears of every step and its loss. Between the two courses weights are rounded as they are shipped.
    """
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
    rows = (_weighted(example, encoder, recipe) for example in examples(seed))
    _course(model, rows, recipe.batch_size, recipe.steps, recipe.learning_rate, recipe.warmup, progress)
    model.to(torch.bfloat16).to(torch.float32)
    rows = (_weighted(example, encoder, recipe) for example in label_examples(seed))
    heard = partial(_later, recipe.steps, progress)
    _course(model, rows, recipe.batch_size, recipe.label_steps, recipe.label_learning_rate, recipe.label_warmup, heard)
    return model.eval()


def _later(done: int, progress: Callable[[int, float], None], step: int, loss: float) -> None:
    progress(done + step, loss)


def _course(
    model: Any,
    rows: Iterator[_Row],
    batch_size: int,
    steps: int,
    learning_rate: float,
    warmup: int,
    progress: Callable[[int, float], None],
) -> None:
    """AdamW with a linear warm-up and decay."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
    warmup = min(warmup, 1 + steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    model.train()
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        loss = _backward(model, list(itertools.islice(rows, batch_size)))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(step + 1, loss)


def _weighted(example: Example, encoder: PromptEncoder, recipe: PretrainRecipe) -> _Row:
    """Ids of an example, and what each counts in the loss.

    Each target counts the same, however long: a label of two tokens would otherwise teach little beside a title of
    twenty. So do the targets of the items in the context: each but the first has earlier items to learn from, which is
    what makes a model this small use a context at all. All other tokens count little.
    """
    pair = example.pair
    prompt, target = encoder.pair(pair)
    weights = [recipe.context_weight] * len(prompt) + [recipe.target_weight / len(target)] * len(target)
    for first, last in _places(pair, example.shown, encoder.tokenizer, len(prompt)):
        weights[first:last] = [recipe.target_weight / (last - first)] * (last - first)
    return prompt + target, weights


def _places(pair: Pair, shown: Sequence[str], tokenizer: Any, length: int) -> list[tuple[int, int]]:
    """Where the targets of the context's items are among the prompt's ids: first and last, per item."""
    text = pair.prompt.text
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    # A BOS token stands before the text's own tokens.
    ahead, places = length - len(offsets), []
    items = pair.prompt.context[len(pair.prompt.context) - len(shown) :]
    before = pair.prompt.context[: len(pair.prompt.context) - len(shown)]
    end = len("".join(before))
    for piece, target in zip(items, shown, strict=True):
        start, end = end + len(piece) - 1 - len(target), end + len(piece)
        # The newline that ends the item is part of what is learned: it ends the target.
        inside = [place for place, (first, last) in enumerate(offsets) if first >= start - 1 and last <= end]
        if inside:
            places.append((ahead + inside[0], ahead + inside[-1] + 1))
    return places


def _backward(model: Any, batch: list[_Row]) -> float:
    """Gradients of the weighted mean cross-entropy; rows of similar length go through the model together."""
    total = sum(sum(weights) for _, weights in batch)
    by_length = sorted(batch, key=lambda row: len(row[0]))
    loss = 0.0
    for start in range(0, len(batch), _ROWS):
        part = _weighted_sum(model, by_length[start : start + _ROWS]) / total
        part.backward()
        loss += float(part.detach())
    return loss


def _weighted_sum(model: Any, batch: list[_Row]) -> Tensor:
    width = max(len(row) for row, _ in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    weights = torch.zeros(len(batch), width)
    for number, (row, own) in enumerate(batch):
        ids[number, : len(row)] = torch.tensor(row)
        weights[number, : len(row)] = torch.tensor(own)
    # Padded on the right: with causal attention no real token sees a pad, so no mask is needed.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    losses = cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights[:, 1:].flatten()).sum()
