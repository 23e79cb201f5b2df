from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import TASK_NAMES, dataset, load_backbone, model_folders, task

from lampbench.adapters import InterventionSpec, Positions
from lampbench.core import Prompt, Sampling


def prompts_of(name: str) -> list[Prompt]:
    return [task(name).prompt(query.text, query.id) for query in dataset(name).queries]


def edits(backbone: Any, positions: str) -> list[Any]:
    spec = InterventionSpec((1,), 4, Positions.parse(positions))
    return [spec.frozen(backbone, [spec.fresh(backbone, 3)])]


def plain_greedy(backbone: Any, ids: list[int], max_new_tokens: int, adapters: Any = ()) -> list[int]:
    """One row, no cache, no padding: the whole sequence again for every token."""
    from contextlib import ExitStack

    from lampbench.backbone import PassWindow

    stop = backbone.stop_at_newline()
    written: list[int] = []
    while len(written) < max_new_tokens and not (written and stop[written[-1]]):
        sequence = torch.tensor([ids + written])
        window = PassWindow(torch.tensor([0]), torch.tensor([len(ids)]), torch.tensor([0]), len(ids) + len(written))
        with ExitStack() as stack, torch.no_grad():
            for adapter in adapters:
                stack.enter_context(adapter.attach(backbone.layers, window))
            written.append(int(backbone.model(sequence).logits[0, -1].argmax()))
    return written


@pytest.mark.parametrize("folder", model_folders())
@pytest.mark.parametrize("positions", [None, "all", "l2", "f1+l3"])
def test_batched_generation_equals_one_row_without_cache_or_padding(folder: Path, positions: str | None) -> None:
    backbone = load_backbone(folder, batch_size=8)
    adapters = edits(backbone, positions) if positions else []
    prompts = prompts_of("lamp5") + prompts_of("lamp3")
    answers = backbone.answer(task("lamp5"), prompts, adapters)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = plain_greedy(backbone, backbone.encoder.prompt(prompt, 64), 64, adapters)
        text = backbone.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert answer == text.split("\n")[0].strip()


@pytest.mark.parametrize("folder", model_folders())
@pytest.mark.parametrize("mode", ["greedy", "sampled", "labels"])
def test_answers_do_not_depend_on_the_batch_size(folder: Path, mode: str) -> None:
    names = TASK_NAMES[:3] if mode == "labels" else TASK_NAMES
    for name in names:
        one, many = (load_backbone(folder, batch_size=size, mode=mode) for size in (1, 32))
        assert one.answer(task(name), prompts_of(name)) == many.answer(task(name), prompts_of(name))


def test_answers_do_not_depend_on_order_or_company(backbone: Any) -> None:
    prompts = prompts_of("lamp5")
    together = backbone.answer(task("lamp5"), prompts)
    assert backbone.answer(task("lamp5"), prompts[::-1]) == together[::-1]
    assert [backbone.answer(task("lamp5"), [prompt])[0] for prompt in prompts] == together


def test_sampling_depends_on_seed_and_prompt_alone() -> None:
    prompts = prompts_of("lamp5")
    sampling = Sampling(temperature=1.0, top_k=50, top_p=1.0)
    first, same, other = (load_backbone(seed=seed).write(prompts, 20, sampling) for seed in (0, 0, 1))
    assert first == same
    assert first != other


def test_sampling_follows_the_filtered_distribution() -> None:
    """Frequencies of one step against transformers' own filters."""
    import random

    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    from lampbench.backbone import sample_tokens

    sampling = Sampling(temperature=0.7, top_k=6, top_p=0.8)
    logits = torch.randn(1, 40, generator=torch.Generator().manual_seed(1)) * 2
    filtered = logits
    for warper in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(6), TopPLogitsWarper(0.8)):
        filtered = warper(torch.zeros(1, 1, dtype=torch.long), filtered)
    expected = filtered.softmax(-1)[0]
    generator = random.Random(0)
    rows = 20_000
    drawn = sample_tokens(logits.expand(rows, -1), sampling, [generator] * rows)
    frequencies = torch.bincount(drawn, minlength=40) / rows
    assert set(drawn.tolist()) == set(expected.nonzero().flatten().tolist())
    torch.testing.assert_close(frequencies, expected, atol=0.015, rtol=0)


def test_an_answer_ends_at_a_newline_and_leaves_out_the_prompt(backbone: Any) -> None:
    for name in ("lamp4", "lamp7"):
        for prompt, answer in zip(prompts_of(name), backbone.answer(task(name), prompts_of(name)), strict=True):
            assert "\n" not in answer
            assert not answer.startswith(prompt.head)


@pytest.mark.parametrize("limit", [1, 5])
def test_an_answer_has_at_most_the_tokens_that_the_task_allows(limit: int) -> None:
    backbone = load_backbone()
    own = replace(task("lamp5"), max_new_tokens=limit)
    prompts = prompts_of("lamp5")
    backbone.answer(own, prompts)
    # The tiny model writes on until it is stopped.
    assert backbone.usage.generated_tokens == limit * len(prompts)
    assert backbone.answer_room(own) == limit


def test_a_label_may_take_more_tokens_than_the_task_allows() -> None:
    backbone = load_backbone()
    own = replace(task("lamp2m"), max_new_tokens=1)
    longest = max(len(backbone.encoder.continuation(own.prompt(""), label)) for label in own.labels)
    assert backbone.answer_room(own) == longest > 1


def test_answers_of_several_lines_end_at_eos_only(backbone: Any) -> None:
    prompts = prompts_of("lamp7")
    long = replace(task("lamp7"), one_line=False)
    lines, texts = backbone.answer(task("lamp7"), prompts), backbone.answer(long, prompts)
    assert any("\n" in text for text in texts)
    assert [text.split("\n")[0].strip() for text in texts] != texts
    assert all(len(text) >= len(line) for line, text in zip(lines, texts, strict=True))


def test_a_tasks_own_end_of_answers_ends_the_writing_and_changes_no_answer() -> None:
    long = replace(task("lamp5"), one_line=False, max_new_tokens=48)
    prompts = prompts_of("lamp5")
    whole = load_backbone()
    texts = whole.answer(long, prompts)
    # Some characters within the first answer, which tokens need not begin or end with.
    text = next(text for text in texts if len(text) > 20)
    stop = text[9:12]
    ended = load_backbone()
    assert ended.answer(replace(long, stop=stop), prompts) == [text.partition(stop)[0].strip() for text in texts]
    assert ended.usage.generated_tokens < whole.usage.generated_tokens
    assert ended.usage.answers_at_limit < whole.usage.answers_at_limit


def test_every_token_with_a_newline_stops(backbone: Any) -> None:
    stop = backbone.stop_at_newline()
    newline = backbone.tokenizer("a\nb", add_special_tokens=False).input_ids
    assert any(stop[token] for token in newline)
    assert stop[backbone.tokenizer.eos_token_id]
    assert not stop[backbone.tokenizer("a", add_special_tokens=False).input_ids].any()


@pytest.mark.parametrize("folder", model_folders())
def test_label_scores_are_the_log_probabilities_of_the_whole_answer(folder: Path) -> None:
    backbone = load_backbone(folder, mode="labels")
    the_task, prompts = task("lamp2n"), prompts_of("lamp2n")[:3]
    best = []
    for prompt in prompts:
        scores = []
        for label in the_task.labels:
            ids, answer = backbone.encoder.prompt(prompt, 20), backbone.encoder.continuation(prompt, label)
            with torch.no_grad():
                log = backbone.model(torch.tensor([ids + answer])).logits[0].log_softmax(-1)
            scores.append(sum(float(log[len(ids) + i - 1, token]) for i, token in enumerate(answer)))
        best.append(the_task.labels[max(range(len(scores)), key=scores.__getitem__)])
    assert backbone.answer(the_task, prompts) == best


def test_tokens_read_and_written_are_counted() -> None:
    backbone = load_backbone()
    prompts = prompts_of("lamp5")
    backbone.answer(task("lamp5"), prompts)
    assert backbone.usage.prompt_tokens == sum(len(backbone.encoder.prompt(prompt, 64)) for prompt in prompts)
    assert 0 < backbone.usage.generated_tokens <= 64 * len(prompts)


def test_an_adapter_leaves_no_trace(backbone: Any) -> None:
    prompts = prompts_of("lamp5")
    before = backbone.answer(task("lamp5"), prompts)
    changed = backbone.answer(task("lamp5"), prompts, edits(backbone, "all"))
    assert changed != before
    assert backbone.answer(task("lamp5"), prompts) == before


def test_brief_answers_are_the_beginnings_of_whole_ones() -> None:
    backbone, own = load_backbone(), task("lamp5")
    prompts = [own.prompt(text) for text in ("a short text", "another text about rivers")]
    whole = backbone.answer(own, prompts)
    with backbone.brief(2):
        before = backbone.usage.generated_tokens
        short = backbone.answer(own, prompts)
        assert backbone.usage.generated_tokens - before <= 2 * len(prompts)
    assert all(full.startswith(part) for full, part in zip(whole, short, strict=True))
    assert short != whole
    assert backbone.answer(own, prompts) == whole
