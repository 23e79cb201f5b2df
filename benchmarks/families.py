"""Tiny random models of the families of decoders that this version of transformers has, for tests and benchmarks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from lampbench.backbone import BackboneInfo, Decoding, TransformersBackbone, load_tokenizer

_ENCODERS = (
    "bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert roberta "
    "roberta-prelayernorm roc_bert roformer xlm-roberta xlm-roberta-xl xmod"
)
_WITH_AN_ENCODER = (
    "bart bigbird_pegasus blenderbot blenderbot-small marian mbart musicgen musicgen_melody mvp pegasus plbart "
    "prophetnet trocr whisper"
)
_BESIDE_TEXT = (
    "dots3_note emu3 fuyu gemma3 gemma3n gemma4 gemma4_unified git got_ocr2 llama4 mllama moshi "
    "moss_transcribe_diarize phi4_multimodal qwen3_5 qwen3_5_moe qwen4_exp"
)
_NO_SMALL_SIZE = (
    "blt cpmant ctrl dbrx deepseek_v4 dots3_note_text gemma4_assistant gemma4_unified_assistant inkling2_text "
    "qwen4_exp_text reformer xlm xlnet"
)
# Why a family has no row in the table.
NOT_TRIED: dict[str, str] = {
    **dict.fromkeys(_ENCODERS.split(), "an encoder"),
    **dict.fromkeys(_WITH_AN_ENCODER.split(), "part of an encoder-decoder"),
    **dict.fromkeys(_BESIDE_TEXT.split(), "reads more than text; its language model is a family of its own"),
    **dict.fromkeys(_NO_SMALL_SIZE.split(), "cannot be made small by its config"),
    **dict.fromkeys(("gpt-sw3", "internlm3", "iquestcoder"), "another family under a second name"),
}

# What makes a model small, by the names that configs have for it. A window that texts cross, weights large
# enough that answers vary.
_SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "shared_intermediate_size"), 96),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size",
         "expert_ffn_hidden_size", "shared_experts_intermediate_size", "router_hidden_size"), 32,
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "v_head_dim"), 16),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "model_max_length", "max_seq_length"), 256
    ),
    **dict.fromkeys(
        ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "zero_expert_num"), 4
    ),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(
        ("n_group", "topk_group", "num_expert_group", "first_k_dense_replace", "n_shared_experts", "mamba_n_groups",
         "n_groups", "moe_num_shared_experts", "num_shared_experts", "moe_layer_start_index"), 1,
    ),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "mamba_dt_rank", "moe_latent_size"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim", "index_head_dim", "mamba_d_state", "ssm_state_size"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "index_n_heads"), 2),
    **dict.fromkeys(("linear_num_value_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_chunk_size", "chunk_size", "sliding_window"), 16),
    "qk_nope_head_dim": 12,
    "index_topk": 512,
    "mamba_d_ssm": 128,
    "initializer_range": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}  # fmt: skip

_MIXED = ["linear_attention", "full_attention", "linear_attention", "full_attention"]
# What a family needs besides, or cannot have.
_OWN: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_types": _MIXED},
    # Its norm undoes the smaller embeddings that keep a random model from saying the last token again.
    "bloom": {"tie_word_embeddings": False},
    "bamba": {"attn_layer_indices": [1, 3]},
    "codegen": {"n_head": 4},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "ernie4_5_moe": {"moe_layer_end_index": 3},
    "falcon": {"head_dim": None},
    "falcon_h1": {"mamba_d_head": 16, "mamba_n_heads": 8},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "intermediate_size": [96] * 4,
        "activation_sparsity_pattern": [0.0] * 4,
        "vocab_size_per_layer_input": None,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 8,
    },
    "gemma4_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "per_layer_config": None,
        "vocab_size_per_layer_input": None,
        "hidden_size_per_layer_input": 8,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 16},
    "granitemoehybrid": {"layer_types": _MIXED},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "inkling_text": {"local_layer_ids": [0, 2], "swa_head_dim": 16, "swa_num_attention_heads": 4,
                     "swa_num_key_value_heads": 2, "sliding_window_size": 16, "d_rel": 8, "rel_extent": 32},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "kimi_linear": {"layer_types": _MIXED},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "longcat_flash": {"head_dim": 8, "num_layers": 4, "num_hidden_layers": None},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "ministral": {"head_dim": 16},
    "minimax": {"block_size": 8},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp"],
                   "use_mamba_kernels": False, "num_hidden_layers": None},
    "qwen3_5_moe_text": {"layer_types": _MIXED},
    "qwen3_5_text": {"layer_types": _MIXED},
    "qwen3_next": {"layer_types": _MIXED},
    "olmo_hybrid": {"layer_types": _MIXED},
    "stablelm": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "xlstm": {"head_dim": None, "v_head_dim": None},
    "zamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "attention_hidden_size": 128, "attention_head_dim": 32,
              "num_key_value_heads": 4, "use_mamba_kernels": False, "n_mamba_heads": 2,
              "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "n_mamba_heads": 8, "mamba_headdim": 16,
               "num_key_value_heads": 4, "use_mamba_kernels": False, "attention_head_dim": 32, "chunk_size": 16,
               "attention_hidden_size": 128, "kv_channels": 16, "num_query_groups": 4, "adapter_rank": 8,
               "hybrid_layer_ids": [1, 3]},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip


def decoders() -> list[str]:
    """The families (``model_type``) of this version of transformers that continue text and can be made small."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in NOT_TRIED]


def tiny_config(family: str, vocabulary: int, **changes: Any) -> Any:
    """A config of ``family`` with a few thousand weights and the family's own parts."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[family]
    default = kind()
    renamed = getattr(default, "attribute_map", {})
    values = {"vocab_size": vocabulary}
    for name, value in _SMALL.items():
        if name not in renamed and (_has(default, name) or name == "initializer_range"):
            values[name] = value
    if "kv_lora_rank" in values:
        # Latent attention has a head width of its own, and keys and values for every head.
        values.pop("head_dim", None)
        values["num_key_value_heads"] = 4
    values |= _OWN.get(family, {}) | changes
    if values.get("vocab_size_per_layer_input", 0) is None:
        values["vocab_size_per_layer_input"] = vocabulary
    return kind(**{name: value for name, value in values.items() if value is not None})


def _has(config: Any, name: str) -> bool:
    """Whether the config has a value under the name."""
    try:
        return getattr(config, name, None) is not None
    except RuntimeError:
        # It differs from layer to layer (Gemma 4), and stays as it is.
        return False


def model_folder(config: Any, tokenizer_folder: Path, folder: Path) -> Path:
    """A folder of a model with config and tokenizer, whose weights file is empty: enough to plan, not to load."""
    config.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (tokenizer_folder / name).is_file():
            shutil.copy(tokenizer_folder / name, folder)
    save_file({}, folder / "model.safetensors")
    return folder


def tiny_backbone(info: BackboneInfo, dtype: torch.dtype) -> TransformersBackbone:
    """A backbone with random weights, the same for the same config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(info.source.location)
    if dtype == torch.float64 and hasattr(config, "_experts_implementation"):
        # torch's grouped product knows no float64.
        config._experts_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval().requires_grad_(False)
    # With tied embeddings of its own size, a random model says the last token again.
    model.get_input_embeddings().weight.data *= 0.1
    return TransformersBackbone(info, model, load_tokenizer(info), decoding=Decoding(), batch_size=4, seed=0)
