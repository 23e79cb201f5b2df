"""Quantized backbones: against bitsandbytes as transformers loads it, and against plain weights of the same values."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from lampbench_methods.lora import Lora
from lampbench_methods.oppu import Oppu
from runs import plan, run
from support import TINY_MODEL, dataset, task
from torch import nn

from lampbench.adapters import (
    AdapterSpec,
    InterventionSpec,
    LoraSpec,
    Positions,
    Recipe,
    TrainingJob,
    train_alone,
    train_together,
)
from lampbench.backbone import Decoding, TransformersBackbone, check_quantization, describe_backbone
from lampbench.core import HistoryItem, InputError, RunContext, config_from
from lampbench.rows import read_row

bitsandbytes: Any = pytest.importorskip("bitsandbytes", reason="pip install lampbench[quantize]")

KINDS = ("nf4", "int8")
MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
RECIPE = Recipe(epochs=2, learning_rate=1e-2, weight_decay=1e-2, warmup_ratio=0.2, clip=0.3, batch_size=3)
LAST = Positions.parse("l3")


def load(quantize: str | None, folder: Path = TINY_MODEL) -> Any:
    info = describe_backbone(str(folder), dtype="float32", device="cpu", quantize=quantize)
    return TransformersBackbone.load(info, decoding=Decoding(), batch_size=8, seed=0)


def unpacked(quantize: str) -> Any:
    """A plain backbone with the values that the quantized one's packed weights stand for."""
    plain, packed = load(None), load(quantize)
    with torch.no_grad():
        for name, module in packed.model.named_modules():
            if name.rpartition(".")[2] in MAPS:
                plain.model.get_submodule(name).weight.copy_(module.weight)
    return plain


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """The quantized backbone and the plain one of the same values, in float64."""
    packed, plain = load(request.param), unpacked(request.param)
    packed.model.double()
    plain.model.double()
    return packed, plain


@pytest.mark.skipif(int(transformers.__version__.split(".")[0]) < 5, reason="transformers 4 quantizes on GPUs alone")
@pytest.mark.parametrize("kind", KINDS)
def test_the_values_are_those_that_transformers_loads_with_bitsandbytes(kind: str) -> None:
    from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config: Any = BitsAndBytesConfig(load_in_4bit=kind == "nf4", load_in_8bit=kind == "int8", bnb_4bit_quant_type="nf4")
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        TINY_MODEL, quantization_config=config, dtype=torch.float32, device_map={"": "cpu"}
    )
    ours = load(kind)
    seen = 0
    for name, module in theirs.named_modules():
        if name.rpartition(".")[2] not in MAPS:
            continue
        own = ours.model.get_submodule(name).weight
        if kind == "nf4":
            expected = dequantize_4bit(module.weight.data, module.weight.quant_state)
        else:
            expected = int8_vectorwise_dequant(module.weight.data, module.weight.SCB)
        torch.testing.assert_close(own, expected, rtol=1e-6, atol=0)
        seen += 1
    assert seen == 7 * 3


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_plain_weights_of_the_same_values(kind: str) -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])
    packed, plain, original = load(kind), unpacked(kind), load(None)
    with torch.no_grad():
        found, expected, full = (backbone.model(ids).logits for backbone in (packed, plain, original))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not torch.allclose(found, full, atol=1e-2)
    # One row alone is the same: nothing is rounded by what else is in the batch.
    with torch.no_grad():
        torch.testing.assert_close(packed.model(ids[1:]).logits, found[1:], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_maps_of_the_layers_are_packed_and_nothing_else(kind: str) -> None:
    model = load(kind).model
    held = values = rows = 0
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in MAPS:
            held += sum(buffer.nbytes for buffer in module.buffers())
            values += module.in_features * module.out_features
            rows += module.out_features
            assert not list(module.parameters())
    # A scale of 4 bytes to 64 values, or to a row.
    assert held == {"nf4": values // 2 + values // 64 * 4, "int8": values + rows * 4}[kind]
    assert isinstance(model.get_output_embeddings(), nn.Linear)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


SPECS: dict[str, Sequence[AdapterSpec]] = {
    "lora": [LoraSpec(4, 8.0, 0.05, ("q_proj", "k_proj", "down_proj"))],
    "interventions": [InterventionSpec((0, 2), 4, LAST)],
    "both": [LoraSpec(2, 4.0), InterventionSpec((1,), 4, LAST)],
}


def jobs(backbone: Any, specs: Sequence[AdapterSpec]) -> list[TrainingJob]:
    items = [HistoryItem(str(i), f"about {w}", f"{w} title") for i, w in enumerate(("alpha", "beta", "gamma", "delta"))]
    pairs = [task("lamp5").pair(item) for item in items]
    return [
        TrainingJob(f"user {k}", k, pairs[: 4 - k], [spec.fresh(backbone, k + i) for i, spec in enumerate(specs)])
        for k in range(3)
    ]


@pytest.mark.parametrize("name", SPECS)
def test_both_engines_train_as_on_plain_weights_of_the_same_values(name: str, both: tuple[Any, Any]) -> None:
    packed, plain = both
    specs = SPECS[name]
    # Something beneath, as OPPU's task LoRA is, on maps that users' adapters leave alone as well.
    task_spec = LoraSpec(2, 4.0, 0.0, ("q_proj", "o_proj"))
    generator = torch.Generator().manual_seed(3)
    state = {
        name: torch.randn(t.shape, generator=generator).double() / 5 for name, t in task_spec.fresh(packed, 0).items()
    }
    expected = {
        job.name: states
        for job, states in train_together(
            plain.with_weights(task_spec.changes(plain, state)), jobs(plain, specs), specs, RECIPE
        )
    }
    beneath = [task_spec.frozen(packed, [state])]
    found = {job.name: s for job, s in train_together(packed, jobs(packed, specs), specs, RECIPE, beneath=beneath)}
    for job in jobs(packed, specs):
        alone = train_alone(packed, job, specs, RECIPE, beneath=beneath)
        for start, mine, solo, theirs in zip(job.starts, found[job.name], alone, expected[job.name], strict=True):
            assert any(not torch.equal(mine[key], start[key]) for key in start)
            for key in theirs:
                torch.testing.assert_close(mine[key], theirs[key], rtol=1e-7, atol=1e-9)
                torch.testing.assert_close(solo[key], theirs[key], rtol=1e-7, atol=1e-9)


def build(kind: Any, backbone: Any, **settings: Any) -> Any:
    config = config_from(kind.Config, {"learning_rate": 3e-2, "clip": 10.0, **settings}, kind.__name__)
    config = kind.resolve(config, task("lamp5"), RunContext("folder", backbone.shape))
    return kind(task=task("lamp5"), config=config, seed=0, backbone=backbone)


def test_a_task_lora_acts_beneath_as_if_it_were_merged(both: tuple[Any, Any], tmp_path: Path) -> None:
    packed, plain = both
    data = dataset("lamp5")
    ours, merged = (build(Oppu, backbone, task_epochs=2, user_epochs=2) for backbone in (packed, plain))
    for method in (ours, merged):
        method.fit_shared(data.shared)
        method.adapt(data.users)
    assert ours.backbone is packed
    assert merged.backbone is not plain
    answers = ours.predict(data.queries)
    assert answers == merged.predict(data.queries)
    assert answers != build(Oppu, packed).predict(data.queries)
    # A user who is forgotten is answered by the task LoRA alone.
    for method in (ours, merged):
        method.forget(data.users[0].id)
    assert ours.predict(data.queries) == merged.predict(data.queries)
    for part in ("shared", "user"):
        (tmp_path / part).mkdir()
    ours.save_shared(tmp_path / "shared")
    ours.save_user(data.users[1].id, tmp_path / "user")
    again = build(Oppu, packed)
    again.load_shared(tmp_path / "shared", data.shared)
    again.load_user(data.users[1], tmp_path / "user")
    own = [query for query in data.queries if query.user_id == data.users[1].id]
    assert again.predict(own) == ours.predict(own)


def test_the_task_lora_alone_answers_everybody(both: tuple[Any, Any]) -> None:
    data = dataset("lamp5")
    ours, merged = (build(Lora, backbone, epochs=2) for backbone in both)
    for method in (ours, merged):
        method.fit_shared(data.shared)
    assert ours.predict(data.queries) == merged.predict(data.queries)
    assert ours.parameters() == merged.parameters()


def test_a_merged_copy_of_a_plain_backbone_still_shares_what_it_does_not_change(both: tuple[Any, Any]) -> None:
    packed, plain = both
    spec = LoraSpec(2, 4.0)
    assert (spec.mergeable(packed), spec.mergeable(plain)) == (False, True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY_MODEL, tmp_path / "copy"))


def test_what_is_quantized_already_is_not_quantized_again(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    with pytest.raises(InputError, match=r"--quantize nf4: the weights of .* are quantized already \(gptq\)"):
        describe_backbone(str(folder), device="cpu", quantize="nf4")


def test_a_device_without_kernels_is_refused() -> None:
    with pytest.raises(InputError, match="--quantize nf4: bitsandbytes does not work on meta"):
        check_quantization("nf4", "meta")


def test_a_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs bitsandbytes; pip install 'lampbench\[quantize\]'"):
        describe_backbone(str(TINY_MODEL), device="cpu", quantize="int8")


def test_a_model_whose_weights_are_in_no_plain_maps_is_refused(tmp_path: Path) -> None:
    config = transformers.GPT2Config(
        vocab_size=448, n_embd=48, n_layer=2, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=1
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    for path in TINY_MODEL.glob("*token*"):
        shutil.copy(path, tmp_path)
    info = describe_backbone(str(tmp_path), dtype="float32", device="cpu", quantize="nf4")
    with pytest.raises(InputError, match="0% of the weights in its decoder layers are in plain linear maps"):
        TransformersBackbone.checked(info, decoding=Decoding(), batch_size=1, seed=0)


def test_a_run_names_its_quantization_and_keeps_users_apart(tmp_path: Path) -> None:
    settings = {"task_epochs": 3, "user_epochs": 4, "learning_rate": 3e-2, "clip": 10.0}
    plain, made = (plan(tmp_path, "oppu", overrides=settings, quantize=kind) for kind in (None, "nf4"))
    assert set(plain.identity["backbone"]) == {"id", "revision", "dtype", "device"}
    assert made.identity["backbone"] == {**plain.identity["backbone"], "quantization": "nf4"}
    assert made.run_id != plain.run_id
    row = run(made, tmp_path)
    assert row.status == "success", row.error
    assert row.identity.backbone.quantization == "nf4"
    assert row.failed_checks == ()
    again = read_row(made.folder / "row.json").identity.backbone
    assert again is not None
    assert again.model[3:] == ("quantization nf4",)
