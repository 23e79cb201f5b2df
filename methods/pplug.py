"""PPlug: soft tokens made of a user's whole history for each query; nothing is trained per user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, normalize

from lampbench import AdapterMethod, InputError, LabelledUser, Parameters, Query, Task, User, setting
from lampbench.adapters import NetworkPrefixSpec, PrefixSpec, Recipe, State, embedding_of, one_each
from lampbench.backbone import Adapter
from lampbench.bases import TrainingConfig
from lampbench.core import RunContext, derive_seed
from lampbench.hub import find_model
from lampbench.retrieval import DenseEncoder

_FILE = "history.safetensors"
_BACKBONE = "backbone"
# Tokens of a text that are encoded, as published.
_READ = 512

# But for LaMP-3, where it is 1 epoch.
PUBLISHED: Mapping[str, Any] = {"epochs": 2, "batch_size": 64}
CHOSEN: Mapping[str, Any] = {
    "learning_rate": 1e-3,
    "clip": 1.0,
    "tokens": 1,
    "instruction_tokens": 1,
    "start": "words",
}


@dataclass(frozen=True)
class PplugConfig(TrainingConfig):
    """Settings of ``pplug``."""

    published = PUBLISHED
    chosen = CHOSEN
    encoder: str = setting(
        _BACKBONE,
        "what makes vectors of texts: backbone (means of its input embeddings), or path or hub id of an encoder",
        in_identity=False,
    )
    encoder_revision: str | None = setting(None, "the encoder's revision; found automatically")
    encoder_width: int | None = setting(None, "the width of the encoder's vectors; found automatically")
    tokens: int | None = setting(None, "soft tokens made of the history")
    instruction_tokens: int | None = setting(None, "soft tokens before them, the same for all prompts")
    start: Literal["random", "words"] | None = setting(
        None, "where soft tokens start: normal with standard deviation 0.02, or the prompt's own first words"
    )
    epochs: int | None = setting(None, "epochs over the shared users' queries")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "tokens")
        self.at_least(0, "instruction_tokens")


class Pplug(AdapterMethod):
    """A plug-in user embedder: soft tokens from all of a user's history items, weighted by the query.

    A frozen encoder makes a vector of each history item, and of the query. The user's soft tokens are the mean of
    ``MLP(h_i)``, weighted by the softmax of ``(A x) h_i``; before them go instruction tokens. ``A``, the MLP and the
    instruction tokens are trained once, on the shared users' queries. Nothing is trained per user, whose state is the
    vectors of the history.

    PPlug tunes a second encoder for queries; here a linear map ``A`` of the frozen encoder's vector, which starts as
    the identity, takes its place. The paper's encoder is BGE-base (``encoder=BAAI/bge-base-en-v1.5``); all vectors have
    length 1. Not published, and chosen here: the MLP's hidden width (that of the embeddings) and activation (GELU), how
    many tokens there are, the learning rate, and that the history starts to count only as the MLP learns.
    """

    Config = PplugConfig
    paper = "Liu et al., PPlug, 2024"

    def setup(self) -> None:
        """Start with nothing trained, and leave places for the soft tokens."""
        super().setup()
        self.backbone = self.backbone.with_prefix(self.config.instruction_tokens + self.config.tokens)
        self._encoder: DenseEncoder | None = None
        self._network: State | None = None
        self._histories: dict[str, Tensor] = {}

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None from the preset, and name the encoder's revision."""
        config = super().resolve(config, task, context)
        if config.encoder == _BACKBONE:
            return config
        source = find_model(config.encoder, config.encoder_revision)
        return replace(config, encoder_revision=source.revision, encoder_width=DenseEncoder(source).width)

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """How many soft tokens, and how they are trained."""
        return {"tokens": (1, 4, 8), "learning_rate": (3e-4, 1e-3, 3e-3, 1e-2), "epochs": (1, 2, 4)}

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Train the instruction tokens, the map of queries and the MLP."""
        asked = [(number, own.query) for number, user in enumerate(users) for own in user.queries]
        histories = [self._encoded_history(user.user) for user in users]
        texts = self._encoded([query.text for _, query in asked]) if asked else torch.empty(0)
        spec = self.adapter()
        start = dict(spec.fresh(self.backbone, derive_seed(self.seed, "pplug")))
        if self.config.start == "words":
            words = PrefixSpec(spec.network.length)
            vectors = words.vectors(words.worded(self.backbone, self.task.prompt("").text))
            start["instruction"] = vectors[: self.config.instruction_tokens]
            start["mlp.out.bias"] = vectors[self.config.instruction_tokens :].flatten()

        def given(number: int) -> Tensor:
            return _known(texts[number], histories[asked[number][0]])

        (self._network,) = self.train_shared(users, [spec], self.recipe(), [start], given)

    def adapter(self) -> NetworkPrefixSpec:
        """What the shared users train."""
        return NetworkPrefixSpec(PoolNetwork(self.config.instruction_tokens, self.config.tokens, self._encoded_width()))

    def recipe(self) -> Recipe:
        """How it is trained."""
        recipe: Recipe = self.config.recipe(self.config.epochs)
        return recipe

    def adapt(self, users: Sequence[User]) -> None:
        """Keep the vectors of each user's history; nothing is trained."""
        for done, user in enumerate(users, start=1):
            self._histories[user.id] = self._encoded_history(user)
            self.keep_user(user.id)
            self.progress(done, len(users))

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        """Answer each query after the soft tokens of its user's history; unknown users have an empty one."""
        texts = self._encoded([query.text for query in queries])
        nothing = texts[:0]
        given = [_known(x, self._histories.get(own.user_id, nothing)) for x, own in zip(texts, queries, strict=True)]
        prompts = [self.task.prompt(query.text, query.id) for query in queries]
        return self.backbone.answer(self.task, prompts, [self._prefixes(given)])

    def forget(self, user_id: str) -> None:
        """Drop the vectors of the user's history."""
        self._histories.pop(user_id, None)

    def moved(self, user_id: str) -> bool | None:
        """None: no parameter is a user's own."""
        return None

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write ``history.safetensors``: the vectors, shape (items, width)."""
        from safetensors.torch import save_file

        save_file({"vectors": self._histories[user_id]}, folder / _FILE)

    def load_user(self, user: User, folder: Path) -> None:
        """Read it; raises InputError for another file."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = folder / _FILE
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: not the vectors of a history: {error}") from error
        expected = {"vectors": (len(user.history), self._encoded_width())}
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        if shapes != expected:
            raise InputError(f"{path}: not the vectors of this history: expected {expected}; found {shapes}")
        self._histories[user.id] = found["vectors"]

    def save_shared(self, folder: Path) -> None:
        """Write what the shared users trained."""
        if self._network is not None:
            self.adapter().save(self._network, folder, self.backbone)

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        """Read it."""
        self._network = self.adapter().load(folder, self.backbone)

    def parameters(self) -> Parameters:
        """What the shared users train; nothing per user."""
        return Parameters(shared=self.adapter().parameter_count(self.backbone))

    def _prefixes(self, given: Sequence[Tensor]) -> Adapter:
        spec = self.adapter()
        network = spec.fresh(self.backbone, 0) if self._network is None else self._network
        return one_each(embedding_of(self.backbone), spec.vectors(self.backbone, network, given))

    def _encoded_history(self, user: User) -> Tensor:
        return self._encoded([self.task.document(item) for item in user.history])

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        """Vectors of length 1, shape (texts, width), float32."""
        if not texts:
            return torch.empty(0, self._encoded_width())
        if self.config.encoder == _BACKBONE:
            return normalize(self.backbone.mean_embeddings(texts, _READ).float(), dim=-1)
        return normalize(torch.from_numpy(self._dense().encode(texts)), dim=-1)

    def _dense(self) -> DenseEncoder:
        if self._encoder is None:
            source = find_model(self.config.encoder, self.config.encoder_revision)
            self._encoder = DenseEncoder(source, self.backbone.device)
        return self._encoder

    def _encoded_width(self) -> int:
        if self.config.encoder == _BACKBONE:
            return int(embedding_of(self.backbone).weight.shape[1])
        return int(self.config.encoder_width)


def _known(query: Tensor, history: Tensor) -> Tensor:
    """What the network is told about a prompt: a row for the query, and one for each item: vector, and 1."""
    vectors = torch.cat([query.unsqueeze(0), history])
    return torch.cat([vectors, torch.ones(len(vectors), 1)], dim=1)


@dataclass(frozen=True)
class PoolNetwork:
    """Makes PPlug's soft tokens: an ``lampbench.adapters.PrefixNetwork``.

    Attributes:
        instruction: Tokens that are the same for all prompts.
        tokens: Tokens made of the history.
        encoded: Width of the encoder's vectors.
    """

    instruction: int
    tokens: int
    encoded: int

    @property
    def length(self) -> int:
        """All of them."""
        return self.instruction + self.tokens

    def shapes(self, width: int) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of its parameters."""
        instruction = {"instruction": (self.instruction, width)} if self.instruction else {}
        return {
            **instruction,
            "query.weight": (self.encoded, self.encoded),
            "mlp.hidden.weight": (width, self.encoded),
            "mlp.hidden.bias": (width,),
            "mlp.out.weight": (self.tokens * width, width),
            "mlp.out.bias": (self.tokens * width,),
        }

    def fresh(self, width: int, seed: int) -> State:
        """Random tokens and a random hidden layer; the history does not count yet, and queries are as encoded."""
        generator, shapes = torch.Generator().manual_seed(seed), self.shapes(width)
        state = {name: torch.zeros(shape) for name, shape in shapes.items()}
        for name in ("instruction", "mlp.out.bias"):
            if name in shapes:
                state[name] = PrefixSpec.spread * torch.randn(shapes[name], generator=generator)
        state["query.weight"] = torch.eye(self.encoded)
        for name in ("mlp.hidden.weight", "mlp.hidden.bias"):
            state[name] = (2 * torch.rand(shapes[name], generator=generator) - 1) / self.encoded**0.5
        return state

    def __call__(self, parameters: Mapping[str, Tensor], given: Tensor) -> Tensor:
        """Prefixes of shape (prompts, length, width); see ``PrefixNetwork``.

        Args:
            parameters: By name.
            given: Shape (prompts, 1 + items, encoded + 1): the query's row, then each item's: vector, and 1.
        """
        own = parameters
        query, history, real = given[:, 0, :-1], given[:, 1:, :-1], given[:, 1:, -1]
        scores = (history @ linear(query, own["query.weight"]).unsqueeze(-1)).squeeze(-1)
        # Without any item there is nothing to weigh.
        weights = scores.masked_fill(real == 0, -torch.inf).softmax(-1).nan_to_num(0.0) if history.shape[1] else scores
        hidden = gelu(linear(history, own["mlp.hidden.weight"], own["mlp.hidden.bias"]))
        # The MLP's last map is linear, so it gives the weighted mean of its outputs.
        mean = (weights.unsqueeze(-1) * hidden).sum(1)
        made: Tensor = linear(mean, own["mlp.out.weight"], own["mlp.out.bias"]).unflatten(-1, (self.tokens, -1))
        if not self.instruction:
            return made
        return torch.cat([own["instruction"].expand(len(made), -1, -1), made], dim=1)
