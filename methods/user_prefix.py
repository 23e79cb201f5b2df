"""TAP-PER's prefixes: a user's own soft tokens, and what a network makes of the user's relevant records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

from lampbench import AdapterMethod, HistoryItem, InputError, LabelledUser, Parameters, Query, Task, User, setting
from lampbench.adapters import (
    AdapterSpec,
    LoraSpec,
    NetworkPrefixSpec,
    Prefix,
    PrefixSpec,
    Recipe,
    State,
    embedding_of,
    family_targets,
    one_each,
)
from lampbench.backbone import Adapter
from lampbench.bases import TrainingConfig
from lampbench.core import RunContext, derive_seed
from lampbench.retrieval import RetrieverFactory

# As in the released code, for most tasks of LaMP.
PUBLISHED: Mapping[str, Any] = {
    "tokens": 8,
    "start": "random",
    "shared_epochs": 3,
    "user_epochs": 3,
    "learning_rate": 1e-4,
    "clip": 0.3,
}
# Published: 1 to 4 on each of 8 GPUs.
CHOSEN: Mapping[str, Any] = {"batch_size": 16}
# Tokens of a query or a record that its vector is the mean of.
_READ = 128
# Vectors of texts that are kept: 64 MiB at a width of 4,096.
_KEPT = 4096
_TARGETS = ("q_proj", "k_proj", "v_proj")
# What is known of a record beside its vector: that it is one, and how old it is in days and in items.
_MORE = 3


@dataclass(frozen=True)
class UserPrefixConfig(TrainingConfig):
    """Settings of ``user-prefix``."""

    published = PUBLISHED
    chosen = CHOSEN
    user_epochs_in = "user_epochs"
    mode: Literal["clean", "joint"] = setting(
        "clean",
        "whose data trains what all users share: the shared users' queries, or the evaluated users' pooled histories "
        "(as in the released code)",
    )
    tokens: int | None = setting(None, "soft tokens before each prompt")
    records: int = setting(10, "history items that the record prefix is made of, by BM25; 0 for no record prefix")
    bridge: int = setting(4, "rank of a LoRA that the shared users train beside the prefixes; 0 for none")
    bridge_alpha: float = setting(8.0, "scale of that LoRA, divided by its rank")
    bridge_targets: tuple[str, ...] = setting(_TARGETS, "modules with that LoRA, or what the model has in their place")
    start: Literal["random", "words"] | None = setting(
        None, "where the soft tokens start: normal with standard deviation 0.02, or the prompt's own first words"
    )
    shared_epochs: int | None = setting(None, "epochs over the shared users' queries")
    user_epochs: int | None = setting(None, "epochs over the user's history")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "tokens")
        self.at_least(0, "records", "bridge")


class UserPrefix(AdapterMethod):
    """Soft tokens before each prompt: the user's own, plus a record prefix made of the user's relevant records.

    A prompt begins with ``tokens`` vectors in the space of input embeddings, ``P_u + P_q``. ``P_u`` are the user's own
    parameters. ``P_q`` is a linear map of a weighted mean of record vectors; a small network scores each record by
    the query's vector, its own and its age, and vectors are means of input embeddings.

    TAP-PER's released code trains the shared modules (the record network, and a LoRA called bridge) together with
    every ``P_u`` on the pooled histories of the evaluated users. Here the shared users train them, with one ``P_u`` for
    all, which is where evaluated users start; each of these then trains a ``P_u`` alone, everything else frozen. With
    ``mode=joint`` the pooled histories train them instead, which is declared as joint training.

    Other differences: the record network starts at a prefix of zero, a record's age counts from the latest item before
    the query (LaMP's queries have no date), and the backbone has no task LoRA. With ``records=0`` and ``bridge=0``
    this is prompt tuning per user from a shared start.
    """

    Config = UserPrefixConfig
    paper = "TAP-PER (released code)"

    def setup(self) -> None:
        """Start with nothing trained, and leave places for the soft tokens."""
        super().setup()
        self.backbone = self.backbone.with_prefix(self.config.tokens)
        self._make = RetrieverFactory("bm25", self.task, self.seed)
        self._shared: State | None = None
        self._bridge: State | None = None
        self._readers: dict[str, _Reader] = {}
        # The same items are records of many prompts, in every epoch.
        self._vector = lru_cache(maxsize=_KEPT)(self._read_vector)

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None from the preset, and name the modules with a LoRA."""
        config = super().resolve(config, task, context)
        if config.bridge and context.shape is not None:
            config = replace(config, bridge_targets=family_targets(config.bridge_targets, _TARGETS, context.shape))
        return config

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """How many soft tokens, how fast they learn, and where they start."""
        return {"tokens": (4, 8, 16), "learning_rate": (1e-3, 3e-3, 1e-2, 3e-2), "start": ("random", "words")}

    @classmethod
    def joint(cls, config: Any) -> bool:
        """Whether evaluated users train the shared modules, as in the released code."""
        return bool(config.mode == "joint")

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Train the start of all users, the record network, and the bridge, unless evaluated users do."""
        if self.config.mode == "joint":
            return
        asked: list[_Asked] = []
        for user in users if self.config.records else ():
            reader = self._reader(user.user)
            asked += [reader.asked(own.query) for own in user.queries]
        self._act(self.train_shared(users, *self._stage(), self._tell(asked)))

    def fit_joint(self, users: Sequence[User]) -> None:
        """Train them on the evaluated users' pooled histories."""
        pairs = [pair for user in users for pair in self.examples(user)]
        asked = [own for user in users for own in self._reader(user).training()] if self.config.records else []
        self._act(self.train_pooled(pairs, *self._stage(), self._tell(asked)))

    def adapter(self) -> PrefixSpec:
        """The user's own soft tokens."""
        return PrefixSpec(self.config.tokens)

    def recipe(self) -> Recipe:
        """How they are trained."""
        recipe: Recipe = self.config.recipe(self.config.user_epochs)
        return recipe

    def start(self, seed: int) -> State:
        """What the shared users trained."""
        if self._shared is None:
            return super().start(seed)
        return {name: self._shared[name] for name in super().start(seed)}

    def beneath(self) -> Sequence[Adapter]:
        """The bridge."""
        return [] if self._bridge is None else [self._bridge_specs()[0].frozen(self.backbone, [self._bridge])]

    def unadapted(self) -> Sequence[Adapter]:
        """The soft tokens that users start with, for a user without records."""
        if not self.config.records:
            return [*self.beneath(), self.adapter().frozen(self.backbone, [self.start(0)])]
        nothing = self._record_prefixes([_Asked("")])
        own = self.adapter().vectors(self.start(0)).to(self.backbone.device)
        return [*self.beneath(), Prefix(embedding_of(self.backbone), own + nothing[0])]

    def adapt(self, users: Sequence[User]) -> None:
        """Train each user's soft tokens."""
        self._read(users)
        super().adapt(users)

    def given(self, user: User) -> Callable[[int], Tensor] | None:
        """The record prefix of each history item, made of earlier ones."""
        reader = self._readers.get(user.id)
        if reader is None:
            return None
        asked = reader.training()
        return lambda number: self._record_prefixes([asked[number]])[0]

    def at_work(self, states: Sequence[State], users: Sequence[int] | None, queries: Sequence[Query]) -> Adapter:
        """Each user's soft tokens plus the record prefix of each query."""
        if not self.config.records:
            return super().at_work(states, users, queries)
        prefixes = self._record_prefixes([self._readers[query.user_id].asked(query) for query in queries])
        own = torch.stack([self.adapter().vectors(state) for state in states])
        owners = torch.tensor([0] * len(queries) if users is None else list(users))
        return one_each(embedding_of(self.backbone), own[owners].to(self.backbone.device) + prefixes)

    def acting_for(self, user_id: str) -> Sequence[tuple[AdapterSpec, State]]:
        """The user's soft tokens; raises InputError if something of the prompt's records is added, or a LoRA acts."""
        if self.config.records or self.config.bridge:
            raise InputError(
                "a record prefix or a bridge acts beside the user's soft tokens (records=0, bridge=0: none)"
            )
        return [(self.adapter(), self._states[user_id])]

    def forget(self, user_id: str) -> None:
        """Drop the user's soft tokens, history and index, and all kept vectors of texts."""
        super().forget(user_id)
        self._readers.pop(user_id, None)
        self._vector.cache_clear()

    def load_user(self, user: User, folder: Path) -> None:
        """Read the user's soft tokens, and index the history again."""
        super().load_user(user, folder)
        self._read([user])

    def save_shared(self, folder: Path) -> None:
        """Write what the shared users trained."""
        for name, spec, state in self._shared_parts():
            if state is not None:
                (folder / name).mkdir()
                spec.save(state, folder / name, self.backbone)

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        """Read it."""
        self._act([spec.load(folder / name, self.backbone) for name, spec, _ in self._shared_parts()])

    def parameters(self) -> Parameters:
        """The shared modules', and one user's."""
        shared = [self._shared_spec(), *self._bridge_specs()]
        return Parameters(
            sum(spec.parameter_count(self.backbone) for spec in shared), self.adapter().parameter_count(self.backbone)
        )

    def _shared_spec(self) -> PrefixSpec | NetworkPrefixSpec:
        return NetworkPrefixSpec(RecordNetwork(self.config.tokens)) if self.config.records else self.adapter()

    def _bridge_specs(self) -> list[LoraSpec]:
        config = self.config
        return [LoraSpec(config.bridge, config.bridge_alpha, 0.0, config.bridge_targets)] if config.bridge else []

    def _shared_parts(self) -> list[tuple[str, Any, State | None]]:
        bridges = [("bridge", spec, self._bridge) for spec in self._bridge_specs()]
        return [("prefix", self._shared_spec(), self._shared), *bridges]

    def _stage(self) -> tuple[list[AdapterSpec], Recipe, list[State]]:
        """What the shared stage trains, how, and where it starts."""
        spec, bridges = self._shared_spec(), self._bridge_specs()
        start = dict(spec.fresh(self.backbone, derive_seed(self.seed, "shared prefix")))
        if self.config.start == "words":
            start |= self.adapter().worded(self.backbone, self.task.prompt("").text)
        starts = [start, *(own.fresh(self.backbone, derive_seed(self.seed, "bridge")) for own in bridges)]
        return [spec, *bridges], self.config.recipe(self.config.shared_epochs), starts

    def _tell(self, asked: Sequence[_Asked]) -> Callable[[int], Tensor] | None:
        return (lambda number: self._features(asked[number])) if asked else None

    def _act(self, trained: Sequence[State]) -> None:
        self._shared, self._bridge = trained[0], trained[1] if len(trained) > 1 else None

    def _read(self, users: Sequence[User]) -> None:
        if self.config.records:
            self._readers.update({user.id: self._reader(user) for user in users})

    def _reader(self, user: User) -> _Reader:
        return _Reader(self._make, user, self.config.records)

    def _record_prefixes(self, asked: Sequence[_Asked]) -> Tensor:
        """Shape (prompts, tokens, width), on the backbone's device."""
        spec = NetworkPrefixSpec(RecordNetwork(self.config.tokens, started=False))
        shared = self._shared or spec.fresh(self.backbone, 0)
        return spec.vectors(self.backbone, shared, [self._features(own) for own in asked])

    def _features(self, asked: _Asked) -> Tensor:
        """What the record network is told about a prompt: a row for the query, and one for each record."""
        texts = [asked.text, *(self.task.document(record) for record in asked.records)]
        known = torch.tensor([[1.0, 0.0, 0.0], *([1.0, *age] for age in asked.ages)])
        return torch.cat([torch.stack([self._vector(text) for text in texts]), known], dim=1)

    def _read_vector(self, text: str) -> Tensor:
        return self.backbone.mean_embeddings([text], _READ)[0]


@dataclass(frozen=True)
class RecordNetwork:
    """Makes TAP-PER's record prefix: an ``lampbench.adapters.PrefixNetwork``.

    The score of a record is ``MLP(z_q, z, z_q - z, z_q * z) - l_t log(1 + days) - l_o log(1 + items)``, where days and
    items are how much older it is than the latest item. The prefix is a linear map of the records' mean, weighted by
    the softmax of the scores.

    Attributes:
        length: How many vectors it makes.
        started: Whether the vectors at which users start are added: parameters, too.
    """

    length: int
    started: bool = True

    def shapes(self, width: int) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of its parameters, those at which users start included."""
        return {
            "prompt_embeddings": (self.length, width),
            "score.hidden.weight": (width, 4 * width),
            "score.hidden.bias": (width,),
            "score.out.weight": (1, width),
            "score.out.bias": (1,),
            "decay": (2,),
            "prefix.weight": (self.length * width, width),
            "prefix.bias": (self.length * width,),
        }

    def fresh(self, width: int, seed: int) -> State:
        """Random scores, as torch's linear maps start; no decay, and a record prefix of zero."""
        generator, state = torch.Generator().manual_seed(seed), {}
        for name, shape in self.shapes(width).items():
            state[name] = torch.zeros(shape)
            if name == "prompt_embeddings":
                state[name] = PrefixSpec.spread * torch.randn(shape, generator=generator)
            elif name.startswith("score"):
                inputs = 4 * width if "hidden" in name else width
                state[name] = (2 * torch.rand(shape, generator=generator) - 1) / inputs**0.5
        return state

    def __call__(self, parameters: Mapping[str, Tensor], given: Tensor) -> Tensor:
        """Prefixes of shape (prompts, length, width); see ``PrefixNetwork``.

        Args:
            parameters: By name.
            given: Shape (prompts, 1 + records, width + 3): the query's row, then each record's: vector, 1, and the
                logarithms of its age.
        """
        own = parameters
        vectors, known = given[..., :-_MORE], given[..., 1:, -_MORE:]
        query, records = vectors[:, :1], vectors[:, 1:]
        query = query.expand_as(records)
        pairs = torch.cat([query, records, query - records, query * records], dim=-1)
        hidden = gelu(linear(pairs, own["score.hidden.weight"], own["score.hidden.bias"]))
        scores = linear(hidden, own["score.out.weight"], own["score.out.bias"]).squeeze(-1)
        scores = (scores - known[..., 1:] @ own["decay"]).masked_fill(known[..., 0] == 0, -torch.inf)
        # Without any record there is nothing to weigh.
        weights = scores.softmax(-1).nan_to_num(0.0) if records.shape[1] else scores
        mean = (weights.unsqueeze(-1) * records).sum(1)
        prefix: Tensor = linear(mean, own["prefix.weight"], own["prefix.bias"]).unflatten(-1, (self.length, -1))
        return own["prompt_embeddings"] + prefix if self.started else prefix


@dataclass(frozen=True)
class _Asked:
    """A prompt's text, its records, and the logarithms of each record's age in days and in items."""

    text: str
    records: Sequence[HistoryItem] = ()
    ages: Sequence[tuple[float, float]] = ()


class _Reader:
    """Finds the records of a user's prompts."""

    def __init__(self, make: RetrieverFactory, user: User, count: int) -> None:
        self._user = user
        self._retriever = make(user) if user.history else None
        self._count = count
        self._places = {item.id: place for place, item in enumerate(user.history)}

    def asked(self, query: Query, before: int | None = None) -> _Asked:
        """The query with the records among the first ``before`` history items, or among all."""
        visible = len(self._user.history) if before is None else before
        if self._retriever is None or not visible:
            return _Asked(query.text)
        records = self._retriever.rank(query, self._count, before=visible)
        latest = _day(self._user.history[visible - 1])
        ages = []
        for record in records:
            day = _day(record)
            days = 0 if latest is None or day is None else max(0, latest - day)
            ages.append((math.log1p(days), math.log1p(max(0, visible - 1 - self._places[record.id]))))
        return _Asked(query.text, records, ages)

    def training(self) -> list[_Asked]:
        """Each history item as a query, with the records among earlier ones."""
        user = self._user
        return [self.asked(Query(item.id, user.id, item.source), i) for i, item in enumerate(user.history)]


def _day(item: HistoryItem) -> int | None:
    """The number of the day, the first one of a year or month without days.

    None without a date, and for one that no calendar has, such as 2015-02-30: files may hold such dates.
    """
    if not item.date:
        return None
    try:
        year, month, day = (int(part) for part in (*item.date[:10].split("-"), "1", "1")[:3])
        return date(year, month, day).toordinal()
    except ValueError:
        return None
