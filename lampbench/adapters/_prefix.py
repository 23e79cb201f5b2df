"""Prefixes: vectors before a prompt, in the space of input embeddings (Lester et al., EMNLP 2021)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lampbench.adapters._spec import AdapterSpec, EvaluatedBank, SoloAdapter, State, TensorBank, master_dtype
from lampbench.backbone import PassWindow, TransformersBackbone
from lampbench.core import InputError

# As peft calls its files and the vectors in them.
_CONFIG, _WEIGHTS, _NAME = "adapter_config.json", "adapter_model.safetensors", "prompt_embeddings"


@dataclass(frozen=True)
class Prefix:
    """Vectors at work in the places that a prompt begins with: an ``lampbench.backbone.Adapter``.

    They replace what the model's embedding module returns there. What a model does to that afterwards, such as adding
    positions, is done to the vectors, too; what the module itself does, such as scaling in Gemma 3, is not.

    Attributes:
        embedding: The model's module of input embeddings.
        vectors: Shape (…, length, width); stacked ones have a leading dimension over users.
        users: Of stacked vectors, the user of each prompt, shape (prompts,).
    """

    embedding: nn.Module
    vectors: Tensor
    users: Tensor | None = None

    @property
    def tail(self) -> int:
        """None of a prompt's tokens is treated by its distance from the end."""
        return 0

    @contextmanager
    def attach(self, layers: nn.ModuleList, window: PassWindow) -> Iterator[None]:
        """Fill the places inside the ``with`` block."""

        def filled(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            if window.offset >= window.width:
                return output
            columns = torch.arange(window.offset, window.offset + output.shape[1], device=output.device)
            places = columns - window.starts.unsqueeze(1)
            row, column = ((places >= 0) & (places < self.vectors.shape[-2])).nonzero(as_tuple=True)
            place = places[row, column]
            own = self.vectors[place] if self.users is None else self.vectors[self.users[window.rows[row]], place]
            return output.index_put((row, column), own.to(output.dtype))

        with self.embedding.register_forward_hook(filled):
            yield


@dataclass(frozen=True)
class PrefixSpec(AdapterSpec):
    """Soft tokens before everything else in a prompt, as peft's prompt tuning has them.

    The backbone must leave places for them: ``TransformersBackbone.with_prefix(length)``. They count as tokens of the
    prompt, so that nothing becomes longer than the limit. With something given for each example or prompt, shape
    (length, width), that is added to the user's vectors.

    Attributes:
        length: How many.
        spread: Untrained vectors are normal with this standard deviation.
    """

    length: int
    spread: float = 0.02

    def fresh(self, backbone: TransformersBackbone, seed: int) -> State:
        """Random vectors."""
        vectors = torch.randn(self.shape(backbone), generator=torch.Generator().manual_seed(seed)) * self.spread
        return {_NAME: vectors.to(master_dtype(backbone))}

    def worded(self, backbone: TransformersBackbone, text: str) -> State:
        """The embeddings of the first tokens of ``text``, which is repeated if it is too short.

        Raises:
            InputError: The text has no tokens.
        """
        ids = backbone.tokenizer(text, add_special_tokens=False).input_ids
        if not ids:
            raise InputError(f"prefix: expected words to start from, found {text!r}")
        first = torch.tensor((ids * self.length)[: self.length], device=backbone.device)
        with torch.no_grad():
            return {_NAME: embedding_of(backbone)(first).to("cpu", master_dtype(backbone))}

    def shape(self, backbone: TransformersBackbone) -> tuple[int, int]:
        """Of one user's vectors."""
        return self.length, embedding_of(backbone).weight.shape[1]

    def bank(self, backbone: TransformersBackbone, slots: int) -> PrefixBank:
        """Stacked vectors."""
        return PrefixBank(self._ready(backbone), self.shape(backbone), slots, master_dtype(backbone), backbone.device)

    @contextmanager
    def alone(self, backbone: TransformersBackbone, start: State) -> Iterator[SoloAdapter]:
        """One user's vectors as a plain parameter."""
        yield _LonePrefix(self._ready(backbone), start, backbone.device)

    def frozen(
        self, backbone: TransformersBackbone, states: Sequence[State], users: Sequence[int] | None = None
    ) -> Prefix:
        """Trained vectors, a user's own on each prompt."""
        own = states[0][_NAME] if users is None else torch.stack([state[_NAME] for state in states])
        owners = None if users is None else torch.tensor(users, device=backbone.device)
        return Prefix(self._ready(backbone), own.to(backbone.device), owners)

    def vectors(self, state: State) -> Tensor:
        """The vectors of a state, shape (length, width)."""
        return state[_NAME]

    def parameter_count(self, backbone: TransformersBackbone) -> int:
        """Length times width."""
        length, width = self.shape(backbone)
        return length * width

    def constant_layers(self, backbone: TransformersBackbone) -> int:
        """None: what goes into the first layer changes."""
        return 0

    def save(self, state: State, folder: Path, backbone: TransformersBackbone) -> None:
        """Write a PEFT folder of prompt tuning, which ``PeftModel.from_pretrained`` reads."""
        from peft import PromptTuningConfig
        from safetensors.torch import save_file

        length, width = self.shape(backbone)
        text = backbone.model.config.get_text_config()
        PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=length,
            token_dim=width,
            num_transformer_submodules=1,
            num_layers=backbone.shape.layers,
            num_attention_heads=getattr(text, "num_attention_heads", None),
            inference_mode=True,
            base_model_name_or_path=backbone.info.source.id,
        ).save_pretrained(str(folder))
        save_file({_NAME: state[_NAME].contiguous()}, folder / _WEIGHTS)

    def load(self, folder: Path, backbone: TransformersBackbone) -> State:
        """Read a PEFT folder of such a prefix, by any program.

        Raises:
            InputError: Files are missing, or it is another adapter.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            kind = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))["peft_type"]
            found = load_file(folder / _WEIGHTS)
        except (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError) as error:
            raise InputError(f"{folder}: not a PEFT folder ({_CONFIG}, {_WEIGHTS}): {error}") from error
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        expected = {_NAME: self.shape(backbone)}
        if kind != "PROMPT_TUNING" or shapes != expected:
            raise InputError(f"{folder}: expected a PROMPT_TUNING with {expected}, found {kind} with {shapes}")
        return {_NAME: found[_NAME].to(master_dtype(backbone))}

    def _ready(self, backbone: TransformersBackbone) -> nn.Module:
        return places_checked(backbone, self.length)


def embedding_of(backbone: TransformersBackbone) -> nn.Embedding:
    """The model's module of input embeddings; raises InputError if it has no single one."""
    try:
        module: Any = backbone.model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        module = None
    if getattr(getattr(module, "weight", None), "dim", int)() != 2:
        raise InputError(f"prefix: {type(backbone.model).__name__} has no single table of input embeddings")
    return module  # type: ignore[no-any-return]


def places_checked(backbone: TransformersBackbone, length: int) -> nn.Module:
    """The embedding module; raises ValueError if the backbone does not leave ``length`` places."""
    if backbone.encoder.prefix != length:
        raise ValueError(f"the backbone leaves {backbone.encoder.prefix} places; call with_prefix({length})")
    return embedding_of(backbone)


class PrefixBank(TensorBank):
    """The vectors of every user, stacked over slots."""

    def __init__(
        self, embedding: nn.Module, shape: tuple[int, int], slots: int, dtype: torch.dtype, device: str
    ) -> None:
        super().__init__({_NAME: shape}, slots, dtype, device)
        self._embedding = embedding

    def evaluated(self) -> EvaluatedBank:
        """The parameters themselves: there is nothing to evaluate."""
        own: Tensor = self.parameters[_NAME]
        return EvaluatedBank(
            lambda slots, keys: Prefix(self._embedding, own, slots),
            informed=lambda slots, given: one_each(self._embedding, own[slots] + given),
        )


class _LonePrefix(SoloAdapter):
    """One user's vectors."""

    def __init__(self, embedding: nn.Module, start: State, device: str) -> None:
        self._embedding = embedding
        self._own = nn.Parameter(start[_NAME].detach().clone().to(device))

    def parameters(self) -> list[nn.Parameter]:
        return [self._own]

    def adapter(self, dropout: Tensor | None = None) -> Prefix:
        return Prefix(self._embedding, self._own)

    def informed(self, given: Tensor, dropout: Tensor | None = None) -> Prefix:
        return one_each(self._embedding, self._own + given)

    def state(self) -> State:
        return {_NAME: self._own.detach().cpu().clone()}


def one_each(embedding: nn.Module, vectors: Tensor) -> Prefix:
    """A prefix of its own for each prompt: ``vectors`` has shape (prompts, length, width)."""
    return Prefix(embedding, vectors, torch.arange(len(vectors), device=vectors.device))
