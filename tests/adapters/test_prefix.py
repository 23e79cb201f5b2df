"""Prefixes against peft's prompt tuning: the same vectors before the embedded prompt, one row at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support import load_backbone, plain_steps, task
from torch.nn.functional import cross_entropy

from lampbench.adapters import LoraSpec, Prefix, PrefixSpec, Recipe, TrainingJob, train_alone, train_together
from lampbench.backbone import PassWindow, Penalties, attached
from lampbench.core import HistoryItem, InputError

SPEC = PrefixSpec(3)
PAIRS = [task("lamp5").pair(HistoryItem(str(i), f"about {w}", f"{w} title")) for i, w in enumerate("abcde")]
PROMPTS = [task("lamp5").prompt(text, str(i)) for i, text in enumerate(("short", "a much longer text to read", "mid"))]


def prefixed(double: bool = False, **options: Any) -> Any:
    backbone = load_backbone(**options)
    if double:
        backbone.model.double()
    return backbone.with_prefix(SPEC.length)


def tuned(backbone: Any, vectors: torch.Tensor) -> Any:
    """peft's own model with these vectors; the backbone's is left as it is."""
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(vectors))
    model: Any = get_peft_model(backbone.model, config)
    model.prompt_encoder["default"].embedding.weight = torch.nn.Parameter(vectors.clone())
    return model


def states(backbone: Any, count: int) -> list[Any]:
    return [replace(SPEC, spread=0.5).fresh(backbone, seed) for seed in range(count)]


@pytest.mark.parametrize("engine", ["stacked", "solo"])
def test_training_is_that_of_pefts_prompt_tuning(engine: str) -> None:
    """Order, schedule and clip in float64, one row at a time, without padding."""
    backbone = prefixed(double=True)
    recipe = Recipe(2, 1e-2, 0.01, 0.0, clip=1.0, batch_size=2)
    (start,) = states(backbone, 1)
    job = TrainingJob("someone", 7, PAIRS, [start])
    if engine == "solo":
        (state,) = train_alone(backbone, job, [SPEC], recipe)
    else:
        ((_, (state,)),) = train_together(backbone, [job], [SPEC], recipe)
    model = tuned(backbone, SPEC.vectors(start))
    own = model.prompt_encoder["default"].embedding.weight
    optimizer = torch.optim.AdamW([own], lr=1e-2, weight_decay=0.01)
    encoded = [backbone.with_prefix(0).encoder.pair(pair) for pair in PAIRS]
    for chosen in plain_steps(optimizer):
        losses = []
        for prompt, target in (encoded[i] for i in chosen):
            # peft puts the vectors before everything.
            logits = model(input_ids=torch.tensor([prompt + target])).logits[0, SPEC.length + len(prompt) - 1 : -1]
            losses.append(cross_entropy(logits, torch.tensor(target), reduction="none"))
        torch.cat(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_([own], 1.0)
        optimizer.step()
    torch.testing.assert_close(SPEC.vectors(state), own.detach(), atol=1e-10, rtol=0)
    assert float((own.detach() - SPEC.vectors(start)).abs().max()) > 1e-3


def test_users_together_get_what_each_gets_alone() -> None:
    backbone = prefixed(double=True)
    recipe = Recipe(2, 1e-2, 0.01, 0.1, clip=0.3, batch_size=2)
    jobs = [TrainingJob(f"user {i}", i, PAIRS[i : i + 3], [s]) for i, s in enumerate(states(backbone, 3))]
    together = {job.name: state for job, (state,) in train_together(backbone, jobs, [SPEC], recipe)}
    for job in jobs:
        (alone,) = train_alone(backbone, job, [SPEC], recipe)
        torch.testing.assert_close(SPEC.vectors(together[job.name]), SPEC.vectors(alone), atol=1e-10, rtol=0)


def test_what_is_given_with_an_example_is_added_to_its_users_vectors() -> None:
    """If every example is given the same, that is a start elsewhere without weight decay."""
    backbone, recipe = prefixed(double=True), Recipe(2, 1e-2, 0.0, 0.1, clip=0.3, batch_size=2)
    (start,) = states(backbone, 1)
    more = torch.ones(SPEC.shape(backbone), dtype=torch.float64) / 7
    moved = {name: vectors + more for name, vectors in start.items()}
    (plain,) = train_alone(backbone, TrainingJob("a", 3, PAIRS, [moved]), [SPEC], recipe)
    job = TrainingJob("a", 3, PAIRS, [start], given=lambda number: more)
    (alone,) = train_alone(backbone, job, [SPEC], recipe)
    ((_, (stacked,)),) = train_together(backbone, [job], [SPEC], recipe)
    for found in (alone, stacked):
        torch.testing.assert_close(SPEC.vectors(found) + more, SPEC.vectors(plain), atol=1e-10, rtol=0)


@torch.no_grad()
def written(backbone: Any, state: Any, prompt: Any) -> str:
    """Greedy, by peft's model: one row, no cache, no padding."""
    model, stop = tuned(backbone, SPEC.vectors(state)), backbone.stop_at_newline()
    tokens: list[int] = []
    ids = backbone.with_prefix(0).encoder.prompt(prompt, 40)
    while len(tokens) < 12 and not (tokens and stop[tokens[-1]]):
        tokens.append(int(model(input_ids=torch.tensor([ids + tokens])).logits[0, -1].argmax()))
    text = backbone.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text.split("\n")[0].strip())


def test_answers_of_many_users_in_one_batch_are_pefts() -> None:
    backbone = prefixed()
    own = states(backbone, 2)
    adapter = SPEC.frozen(backbone, own, [1, 0, 1])
    answers = backbone.answer(replace(task("lamp5"), max_new_tokens=12), PROMPTS, [adapter])
    assert answers == [written(backbone, own[user], prompt) for user, prompt in zip([1, 0, 1], PROMPTS, strict=True)]
    assert len(set(answers)) > 1


def test_labels_are_scored_after_the_prefix() -> None:
    backbone, asked = prefixed(mode="labels"), task("lamp3")
    prompts = [asked.prompt(text) for text in ("good", "so bad that I sent it back")]
    own = states(backbone, 2)
    together = backbone.answer(asked, prompts, [SPEC.frozen(backbone, own, [0, 1])])
    model, expected = backbone.model, []
    for state, prompt in zip(own, prompts, strict=True):
        ids, scores = backbone.with_prefix(0).encoder.prompt(prompt, 9), []
        for label in asked.labels:
            answer = backbone.encoder.continuation(asked.prompt(""), label)
            before = torch.cat([SPEC.vectors(state), model.get_input_embeddings()(torch.tensor(ids + answer))])
            logits = model(inputs_embeds=before.unsqueeze(0)).logits[0, -1 - len(answer) : -1]
            scores.append(-float(cross_entropy(logits, torch.tensor(answer), reduction="sum")))
        expected.append(asked.labels[scores.index(max(scores))])
    assert together == expected


def test_a_lora_beneath_and_kept_constants_see_the_prefix() -> None:
    """A prefix that does not train is part of what is computed once per example."""
    backbone, recipe = prefixed(double=True), Recipe(2, 1e-2, 0.0, 0.1, clip=0.3, batch_size=2)
    lora, (prefix,) = LoraSpec(2, 4.0, targets=("v_proj",)), states(backbone, 1)
    beneath = [SPEC.frozen(backbone, [prefix])]
    job = TrainingJob("a", 3, PAIRS, [lora.fresh(backbone, 1)])
    (alone,) = train_alone(backbone, job, [lora], recipe, beneath=beneath)
    ((_, (stacked,)),) = train_together(backbone, [job], [lora], recipe, beneath=beneath)
    for name, tensor in alone.items():
        torch.testing.assert_close(stacked[name], tensor, atol=1e-10, rtol=0)


MORE: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": {},
    "GemmaForCausalLM": {"head_dim": 8},
    "Gemma3ForCausalLM": {"head_dim": 8},
    "OPTForCausalLM": {"word_embed_proj_dim": 8, "ffn_dim": 32},
}


@pytest.mark.parametrize("name", MORE)
def test_families_that_treat_embeddings_otherwise_read_a_prefix_as_with_peft(name: str) -> None:
    import transformers
    from peft import PromptTuningConfig, get_peft_model

    if not hasattr(transformers, name):
        pytest.skip(f"this version of transformers has no {name}")
    kind = getattr(transformers, name)
    usual = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 2}
    config = kind.config_class(**{**usual, "vocab_size": 50, "intermediate_size": 32, "pad_token_id": 0, **MORE[name]})
    torch.manual_seed(0)
    model = kind(config).eval()
    embedding = model.get_input_embeddings()
    vectors, ids = torch.randn(3, embedding.weight.shape[1]), torch.tensor([[5, 6, 7, 8]])
    window = PassWindow(torch.tensor([0]), torch.tensor([7]), torch.tensor([0]), 7)
    with torch.no_grad():
        with attached([Prefix(embedding, vectors)], torch.nn.ModuleList(), window):
            ours = model(input_ids=torch.cat([torch.ones(1, 3, dtype=torch.long), ids], dim=1)).logits
        theirs: Any = get_peft_model(
            model,
            PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, token_dim=embedding.weight.shape[1]),
        )
        theirs.prompt_encoder["default"].embedding.weight = torch.nn.Parameter(vectors)
        torch.testing.assert_close(ours[:, 3:], theirs(input_ids=ids).logits[:, 3:])


def test_a_prefix_counts_as_tokens_of_the_prompt() -> None:
    backbone = load_backbone()
    long = task("lamp5").prompt("word " * 3000)
    for length in (0, 8):
        assert len(backbone.with_prefix(length).encoder.prompt(long, 10)) <= backbone.shape.context - 10
    prompt, target = backbone.encoder.pair(PAIRS[0])
    with_places = backbone.with_prefix(8).encoder.pair(PAIRS[0])
    assert (with_places[0][8:], with_places[1]) == (prompt, target)
    # Places are replaced, not added to.
    assert backbone.with_prefix(8).with_prefix(2).encoder.pair(PAIRS[0])[0][2:] == prompt


def test_penalties_do_not_take_the_places_for_text() -> None:
    """Places hold EOS, so a penalty for what was read would keep a model from ending its answer."""
    from lampbench.backbone import Decoding

    backbone = load_backbone(decoding=Decoding("greedy", penalties=Penalties(repetition=1.8)))

    def end_at_once(module: Any, arguments: Any, logits: torch.Tensor) -> torch.Tensor:
        logits[..., backbone.encoder.eos] = 1.2 * logits.max(-1).values
        return logits

    prefixed = backbone.with_prefix(SPEC.length)
    adapter = SPEC.frozen(prefixed, states(prefixed, 1))
    assert all(prefixed.answer(task("lamp5"), PROMPTS, [adapter]))
    with backbone.model.get_output_embeddings().register_forward_hook(end_at_once):
        assert prefixed.answer(task("lamp5"), PROMPTS, [adapter]) == [""] * 3


def test_a_saved_prefix_is_a_peft_folder(tmp_path: Path) -> None:
    from peft import PeftModel

    backbone = prefixed()
    (state,) = states(backbone, 1)
    SPEC.save(state, tmp_path, backbone)
    assert torch.equal(SPEC.vectors(SPEC.load(tmp_path, backbone)), SPEC.vectors(state))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(backbone.model, str(tmp_path))(input_ids=ids).logits[:, SPEC.length :]
        before = torch.cat([SPEC.vectors(state), backbone.model.get_input_embeddings()(ids[0])]).unsqueeze(0)
        ours = backbone.model(inputs_embeds=before).logits[:, SPEC.length :]
    torch.testing.assert_close(ours, theirs[:, -4:])
    with pytest.raises(InputError, match=r"expected a PROMPT_TUNING with .*\(4, .*found PROMPT_TUNING"):
        PrefixSpec(4).load(tmp_path, backbone)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="not a PEFT folder"):
        SPEC.load(tmp_path, backbone)


def test_a_start_from_words_is_their_embeddings_and_needs_some() -> None:
    backbone = prefixed()
    ids = backbone.tokenizer("ab", add_special_tokens=False).input_ids
    expected = backbone.model.get_input_embeddings().weight[torch.tensor((ids * 3)[:3])]
    assert torch.equal(SPEC.vectors(SPEC.worded(backbone, "ab")), expected)
    with pytest.raises(InputError, match="expected words to start from"):
        SPEC.worded(backbone, "")


def test_without_places_a_prefix_is_refused() -> None:
    backbone = load_backbone()
    with pytest.raises(ValueError, match=r"leaves 0 places; call with_prefix\(3\)"):
        SPEC.frozen(backbone, states(backbone, 1))
