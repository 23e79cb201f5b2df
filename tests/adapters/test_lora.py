"""LoRA against peft: logits, files, the merged backbone, counts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import load_backbone, model_folders, task

from lampbench.adapters import LoraSpec, State, row_key
from lampbench.backbone import PassWindow
from lampbench.core import InputError

SPEC = LoraSpec(4, 6.0, 0.05, ("q_proj", "k_proj", "down_proj"))
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16], [3, 4, 5, 6, 7, 8]])


def trained(backbone: Any, seed: int, spec: LoraSpec = SPEC) -> State:
    """Parameters as training would leave them: B is no longer 0."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(t.shape, generator=generator) * 0.3 for name, t in spec.fresh(backbone, seed).items()}


def logits(backbone: Any, adapters: Any) -> torch.Tensor:
    rows, columns = IDS.shape
    zeros = torch.zeros(rows, dtype=torch.long)
    window = PassWindow(zeros, zeros + columns, torch.arange(rows), columns)
    with torch.no_grad(), adapters.attach(backbone.layers, window):
        found: torch.Tensor = backbone.model(IDS).logits
    return found


def peft_logits(backbone: Any, folder: Path, ids: torch.Tensor) -> torch.Tensor:
    from peft import PeftModel

    model: Any = PeftModel.from_pretrained(backbone.model, str(folder))
    try:
        with torch.no_grad():
            found: torch.Tensor = model(ids).logits
    finally:
        model.unload()
    return found


@pytest.mark.parametrize("folder", model_folders())
def test_a_saved_user_is_a_peft_folder_with_the_same_logits(folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(folder)
    plain = backbone.model(IDS).logits
    states = [trained(backbone, seed) for seed in range(3)]
    stacked = logits(backbone, SPEC.frozen(backbone, states, [2, 0, 1]))
    for row, user in enumerate((2, 0, 1)):
        path = tmp_path / str(user)
        path.mkdir()
        SPEC.save(states[user], path, backbone)
        expected = peft_logits(backbone, path, IDS[row : row + 1])[0]
        torch.testing.assert_close(stacked[row], expected, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(expected, plain[row], atol=1e-2)
        alone = logits(backbone, SPEC.frozen(backbone, [states[user]]))[row]
        torch.testing.assert_close(alone, expected, atol=1e-4, rtol=1e-4)
        loaded = SPEC.load(path, backbone)
        assert all(torch.equal(loaded[name], states[user][name]) for name in states[user])
        size = (path / "adapter_model.safetensors").stat().st_size
        needed = 4 * SPEC.parameter_count(backbone)
        assert needed <= size < needed + 4000


def test_a_folder_that_peft_wrote_loads_into_a_bank(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    backbone = load_backbone()
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "k_proj", "down_proj"], init_lora_weights=False)
    model: Any = get_peft_model(backbone.model, config).eval()
    with torch.no_grad():
        expected = model(IDS).logits
    model.save_pretrained(str(tmp_path))
    model.unload()
    bank = SPEC.bank(backbone, 2)
    bank.put(1, SPEC.load(tmp_path, backbone))
    adapter = bank.evaluated().adapter(torch.ones(len(IDS), dtype=torch.long), None)
    torch.testing.assert_close(logits(backbone, adapter), expected, atol=1e-4, rtol=1e-4)


def test_merging_gives_the_same_logits_and_leaves_the_backbone_alone() -> None:
    backbone = load_backbone()
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    state = trained(backbone, 1)
    merged = backbone.with_weights(SPEC.changes(backbone, state))
    with torch.no_grad():
        found = merged.model(IDS).logits
    torch.testing.assert_close(found, logits(backbone, SPEC.frozen(backbone, [state])), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())
    shared = {id(p) for p in backbone.model.parameters()} & {id(p) for p in merged.model.parameters()}
    # Everything but three maps a layer is the same memory.
    assert len(shared) == len(list(backbone.model.parameters())) - 3 * len(backbone.layers)


def test_a_user_trains_in_peft_and_leaves_no_trace(backbone: Any) -> None:
    before = [type(module) for module in backbone.model.modules()]
    count = SPEC.parameter_count(backbone)
    with SPEC.alone(backbone, trained(backbone, 2)) as lone:
        assert sum(p.numel() for p in lone.parameters()) == count
        assert "lora" in str(type(backbone.layers[0].self_attn.q_proj)).lower()
    assert [type(module) for module in backbone.model.modules()] == before
    assert not any(p.requires_grad for p in backbone.model.parameters())


def test_an_unknown_module_is_refused_and_the_known_are_named(backbone: Any) -> None:
    with pytest.raises(InputError, match=r"LoRA on 'out_proj': LlamaForCausalLM has no such linear map.*q_proj"):
        LoraSpec(4, 8.0, targets=("q_proj", "out_proj")).places(backbone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "expected a LoRA, found peft_type 'IA3'"),
        ({"r": 8}, "expected rank 4 and alpha 6.0, found 8"),
        ({"use_dora": True}, "only a plain LoRA can be loaded; this one sets use_dora"),
        ({"bias": "all"}, "only a plain LoRA can be loaded; this one sets bias"),
    ],
)
def test_another_kind_of_peft_folder_is_refused(
    backbone: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    SPEC.save(trained(backbone, 0), tmp_path, backbone)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        SPEC.load(tmp_path, backbone)


def test_a_folder_of_other_modules_or_none_is_refused(backbone: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a PEFT folder"):
        SPEC.load(tmp_path, backbone)
    other = LoraSpec(4, 6.0, targets=("q_proj",))
    other.save(trained(backbone, 0, other), tmp_path, backbone)
    with pytest.raises(InputError, match=r"down_proj.lora_A.weight: expected \(4, 96\), found nothing"):
        SPEC.load(tmp_path, backbone)


def test_in_bf16_masters_stay_in_float32_and_training_moves_them() -> None:
    from lampbench.adapters import InterventionSpec, Positions, Recipe, TrainingJob, train_together
    from lampbench.core import HistoryItem

    backbone = load_backbone()
    backbone.model.to(torch.bfloat16)
    pairs = [task("lamp5").pair(HistoryItem(str(i), f"about {w}", f"{w} title")) for i, w in enumerate("abcdef")]
    for spec in (
        SPEC,
        InterventionSpec((1,), 4, Positions.parse("all")),
        InterventionSpec((1,), 4, Positions.parse("l2")),
    ):
        bank = spec.bank(backbone, 2)
        assert {p.dtype for p in bank.parameters.values()} == {torch.float32}
        start = spec.fresh(backbone, 0)
        ((_, (state,)),) = train_together(
            backbone, [TrainingJob("u", 0, pairs, [start])], [spec], Recipe(2, 1e-2, 0.01, 0.1, 1.0, 3)
        )
        assert any(not torch.equal(state[name], start[name]) for name in start)
        assert all(tensor.isfinite().all() for tensor in state.values())


def added(backbone: Any, adapter: Any, rows: int) -> torch.Tensor:
    """What LoRA adds to the first layer's q_proj, shape (rows, columns, outputs)."""
    ids = IDS[:1].expand(rows, -1)
    zeros = torch.zeros(rows, dtype=torch.long)
    window = PassWindow(zeros, zeros + ids.shape[1], torch.arange(rows), ids.shape[1])
    place, found = backbone.layers[0].self_attn, []

    def keep(module: Any, arguments: Any, output: torch.Tensor) -> None:
        plain = torch.nn.functional.linear(arguments[0], module.weight, module.bias)
        found.append(output - plain)

    with torch.no_grad(), adapter.attach(backbone.layers, window), place.q_proj.register_forward_hook(keep):
        backbone.model(ids)
    return found[0]


@pytest.mark.parametrize("engine", ["stacked", "solo"])
def test_dropout_leaves_the_mean_of_what_is_added_as_it_is(engine: str) -> None:
    backbone, rows = load_backbone(), 512
    spec = LoraSpec(4, 6.0, 0.5, ("q_proj",), (0,))
    state, keys = trained(backbone, 1, spec), torch.tensor([row_key(0, 0, row) for row in range(rows)])
    expected = added(backbone, spec.frozen(backbone, [state]), 1)[0]
    if engine == "stacked":
        bank = spec.bank(backbone, 1)
        bank.put(0, state)
        found = added(backbone, bank.evaluated().adapter(torch.zeros(rows, dtype=torch.long), keys), rows)
    else:
        with spec.alone(backbone, state) as alone:
            found = added(backbone, alone.adapter(keys), rows)
    # Half the inputs are dropped: without scaling up, half of the mean would be left.
    slope = float((found.mean(0) * expected).sum() / expected.square().sum())
    assert slope == pytest.approx(1.0, abs=0.1)
    assert not torch.allclose(found[0], expected, atol=1e-3)


def test_a_lora_starts_as_pefts_does_within_its_bounds(backbone: Any) -> None:
    for name, tensor in SPEC.fresh(backbone, 0).items():
        if ".lora_B." in name:
            assert not tensor.any()
            continue
        bound = tensor.shape[1] ** -0.5
        assert tensor.abs().max() <= bound
        assert min(tensor.max(), -tensor.min()) > 0.9 * bound
        # Uniform, and not only within.
        assert float(tensor.std()) == pytest.approx(bound / 3**0.5, rel=0.15)
