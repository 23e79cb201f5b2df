from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import TASK_NAMES, TINY_MODEL, TRAINED_MODEL, load_backbone, model_folders, task

from lampbench.backbone import MAX_SEQUENCE, PromptEncoder
from lampbench.core import HistoryItem, InputError, Pair, Prompt


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_backbone(TINY_MODEL).tokenizer


def text_of(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


long_text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=300)


@given(source=long_text, context=st.lists(long_text, max_size=3), name=st.sampled_from(TASK_NAMES))
@settings(deadline=None, max_examples=60)
def test_the_instruction_and_the_target_field_are_never_cut(
    tokenizer: Any, source: str, context: list[str], name: str
) -> None:
    prompt = task(name).prompt(source).with_context(context)
    encoder = PromptEncoder(tokenizer, 300)
    ids = encoder.prompt(prompt, 10)
    assert len(ids) <= 290
    text = text_of(tokenizer, ids)
    assert prompt.head.rstrip() in text
    assert text.endswith(prompt.tail)


@given(source=long_text, target=long_text, name=st.sampled_from(TASK_NAMES))
@settings(deadline=None, max_examples=60)
def test_the_target_is_never_cut(tokenizer: Any, source: str, target: str, name: str) -> None:
    # Every target of at most 300 characters fits 2,048 tokens; the source gives way.
    encoder = PromptEncoder(tokenizer, 2048)
    pair = task(name).pair(HistoryItem("i", source * 9, target))
    prompt_ids, target_ids = encoder.pair(pair)
    assert len(prompt_ids) + len(target_ids) <= 2048
    assert target_ids[-1] == tokenizer.eos_token_id
    assert text_of(tokenizer, target_ids[:-1]) == f" {task(name).training_target(target)}"
    assert text_of(tokenizer, prompt_ids).endswith(pair.prompt.tail)


def test_context_is_cut_before_the_source_text_and_its_last_pieces_first(tokenizer: Any) -> None:
    prompt = task("lamp5").prompt("the whole source text").with_context([f"piece {i}\n" for i in range(40)])
    encoder = PromptEncoder(tokenizer, 200)
    text = text_of(tokenizer, encoder.prompt(prompt, 10))
    assert text.startswith("piece 0\npiece 1\n")
    assert "piece 39" not in text
    assert "the whole source text" in text
    assert (encoder.usage.cut_contexts, encoder.usage.cut_sources) == (1, 0)


def test_of_a_single_piece_the_end_is_kept(tokenizer: Any) -> None:
    prompt = task("lamp5").prompt("source").with_context(["start " * 200 + "the end\n"])
    text = text_of(tokenizer, PromptEncoder(tokenizer, 200).prompt(prompt, 10))
    assert "start the end\n\nGenerate a title" in text


def test_only_the_end_of_the_source_text_goes(tokenizer: Any) -> None:
    source = " ".join(f"w{i}" for i in range(500))
    encoder = PromptEncoder(tokenizer, 200)
    text = text_of(tokenizer, encoder.prompt(task("lamp5").prompt(source), 10))
    kept = text.split(" abstract: ")[1].removesuffix(" title:")
    assert source.startswith(kept)
    assert len(kept.split()) > 20
    assert encoder.usage.cut_sources == 1


def test_a_context_too_short_for_the_template_is_an_error_with_numbers(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"query 7: .* only 20 of 30 are free; use a model with a longer context"):
        PromptEncoder(tokenizer, 30).prompt(task("lamp2m").prompt("text", "query 7"), 10)


def test_a_training_example_too_long_for_2048_asks_for_a_larger_max_length(tokenizer: Any) -> None:
    pair = Pair(task("lamp5").prompt("text"), "word " * 1000)
    with pytest.raises(
        InputError, match=r"need \d{4} tokens, but only 2048 of 2048 are free; use a larger --max-length"
    ):
        PromptEncoder(tokenizer, 9000).pair(pair)
    assert PromptEncoder(tokenizer, 9000, max_length=9000).pair(pair)
    with pytest.raises(InputError, match=r"only 2048 of 2048 are free; use a model with a longer context"):
        PromptEncoder(tokenizer, 2048).pair(pair)


def test_test_prompts_fill_the_context_and_training_sequences_end_at_2048(tokenizer: Any) -> None:
    encoder = PromptEncoder(tokenizer, 4000)
    long = "word " * 9000
    assert len(encoder.prompt(task("lamp5").prompt(long), 64)) == 4000 - 64
    prompt, target = encoder.pair(Pair(task("lamp5").prompt(long), "a title"))
    assert len(prompt) + len(target) == MAX_SEQUENCE == 2048
    # A test prompt between both lengths is whole.
    whole = task("lamp5").prompt("text").with_context(["ab " * 100] * 15)
    ids = encoder.prompt(whole, 64)
    assert MAX_SEQUENCE < len(ids) < 4000 - 64
    assert text_of(tokenizer, ids) == whole.text
    assert encoder.usage.cut_contexts == 0


@pytest.mark.parametrize("context", [512, 2048])
def test_a_short_context_limits_training_and_test_alike(tokenizer: Any, context: int) -> None:
    encoder, prompt = PromptEncoder(tokenizer, context), task("lamp5").prompt("word " * 9000)
    assert len(encoder.prompt(prompt, 64)) == context - 64
    assert sum(map(len, encoder.pair(Pair(prompt, "a title")))) == context


@pytest.mark.parametrize("folder", model_folders())
def test_a_training_prompt_is_token_for_token_the_test_prompt(folder: Any) -> None:
    encoder = load_backbone(folder).encoder
    for name in TASK_NAMES:
        prompt = task(name).prompt("a short text")
        ids, target = encoder.pair(Pair(prompt, "an answer"))
        assert ids == encoder.prompt(prompt, 10)
        assert encoder.continuation(prompt, "an answer") == target


@pytest.mark.skipif(not TRAINED_MODEL.is_dir(), reason="the trained model is not on this machine")
def test_a_bos_token_goes_first_where_the_model_has_one() -> None:
    encoder = load_backbone(TRAINED_MODEL).encoder
    assert encoder.prompt(Prompt("", "a", ""), 1)[0] == encoder.tokenizer.bos_token_id
