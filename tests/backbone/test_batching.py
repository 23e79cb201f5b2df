"""Rows that leave and join a batch, and beginnings that are read once: transformers' generate, row by row, is the oracle."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support import TINY_MODEL, load_backbone, task
from transformers import CONFIG_MAPPING

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from families import model_folder, tiny_backbone, tiny_config  # type: ignore[import-not-found]

from lampbench.adapters import HeadSpec, InterventionSpec, LoraSpec, Positions, PrefixSpec
from lampbench.backbone import Contrast, Decoding, Penalties, describe_backbone
from lampbench.core import Prompt, Sampling

OLD = int(transformers.__version__.partition(".")[0]) < 5
NEW_TOKENS = 12
# Family -> whether rows may join a batch, and whether beginnings may be read once.
FAMILIES = {
    "llama": (True, True),
    "gpt2": (True, True),
    "deepseek_v3": (True, True),
    # Positions by column: padding behind a beginning would count.
    "mpt": (True, False),
    # Sliding windows.
    "gemma3_text": (False, False),
    # More than keys and values.
    "bamba": (False, False),
    "lfm2": (False, False),
}
BEGINNING = "Which of the words rivers, engines, voting, glaciers and tariffs fits a text? The text is: "
TEXTS = (
    "a",
    "harbours of two cities",
    "proteins and then more",
    "old",
    "in winter the ice comes early",
    "x y",
    "seven",
)


def prompts() -> list[Prompt]:
    """Prompts of different lengths that begin alike, and one that does not."""
    return [Prompt(BEGINNING, text, " Word:", id=text) for text in TEXTS] + [
        Prompt("", "Something else", "", id="else")
    ]


def ends_often(backbone: Any) -> list[int]:
    """Let every fifth token end an answer, so that answers have different lengths; these tokens."""
    ends = list(range(0, backbone.model.get_output_embeddings().weight.shape[0], 5))
    backbone.model.generation_config.eos_token_id = ends
    return ends


def generated(backbone: Any, prompt: Prompt, ends: list[int]) -> str:
    """What transformers writes after one prompt alone."""
    ids = torch.tensor([backbone.encoder.prompt(prompt, NEW_TOKENS)])
    with torch.no_grad():
        whole = backbone.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS,
            eos_token_id=[*ends, backbone.encoder.eos], pad_token_id=backbone.encoder.eos, num_beams=1,
        )  # fmt: skip
    text: str = backbone.tokenizer.decode(
        whole[0, ids.shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text.strip()


@contextmanager
def counted(backbone: Any) -> Iterator[list[int]]:
    """The number of ids in each pass of the model."""
    found: list[int] = []

    def count(module: Any, arguments: Any, keywords: Any) -> None:
        found.append(keywords["input_ids"].numel())

    with backbone.model.register_forward_pre_hook(count, with_kwargs=True):
        yield found


def plainly(backbone: Any) -> Any:
    """Let a backbone answer batch by batch, all rows until the last one ends."""
    backbone.rows_may_leave = backbone.rows_may_join = backbone.shares_beginnings = False
    return backbone


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_of_mixed_length_are_those_of_generate(family: str, tmp_path: Path) -> None:
    if family not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {family}")
    vocabulary = json.loads((TINY_MODEL / "config.json").read_text())["vocab_size"]
    folder = model_folder(tiny_config(family, vocabulary), TINY_MODEL, tmp_path / family)
    backbone = tiny_backbone(describe_backbone(str(folder), dtype="float32", device="cpu"), torch.float32)
    ends = ends_often(backbone)
    expected = [generated(backbone, prompt, ends) for prompt in prompts()]
    assert backbone.write(prompts(), NEW_TOKENS) == expected
    assert len(set(expected)) > 1
    if not OLD:
        assert (backbone.rows_may_join, backbone.shares_beginnings) == FAMILIES[family]


def test_an_ended_row_costs_nothing_and_another_takes_its_place() -> None:
    found = []
    for backbone in (load_backbone(batch_size=4), plainly(load_backbone(batch_size=4))):
        ends_often(backbone)
        backbone.write(prompts(), 1)
        written = backbone.usage.generated_tokens
        with counted(backbone) as passes:
            backbone.write(prompts(), NEW_TOKENS)
        steps = [size for size in passes if size <= 4]
        found.append((backbone.usage.generated_tokens - written, sum(steps), len(steps)))
    (written, computed, count), (same, plain_computed, plain_count) = found
    assert written == same
    # The first token of each answer is chosen after its prompt was read.
    assert computed == written - len(prompts()) < plain_computed
    assert count < plain_count


def test_a_beginning_is_read_once_for_all_rows() -> None:
    backbone, plain = load_backbone(batch_size=8), plainly(load_backbone(batch_size=8))
    for own in (backbone, plain):
        own.write(prompts(), 1)
    sizes = []
    for own in (backbone, plain):
        with counted(own) as passes:
            own.write(prompts(), 1)
        sizes.append(sum(passes))
    assert sizes[0] * 1.5 < sizes[1]
    assert backbone.usage == plain.usage


@pytest.mark.parametrize("kind", ["lora", "all", "l4", "f2+l1", "prefix", "heads"])
def test_adapters_act_on_shared_beginnings_as_on_whole_prompts(kind: str) -> None:
    users = [0, 1, 1, 0, 1, 0, 0, 1]
    answers = []
    for backbone in (load_backbone(batch_size=8), plainly(load_backbone(batch_size=8))):
        ends_often(backbone)
        if kind == "prefix":
            backbone = backbone.with_prefix(3)
            spec: Any = PrefixSpec(3, spread=2.0)
        elif kind == "lora":
            spec = LoraSpec(4, 64.0)
        else:
            spec = HeadSpec("offset") if kind == "heads" else InterventionSpec((1,), 4, Positions.parse(kind))
        states = [spec.fresh(backbone, seed) for seed in (1, 2)]
        generator = torch.Generator().manual_seed(5)
        states = [
            {name: own + 0.3 * torch.randn(own.shape, generator=generator) for name, own in state.items()}
            for state in states
        ]
        adapters = [spec.frozen(backbone, states, users)]
        with counted(backbone) as passes:
            answers.append(backbone.answer(task("lamp7"), prompts(), adapters))
        answers.append([max(passes)])
    (found, largest, expected, whole) = answers
    assert found == expected
    assert largest < whole


@pytest.mark.parametrize("mode", ["sampled", "penalized", "labels", "contrasted"])
def test_other_ways_of_choosing_do_not_depend_on_who_leaves_and_joins(mode: str) -> None:
    answers = []
    decoding = Decoding("labels") if mode == "labels" else Decoding()
    if mode == "penalized":
        decoding = Decoding(penalties=Penalties(1.5, 2))
    for size in (1, 20 if mode == "labels" else 4):
        backbone = load_backbone(batch_size=size, decoding=decoding)
        ends_often(backbone)
        if mode == "sampled":
            answers.append(backbone.write(prompts(), NEW_TOKENS, Sampling(temperature=1.0, top_k=50, top_p=1.0)))
            continue
        own = task("lamp3" if mode == "labels" else "lamp7")
        spec = InterventionSpec((1,), 4, Positions.parse("all"))
        readers = [spec.frozen(backbone, [spec.fresh(backbone, seed) for seed in (3, 4)], [0, 1] * 4 + [1, 0] * 4)]
        answers.append(backbone.answer(own, prompts(), readers, Contrast(0.3, 0.1) if mode == "contrasted" else None))
    assert answers[0] == answers[1]
    assert len(set(answers[0])) > 1
