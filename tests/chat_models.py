"""Tiny random models with a chat template: templates of the kinds that models bring, written for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support import TINY_MODEL

START, END = "<|im_start|>", "<|im_end|>"
_TURNS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
)
_ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

# Turns between special tokens, with BOS before them or without.
PLAIN = _TURNS + _ASK
WITH_BOS = "{{ bos_token }}" + PLAIN
# Trims what people write, has no turn for the system, and EOS ends the answer after a space.
BRACKETS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% else %}"
    "{{ raise_exception('no system turn is known') }}{% endif %}{% endfor %}"
)
# Drops the system turn without a word.
FORGETFUL = PLAIN.replace("messages %}", "messages if message['role'] != 'system' %}")
# A switch for thoughts; an empty thought is written where it is off, and before every answer that is shown.
SWITCH = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# Always begins with a thought, and shows no thoughts of answers.
OPENS = _TURNS + _ASK.replace("assistant\n", "assistant\n<think>\n")
DATED = "{{ 'Today is ' + strftime_now('%d %b %Y') + '.\n' }}" + PLAIN

TEMPLATES = {"plain": PLAIN, "BOS": WITH_BOS, "brackets": BRACKETS, "switch": SWITCH, "opens": OPENS, "dated": DATED}


def chat_model(folder: Path, template: str) -> Path:
    """The tiny model with tokens for turns and thoughts, and a template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.mkdir(parents=True)
    tokenizer = AutoTokenizer.from_pretrained(TINY_MODEL)
    tokenizer.add_special_tokens({"additional_special_tokens": [START, END]})
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(TINY_MODEL)
    torch.manual_seed(1)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    return folder


def plain_tokenizer(folder: Path) -> Any:
    """The tokenizer as anyone loads it: special tokens in a text are special."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
