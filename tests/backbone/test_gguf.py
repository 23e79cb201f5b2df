"""GGUF files as models: against the same weights in a folder, and damaged in every part."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import plan, run
from safetensors.torch import load_file
from support import TINY_MODEL, dataset, load_backbone, task

from lampbench.backbone import TransformersBackbone, describe_backbone, load_tokenizer
from lampbench.core import InputError
from lampbench.hub import find_tokenizer

gguf: Any = pytest.importorskip("gguf", reason="pip install lampbench[gguf]")

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    number, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"blk.{number}.{NAMES[rest.removesuffix('.weight')]}.weight"


def interleaved(matrix: Any, heads: int) -> Any:
    """Rows of queries and keys as llama.cpp orders them: pairs that rotate together lie side by side."""
    return matrix.reshape(heads, 2, matrix.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(matrix.shape)


def write_gguf(path: Path, architecture: str = "llama", packed: str | None = None, tokenizer: bool = True) -> Path:
    """The tiny model as a GGUF file; matrices whose names end in ``packed`` in 8 bits."""
    config = json.loads((TINY_MODEL / "config.json").read_text())
    vocabulary = json.loads((TINY_MODEL / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(path, architecture)
    # transformers 4.45 reads no file without a name.
    writer.add_name("tiny")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if packed else gguf.LlamaFileType.ALL_F32)
    if tokenizer:
        tokens = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in ("<s>", "</s>") else 1 for token in tokens])
        writer.add_token_merges([" ".join(pair) for pair in vocabulary["merges"]])
        writer.add_bos_token_id(config["bos_token_id"])
        writer.add_eos_token_id(config["eos_token_id"])
    for name, tensor in load_file(TINY_MODEL / "model.safetensors").items():
        matrix = tensor.numpy()
        for part, heads in (("q_proj", config["num_attention_heads"]), ("k_proj", config["num_key_value_heads"])):
            if part in name:
                matrix = interleaved(matrix, heads)
        if packed and name.endswith(packed):
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(matrix, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(matrix))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_a_gguf_file_answers_as_the_folder_of_the_same_weights(model: Path) -> None:
    read, plain = load_backbone(model), load_backbone()
    found, expected = read.model.state_dict(), plain.model.state_dict()
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)
    prompts = [task("lamp5").prompt(query.text, query.id) for query in dataset("lamp5").queries]
    assert read.answer(task("lamp5"), prompts) == plain.answer(task("lamp5"), prompts)
    assert read.usage.prompt_tokens == plain.usage.prompt_tokens


def test_packed_values_are_unpacked(tmp_path: Path) -> None:
    read = load_backbone(write_gguf(tmp_path / "q8.gguf", packed="down_proj.weight"))
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in load_file(TINY_MODEL / "model.safetensors").items():
        expected = tensor.numpy()
        if name.endswith("down_proj.weight"):
            expected = gguf.quants.dequantize(gguf.quants.quantize(expected, kind), kind)
        np.testing.assert_array_equal(read.model.state_dict()[name].numpy(), expected)
    assert read.info.quantization == "Q8_0"


def test_it_is_described_by_content_and_not_by_place(model: Path, tmp_path: Path) -> None:
    info = describe_backbone(str(model), device="cpu")
    assert (info.shape.layers, info.shape.width, info.shape.context) == (3, 48, 512)
    assert (info.source.id, info.quantization, info.dtype) == ("tiny.gguf", "F32", "float32")
    moved = tmp_path / "moved.gguf"
    moved.write_bytes(model.read_bytes())
    assert describe_backbone(str(moved), device="cpu").source.revision == info.source.revision
    moved.write_bytes(model.read_bytes()[:-1] + b"\1")
    assert describe_backbone(str(moved), device="cpu").source.revision != info.source.revision
    with pytest.raises(InputError, match=r"the file's content is sha256:.*, expected revision other"):
        describe_backbone(str(model), revision="other")


def test_another_tokenizer_takes_the_place_of_its_own(tmp_path: Path) -> None:
    bare = write_gguf(tmp_path / "bare.gguf", tokenizer=False)
    info = describe_backbone(str(bare), device="cpu", tokenizer=str(TINY_MODEL))
    assert info.tokenizer is not None
    assert (info.tokenizer.id, info.tokenizer.revision[:7]) == ("model", "sha256:")
    plain = load_tokenizer(describe_backbone(str(TINY_MODEL), device="cpu"))
    assert load_tokenizer(info)("A title").input_ids == plain("A title").input_ids
    with pytest.raises(InputError, match=r"bare\.gguf: no usable tokenizer"):
        load_tokenizer(describe_backbone(str(bare), device="cpu"))


@pytest.mark.parametrize("length", [0, 3, 4, 10, 60, 400, 5000, 30000])
def test_a_cut_file_is_one_line(model: Path, tmp_path: Path, length: int) -> None:
    (tmp_path / "cut.gguf").write_bytes(model.read_bytes()[:length])
    with pytest.raises(InputError, match=r"cut\.gguf: (not a GGUF file|the file is cut).*download it again") as caught:
        describe_backbone(str(tmp_path / "cut.gguf"), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_file_cut_by_one_byte_names_the_tensor_and_the_sizes(model: Path, tmp_path: Path) -> None:
    raw = model.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(raw[:-1])
    with pytest.raises(InputError, match=rf"the file is cut: .* ends at byte {len(raw):,}, and the file has"):
        describe_backbone(str(tmp_path / "cut.gguf"), device="cpu")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, b"GGML", "not a GGUF file: it does not begin with GGUF"),
        (4, struct.pack("<I", 1), "a damaged GGUF file: its version is 1, expected 2 or 3"),
        (4, struct.pack(">I", 3), "its version is 50331648"),
        (8, struct.pack("<Q", 2**60), "the file is cut|a damaged GGUF file"),
        (16, struct.pack("<Q", 2**60), "the file is cut|a damaged GGUF file"),
        (24, struct.pack("<Q", 2**63), "the file is cut within its header"),
        (32, b"\xff\xff", "a damaged GGUF file: .*can't decode"),
    ],
)
def test_a_damaged_header_is_one_line(model: Path, tmp_path: Path, place: int, value: bytes, words: str) -> None:
    raw = bytearray(model.read_bytes())
    raw[place : place + len(value)] = value
    (tmp_path / "bad.gguf").write_bytes(raw)
    with pytest.raises(InputError, match=words):
        describe_backbone(str(tmp_path / "bad.gguf"), device="cpu")


def test_an_architecture_that_transformers_cannot_read_is_refused_with_its_version(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "odd.gguf", architecture="mpt")
    with pytest.raises(InputError, match=r"transformers \d.* cannot read this GGUF file: .*mpt"):
        describe_backbone(str(path), device="cpu")


def test_a_missing_extra_names_the_command(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"GGUF files need the package gguf; pip install 'lampbench\[gguf\]'"):
        describe_backbone(str(model), device="cpu")


def test_a_missing_file_is_reported() -> None:
    with pytest.raises(InputError, match=r"gone\.gguf: no such file; a GGUF model must be a file on this machine"):
        describe_backbone("gone.gguf", device="cpu")


def test_it_is_checked_without_its_weights(model: Path) -> None:
    from lampbench.backbone import Decoding

    info = describe_backbone(str(model), device="cpu")
    backbone = TransformersBackbone.checked(info, decoding=Decoding(), batch_size=1, seed=0)
    assert {parameter.device.type for parameter in backbone.model.parameters()} == {"meta"}


def test_a_run_names_the_file_its_quantization_and_another_tokenizer(model: Path, tmp_path: Path) -> None:
    info = describe_backbone(str(model), device="cpu")
    made = plan(tmp_path, "zero-shot", model=str(model), tokenizer=str(TINY_MODEL))
    assert made.identity["backbone"] == {
        "id": "tiny.gguf",
        "revision": info.source.revision,
        "dtype": "float32",
        "device": "cpu",
        "quantization": "F32",
        "tokenizer": {"id": "model", "revision": find_tokenizer(str(TINY_MODEL)).revision},
    }
    row = run(made, tmp_path)
    assert row.status == "success", row.error
    assert row.identity.backbone.tokenizer.id == "model"
    plain = run(plan(tmp_path, "zero-shot"), tmp_path)
    assert row.metrics == plain.metrics
