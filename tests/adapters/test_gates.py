"""Gates before a LoRA, and mean inputs, against formulas: one row at a time, with hooks written here."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support import TINY_MODEL, load_backbone, task
from torch.nn.functional import cross_entropy

from lampbench.adapters import (
    EngineOptions,
    GateSpec,
    LoraSpec,
    Recipe,
    State,
    TrainingJob,
    capacity,
    mean_inputs,
    train_alone,
    train_together,
)
from lampbench.core import HistoryItem, InputError

LORA = LoraSpec(2, 4.0, 0.05, ("q_proj", "down_proj"))
SPEC = GateSpec(LORA)
PAIRS = [task("lamp5").pair(HistoryItem(str(i), f"about {w}", f"{w} title")) for i, w in enumerate("abcde")]
# Three epochs of three steps, of which seven are done.
RECIPE = Recipe(7, 1e-2, 0.0, 0.0, clip=0.3, batch_size=2, most_steps=7)


@pytest.fixture(scope="module")
def exact() -> Any:
    """The tiny backbone in float64."""
    backbone = load_backbone()
    backbone.model.double()
    return backbone


def lora(backbone: Any, seed: int) -> State:
    draw = torch.Generator().manual_seed(seed)
    shapes = LORA.shapes(backbone).items()
    return {name: 0.3 * torch.randn(shape, dtype=torch.float64, generator=draw) for name, shape in shapes}


@contextmanager
def gated(backbone: Any, state: State, gates: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """W x + (alpha / rank) B A (x sigmoid(x.g))."""
    with ExitStack() as stack:
        for name, gate in gates.items():
            a, b = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]

            def after(module: Any, given: Any, output: Any, a: Any = a, b: Any = b, gate: Any = gate) -> Any:
                x = given[0]
                share = 1 / (1 + torch.exp(-(x * gate).sum(-1, keepdim=True)))
                return output + 2.0 * (x * share) @ a.T @ b.T

            stack.enter_context(backbone.model.get_submodule(name).register_forward_hook(after))
        yield


def test_both_engines_train_gates_as_a_plain_loop_does(exact: Any, tmp_path: Path) -> None:
    jobs = []
    for seed in (7, 8):
        jobs.append(TrainingJob(f"user {seed}", seed, PAIRS[: seed - 3], [SPEC.before(exact, lora(exact, seed))]))
    together = {job.name: own for job, own in train_together(exact, jobs, [SPEC], RECIPE, options=EngineOptions())}
    names = [place.name for place in LORA.places(exact)]
    for job in jobs:
        gates = {name: torch.zeros(SPEC.shapes(exact)[f"{name}.lora_gate"], dtype=torch.float64) for name in names}
        optimizer = torch.optim.AdamW([gate.requires_grad_() for gate in gates.values()], lr=1e-2, weight_decay=0.0)
        draw = torch.Generator().manual_seed(job.seed)
        encoded = [exact.encoder.pair(pair) for pair in job.pairs]
        batches: list[list[int]] = []
        while len(batches) < 7:
            order = torch.randperm(len(encoded), generator=draw).tolist()
            batches += [order[start : start + 2] for start in range(0, len(order), 2)]
        for step, batch in enumerate(batches[:7]):
            optimizer.param_groups[0]["lr"] = 1e-2 * (7 - step) / 7
            optimizer.zero_grad()
            losses = []
            with gated(exact, job.starts[0], gates):
                for prompt, target in (encoded[i] for i in batch):
                    logits = exact.model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1]
                    losses.append(cross_entropy(logits, torch.tensor(target), reduction="none"))
            torch.cat(losses).mean().backward()
            torch.nn.utils.clip_grad_norm_(list(gates.values()), 0.3)
            optimizer.step()
        folder = tmp_path / job.name
        folder.mkdir()
        SPEC.save(together[job.name][0], folder, exact)
        (alone,) = train_alone(exact, job, [SPEC], RECIPE)
        for state in (alone, *together[job.name], SPEC.load(folder, exact)):
            for name, gate in gates.items():
                torch.testing.assert_close(state[f"{name}.lora_gate"], gate.detach(), atol=1e-10, rtol=0)
                assert float(gate.detach().norm()) > 1e-2
            for name, part in lora(exact, job.seed).items():
                assert torch.equal(state[name], part)
    (folder / "gates.safetensors").unlink()
    with pytest.raises(InputError, match=r"gates\.safetensors: not a file of saved gates"):
        SPEC.load(folder, exact)


def check_mean_inputs(backbone: Any, spec: LoraSpec) -> None:
    found = mean_inputs(backbone, spec, PAIRS)
    for place in spec.places(backbone):
        means = []
        for prompt, target in (backbone.encoder.pair(pair) for pair in PAIRS):
            read: list[torch.Tensor] = []
            module = backbone.model.get_submodule(place.name)
            with module.register_forward_pre_hook(lambda _, given, read=read: read.append(given[0])), torch.no_grad():
                backbone.model(torch.tensor([prompt + target]))
            tokens = read[0][0, len(prompt) :]
            assert len(tokens) == len(target)
            centered = tokens - tokens.mean(-1, keepdim=True)
            normal = centered / (centered.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
            means.append(normal.mean(0))
        torch.testing.assert_close(found[place.name], torch.stack(means).mean(0), atol=1e-10, rtol=0)
        assert math.isfinite(float(found[place.name].norm()))


def test_mean_inputs_are_of_the_targets_tokens_whatever_the_batch(exact: Any) -> None:
    check_mean_inputs(exact, LORA)


def test_mean_inputs_are_found_in_a_model_that_names_no_decoder(tmp_path: Path) -> None:
    """In transformers 4, GPT-2 has no ``get_decoder``."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY_MODEL)
    tokenizer.save_pretrained(tmp_path)
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = transformers.GPT2Config(n_embd=16, n_head=2, n_layer=2, vocab_size=len(tokenizer), **ends)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    backbone = load_backbone(tmp_path)
    backbone.model.double()
    check_mean_inputs(backbone, LoraSpec(2, 4.0, 0.0, ("c_attn", "c_fc")))


def test_the_loras_behind_the_gates_fit_into_the_share_of_memory_for_users(exact: Any) -> None:
    free, spec = 1 << 25, GateSpec(LORA)
    bank = spec.bank(exact, capacity(exact, [spec], free).users)
    trained, held = (
        sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        for tensors in (bank.parameters, bank.constants)
    )
    # A fifth of what is free; gradient and two moments are added to what is trained.
    assert free / 10 < 4 * trained + held <= free / 5
