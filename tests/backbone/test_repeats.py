"""Penalties for repetition: transformers' generate, prompt by prompt and without padding, is the oracle."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support import dataset, load_backbone, task
from torch.nn.functional import one_hot

from lampbench.adapters import InterventionSpec, Positions
from lampbench.backbone import Decoding, Penalties
from lampbench.core import Prompt


def prompts() -> list[Prompt]:
    """Prompts of different lengths, one of which repeats itself."""
    found = [task("lamp5").prompt(query.text, query.id) for query in dataset("lamp5").queries]
    return [*found, task("lamp5").prompt("rivers rivers rivers rivers"), Prompt("a", "", "")]


@contextmanager
def cycling(backbone: Any) -> Iterator[None]:
    """Lets the model go round in a circle of nine tokens unless it is kept from it."""

    def rig(module: Any, arguments: Any, given: Any, output: Any) -> Any:
        following = 40 + (given["input_ids"][:, -output.logits.shape[1] :] + 1) % 9
        output.logits = output.logits + 12 * one_hot(following, output.logits.shape[-1])
        return output

    with backbone.model.register_forward_hook(rig, with_kwargs=True):
        yield


def edits(backbone: Any) -> list[Any]:
    spec = InterventionSpec((1,), 4, Positions.parse("all"))
    return [spec.frozen(backbone, [spec.fresh(backbone, 3)])]


@pytest.mark.parametrize("ngram", [None, 1, 2, 3])
@pytest.mark.parametrize("repetition", [None, 3.0, 0.7])
def test_penalties_are_those_of_transformers(repetition: float | None, ngram: int | None) -> None:
    penalties = Penalties(repetition, ngram)
    backbone = load_backbone(decoding=Decoding(penalties=penalties), batch_size=8)
    asked = {"repetition_penalty": repetition, "no_repeat_ngram_size": ngram}
    given = {name: value for name, value in asked.items() if value is not None}
    with cycling(backbone):
        found = backbone.write(prompts(), 40)
        oracle = [generated(backbone, prompt, **given) for prompt in prompts()]
        free = [generated(backbone, prompt) for prompt in prompts()]
    assert found == oracle
    # Below 1 it rewards what the model repeats anyway.
    assert (found == free) is (ngram is None and repetition != 3.0)


def generated(backbone: Any, prompt: Prompt, **given: Any) -> str:
    """What transformers writes after one prompt alone."""
    ids = torch.tensor([backbone.encoder.prompt(prompt, 40)])
    written = backbone.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False,
        eos_token_id=backbone.encoder.eos, pad_token_id=backbone.pad, **given,
    )[0, ids.shape[1] :]  # fmt: skip
    text = backbone.tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text).strip()


def test_a_row_is_penalized_for_its_own_tokens_alone() -> None:
    answers = []
    for size in (1, 8):
        decoding = Decoding(penalties=Penalties(1.5, 3))
        backbone = load_backbone(decoding=decoding, batch_size=size)
        answers.append(backbone.answer(task("lamp5"), prompts(), edits(backbone)))
    assert answers[0] == answers[1]
    plain = load_backbone()
    assert answers[0] != plain.answer(task("lamp5"), prompts(), edits(plain))
