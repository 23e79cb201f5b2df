"""The user phase as a library's own trainer does it: one user after another."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lampbench.adapters import AdapterSpec, Edit, Intervention, InterventionSpec, LoraSpec, Recipe, TrainingJob
from lampbench.backbone import Adapter, TransformersBackbone
from lampbench.core import Query, Task


def library_phase(
    backbone: TransformersBackbone,
    task: Task,
    jobs: Sequence[TrainingJob],
    queries: Sequence[Query],
    spec: AdapterSpec,
    recipe: Recipe,
    beneath: Sequence[Adapter],
    clock: Any,
) -> tuple[float, float]:
    """Seconds of training and of answering, users one after another, prompts one after another."""
    training = answering = 0.0
    for job in jobs:
        with library_model(backbone, spec, job, beneath) as model:
            fit(backbone, model, job, recipe)
            training += clock.lap()
            own = [query for query in queries if query.user_id == job.name]
            for query in own:
                ids = backbone.encoder.prompt(task.prompt(query.text), task.max_new_tokens)
                generate(backbone, model, ids, task.max_new_tokens)
            answering += clock.lap()
    return training, answering


def fit(backbone: TransformersBackbone, model: nn.Module, job: TrainingJob, recipe: Recipe) -> None:
    """transformers' Trainer with the recipe's settings."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    rows = []
    for pair in job.pairs:
        prompt, target = backbone.encoder.pair(pair)
        rows.append({"input_ids": prompt + target, "labels": [-100] * len(prompt) + target})
    warmup = math.ceil(recipe.warmup_ratio * recipe.steps(len(rows)))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(
            output_dir=folder, num_train_epochs=recipe.epochs, warmup_steps=warmup,
            per_device_train_batch_size=recipe.batch_size, learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay, max_grad_norm=recipe.clip, lr_scheduler_type="linear",
            save_strategy="no", report_to=[],
            log_level="error", disable_tqdm=True, logging_strategy="no", use_cpu=backbone.device == "cpu", seed=0,
            remove_unused_columns=False, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)  # type: ignore[arg-type]
        # It prints its own timings otherwise.
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval()


def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Rows padded on the right, with a mask."""
    width = max(len(row["input_ids"]) for row in rows)
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in rows]),
        "labels": torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
        ),
    }


def generate(backbone: TransformersBackbone, model: Any, ids: list[int], max_new_tokens: int) -> None:
    """transformers' generate, greedy, to a newline or EOS."""
    stop = backbone.stop_at_newline().nonzero().flatten().tolist()
    prompt = torch.tensor([ids], device=backbone.model.device)
    language_model = model if hasattr(model, "generate") else backbone.model
    with torch.inference_mode():
        language_model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=max_new_tokens,
            do_sample=False, eos_token_id=stop, pad_token_id=backbone.encoder.eos,
        )  # fmt: skip


@contextmanager
def library_model(
    backbone: TransformersBackbone, spec: AdapterSpec, job: TrainingJob, beneath: Sequence[Adapter]
) -> Iterator[nn.Module]:
    """The model that a library trains."""
    if isinstance(spec, LoraSpec):
        # peft looks into this module, which transformers 4.45 leaves for somebody else to import.
        import torch.distributed.tensor  # noqa: F401
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=spec.rank, lora_alpha=int(spec.alpha), lora_dropout=spec.dropout, target_modules=list(spec.targets),
            task_type="CAUSAL_LM",
        )  # fmt: skip
        wrapped: Any = get_peft_model(backbone.model, config)
        try:
            yield wrapped
        finally:
            wrapped.unload()
            backbone.model.requires_grad_(False)
        return
    assert isinstance(spec, InterventionSpec)
    model = HookedReft(backbone, spec, job, beneath)
    try:
        yield model
    finally:
        model.detach_hooks()


class HookedReft(nn.Module):
    """LoReFT modules hooked into the layers; pyreft's own where it is installed."""

    def __init__(
        self, backbone: TransformersBackbone, spec: InterventionSpec, job: TrainingJob, beneath: Sequence[Adapter]
    ) -> None:
        super().__init__()
        start = job.starts[0]
        self.model = backbone.model
        self.edits = nn.ModuleList(
            loreft(*(start[f"{layer}.{name}"] for name in ("rotation", "weight", "bias"))) for layer in spec.layers
        ).to(backbone.device)
        self.last = spec.suffix
        self.ends: Tensor | None = None
        frozen = [(layer, edit) for adapter in beneath for layer, edit in adapter.layers.items()]  # type: ignore[attr-defined]
        self._handles = [
            backbone.layers[layer].register_forward_hook(self._hook(edit))
            for layer, edit in (*frozen, *zip(spec.layers, self.edits, strict=True))
        ]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, **rest: Any) -> Any:
        self.ends = (labels == -100).long().cumprod(-1).sum(-1)
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, labels=labels)
        self.ends = None
        return output

    def detach_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, edit: Any) -> Any:
        def after(module: nn.Module, arguments: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            if self.last is not None and self.ends is None and hidden.shape[1] == 1:
                return None
            edited = edit(hidden)
            if self.last is not None:
                column = torch.arange(hidden.shape[1], device=hidden.device)
                ends = self.ends if self.ends is not None else torch.tensor([hidden.shape[1]], device=hidden.device)
                inside = (column < ends.unsqueeze(1)) & (column >= ends.unsqueeze(1) - self.last)
                edited = torch.where(inside.unsqueeze(-1), edited, hidden)
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        return after


class OwnLoreft(nn.Module):
    """Where pyreft is not installed: the same map over the same coordinates."""

    def __init__(self, rotation: Tensor, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.intervention = Intervention(Edit(rotation, weight, bias))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.intervention.edit()(hidden)


def loreft(rotation: Tensor, weight: Tensor, bias: Tensor) -> nn.Module:
    """pyreft's LoReFT, or our own."""
    try:
        from pyreft import LoreftIntervention
    except ImportError:
        return OwnLoreft(rotation, weight, bias)
    module: nn.Module = LoreftIntervention(
        embed_dim=rotation.shape[1], low_rank_dimension=rotation.shape[0], dtype=torch.float32
    )
    return module
