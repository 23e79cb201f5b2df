"""lofit against its formulas: training and answers of one row at a time, with hooks written here."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lampbench_methods.lofit import Lofit
from safetensors.torch import load_file
from support import dataset, load_backbone, plain_steps, task
from torch.nn.functional import cross_entropy

from lampbench.adapters import HeadSpec, Recipe, TrainingJob, train_alone, train_together
from lampbench.backbone import attention_outputs
from lampbench.core import HistoryItem, InputError, RunContext, config_from

FAST = {"share": 0.2, "head_learning_rate": 1e-2, "learning_rate": 0.3, "head_epochs": 1, "epochs": 2}
PAIRS = [task("lamp5").pair(HistoryItem(str(i), f"about {w}", f"{w} title")) for i, w in enumerate("abcde")]


def build(backbone: Any, **settings: Any) -> Lofit:
    config = config_from(Lofit.Config, settings, "lofit")
    own = replace(task("lamp5"), max_new_tokens=10)
    config = Lofit.resolve(config, own, RunContext("folder", backbone.shape, "lofit"))
    return Lofit(task=own, config=config, seed=0, backbone=backbone)


@contextmanager
def heads_changed(backbone: Any, values: dict[tuple[int, int], torch.Tensor], kind: str) -> Iterator[None]:
    """Scale, or add to, the outputs of single heads, at every token."""
    width = backbone.model.config.hidden_size // backbone.model.config.num_attention_heads

    def change(layer: int) -> Any:
        def before(module: Any, given: Any) -> Any:
            parts = list(given[0].split(width, dim=-1))
            for (at, head), vector in values.items():
                if at == layer:
                    parts[head] = parts[head] * (1 + vector) if kind == "scale" else parts[head] + vector
            return (torch.cat(parts, dim=-1), *given[1:])

        return before

    with ExitStack() as stack:
        for layer, module in enumerate(backbone.layers):
            stack.enter_context(module.self_attn.o_proj.register_forward_pre_hook(change(layer)))
        yield


@pytest.mark.parametrize("kind", ["scale", "offset"])
def test_both_engines_follow_a_plain_loop(kind: Any) -> None:
    """Formula, penalty, schedule and clip, in float64 and one row at a time."""
    backbone = load_backbone()
    backbone.model.double()
    recipe = Recipe(2, 1e-2, 0.0, 0.0, clip=1.0, batch_size=2, l1=1e-3)
    spec = HeadSpec(kind, None if kind == "scale" else ((0, 1), (2, 0), (2, 3)))
    job = TrainingJob("someone", 7, PAIRS, [spec.fresh(backbone, 0)])
    heads = [(place.layer, head) for place in spec.places(backbone) for head in place.heads]
    width = spec.places(backbone)[0].width
    values = {head: torch.zeros(width, dtype=torch.float64, requires_grad=True) for head in heads}
    optimizer = torch.optim.AdamW(list(values.values()), lr=1e-2, weight_decay=0.0)
    encoded = [backbone.encoder.pair(pair) for pair in PAIRS]
    for chosen in plain_steps(optimizer):
        losses = []
        with heads_changed(backbone, values, kind):
            for prompt, target in (encoded[i] for i in chosen):
                logits = backbone.model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
                losses.append(cross_entropy(logits, torch.tensor(target), reduction="none"))
        (torch.cat(losses).mean() + 1e-3 * sum(v.abs().sum() for v in values.values())).backward()
        torch.nn.utils.clip_grad_norm_(list(values.values()), 1.0)
        optimizer.step()
    ((_, together),) = train_together(backbone, [job], [spec], recipe)
    for (state,) in (train_alone(backbone, job, [spec], recipe), together):
        for place in spec.places(backbone):
            for head, vector in zip(place.heads, state[place.name], strict=True):
                torch.testing.assert_close(vector, values[place.layer, head].detach(), atol=1e-10, rtol=0)
                assert float(vector.norm()) > 1e-3


def test_the_heads_with_the_longest_scalings_get_each_users_offsets(tmp_path: Path) -> None:
    backbone, data = load_backbone(), dataset("lamp5")
    method = build(backbone, **FAST)
    method.fit_shared(data.shared)
    plain = list(method.predict(data.queries))
    method.adapt(data.users)
    method.save_shared(tmp_path)
    lengths = {(layer, head): length for layer, head, length in json.loads((tmp_path / "heads.json").read_text())}
    every = [(layer, head) for layer in range(len(backbone.layers)) for head in range(4)]
    assert list(lengths) == every
    kept = sorted(sorted(every, key=lambda head: lengths[head])[-round(0.2 * len(every)) :])
    answers = list(method.predict(data.queries))
    for query, answer in list(zip(data.queries, answers, strict=True))[:3]:
        folder = tmp_path / query.id
        folder.mkdir()
        method.save_user(query.user_id, folder)
        state = load_file(folder / "heads.safetensors")
        assert sum(tensor.numel() for tensor in state.values()) == method.parameters().per_user
        rows = [(int(name.split(".")[0]), row) for name in sorted(state) for row in state[name]]
        values = {head: row for head, (layer, row) in zip(kept, rows, strict=True) if head[0] == layer}
        ids = backbone.encoder.prompt(task("lamp5").prompt(query.text, query.id), 10)
        assert answer == greedy(backbone, ids, values)
    assert answers != plain


@torch.no_grad()
def greedy(backbone: Any, ids: list[int], values: dict[tuple[int, int], torch.Tensor]) -> str:
    """One row, no cache, no padding."""
    tokens: list[int] = []
    stop = backbone.stop_at_newline()
    with heads_changed(backbone, values, "offset"):
        while len(tokens) < 10 and not (tokens and stop[tokens[-1]]):
            tokens.append(int(backbone.model(torch.tensor([ids + tokens])).logits[0, -1].argmax()))
    text = backbone.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text.split("\n")[0].strip())


def test_counts_on_llama_2_7b(llama_shaped: Any) -> None:
    # 1,024 heads of 128 numbers, of which 3% are kept.
    counts = build(llama_shaped).parameters()
    assert (counts.shared, counts.per_user) == (131_072, 31 * 128)
    assert build(llama_shaped, share=0.1).parameters().per_user == 102 * 128


def small(name: str, **settings: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{name}Config")(**settings)
    with torch.device("meta"):
        return getattr(transformers, f"{name}ForCausalLM")(config)


MODELS: dict[str, tuple[dict[str, Any], int, int]] = {
    "Llama": ({"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}, 4, 8),
    "Gemma": ({"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "head_dim": 16}, 4, 16),
    "GPTNeoX": ({"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}, 4, 8),
    "OPT": ({"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}, 4, 8),
    "Phi": ({"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}, 4, 8),
    "Bloom": ({"hidden_size": 32, "n_head": 4, "n_layer": 2}, 4, 8),
}


@pytest.mark.parametrize("name", MODELS)
def test_heads_are_found_in_families_that_call_them_otherwise(name: str) -> None:
    from lampbench.backbone import find_layers

    settings, heads, width = MODELS[name]
    model = small(name, **settings)
    found = attention_outputs(model, find_layers(model, 2))
    assert [(number, own.heads, own.width) for number, own in found.items()] == [(n, heads, width) for n in (0, 1)]


def test_gpt2_keeps_its_heads_before_a_transposed_map() -> None:
    import transformers

    from lampbench.backbone import find_layers

    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=32, n_head=4, n_layer=2))
    found = attention_outputs(model, find_layers(model, 2))
    assert [(own.path, own.heads, own.width) for own in found.values()] == [("attn.c_proj", 4, 8)] * 2


def test_a_model_without_heads_and_files_of_others_are_refused(tmp_path: Path) -> None:
    backbone = load_backbone()
    shape = replace(backbone.shape, linear_maps=("in_proj",), heads=0)
    with pytest.raises(InputError, match="attention heads cannot be told apart"):
        Lofit.resolve(Lofit.Config(), task("lamp5"), RunContext("folder", shape))
    method = build(backbone)
    (tmp_path / "heads.json").write_text("[[0, 0, 1.0]]")
    with pytest.raises(InputError, match=r"heads\.json: expected the model's \d+ attention heads, found 1 others"):
        method.load_shared(tmp_path, [])
    (tmp_path / "heads.json").write_text("[[0, 0]")
    with pytest.raises(InputError, match=r"heads\.json: not a list of heads"):
        method.load_shared(tmp_path, [])
