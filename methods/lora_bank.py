"""LoRA bank: a user's LoRA is made of the LoRAs of shared users who are alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lampbench_methods.lora import RANKS_TO_TRY, LoraTrainingConfig

from lampbench import AdapterMethod, InputError, LabelledUser, Parameters, Task, User, setting
from lampbench.adapters import LoraSpec, PerUser, Recipe, State, TrainingJob
from lampbench.backbone import TransformersBackbone
from lampbench.core import RunContext, derive_seed
from lampbench.hub import find_model
from lampbench.retrieval import DenseEncoder, TextEncoder, clusters, user_vector

_INDEX, _VECTORS, _MIXTURE = "bank.json", "vectors.safetensors", "mixture.json"

# As in MTA's released code, but for the clip, which it does not name and is OPPU's.
PUBLISHED: Mapping[str, Any] = {
    "anchors": 50,
    "least_items": 10,
    "top": 2,
    "bank_rank": 8,
    "bank_epochs": 3,
    "bank_learning_rate": 1e-4,
    "bank_batch_size": 2,
    "rank": 4,
    "epochs": 1,
    "learning_rate": 5e-5,
    "batch_size": 8,
    "clip": 0.3,
}

# Number of an anchor in the bank, and its weight.
Mixture = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class LoraBankConfig(LoraTrainingConfig):
    """Settings of ``lora-bank``."""

    published = PUBLISHED
    user_epochs_in = "epochs"
    targets: tuple[str, ...] | None = setting(
        None, "modules that get a LoRA (default and published: all linear maps of the layers)"
    )
    anchors: int | None = setting(None, "how many clusters of shared users; each gives one anchor at most")
    least_items: int | None = setting(None, "an anchor has more history items than this, if any shared user has")
    encoder: str | None = setting(
        None, "path or hub id of an encoder for user vectors (default: the model's own token embeddings)",
        in_identity=False,
    )  # fmt: skip
    encoder_revision: str | None = setting(None, "the encoder's revision; found by itself")
    bank_rank: int | None = setting(None, "rank of an anchor's LoRA")
    bank_epochs: int | None = setting(None, "epochs over an anchor's history")
    bank_learning_rate: float | None = setting(None, "AdamW learning rate of an anchor's LoRA")
    bank_batch_size: int | None = setting(None, "training examples per step of an anchor")
    bank_warmup_ratio: float = setting(0.1, "part of an anchor's steps in which the learning rate rises")
    top: int | None = setting(None, "how many of the nearest anchors are merged")
    swapped: bool = setting(False, "gives the nearest anchor the smallest weight, as MTA's released code does")
    rank: int | None = setting(None, "rank of the user's own LoRA")
    epochs: int | None = setting(None, "epochs over the user's history")
    warmup_ratio: float = setting(0.0, "part of the user's steps in which the learning rate rises (not published)")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("anchors", "least_items", "top"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        if self.bank_learning_rate is not None and self.bank_learning_rate <= 0:
            raise ValueError(f"bank_learning_rate must be above 0, found {self.bank_learning_rate}")
        if not 0 <= self.bank_warmup_ratio <= 1:
            raise ValueError(f"bank_warmup_ratio must be from 0 to 1, found {self.bank_warmup_ratio}")

    def lora(self, rank: int | None) -> LoraSpec:
        """A LoRA on the targets; raises ValueError if they or the rank are still None."""
        if self.targets is None or rank is None:
            raise ValueError("some settings are None; let AdapterMethod.resolve fill them")
        return LoraSpec(rank, self.alpha, self.dropout, self.targets)

    def bank_recipe(self) -> Recipe:
        """How an anchor's LoRA is trained; raises ValueError if a setting is still None."""
        if self.bank_learning_rate is None or self.bank_batch_size is None:
            raise ValueError("some settings are None; let AdapterMethod.resolve fill them")
        return replace(
            self.recipe(self.bank_epochs),
            learning_rate=self.bank_learning_rate,
            batch_size=self.bank_batch_size,
            warmup_ratio=self.bank_warmup_ratio,
        )


@dataclass(frozen=True)
class Anchor:
    """A shared user whose LoRA is in the bank.

    Attributes:
        user: The user's id.
        items: Of the history.
        vector: Of the user, float64.
        state: The user's LoRA.
    """

    user: str
    items: int
    vector: np.ndarray
    state: State


class LoraBank(AdapterMethod):
    """MTA: the LoRAs of the nearest shared users, merged, and a small LoRA of the user's own on top.

    Shared users are clustered by user vectors, and the one with the longest history in each cluster is an anchor. A LoRA
    is trained on each anchor's history alone. For a user, the LoRAs of the nearest anchors (by the cosine of user vectors)
    are merged: A and B are averaged apart, with the similarities as weights. The result is frozen beneath a small LoRA
    that is trained on the user's history. All users share the base model.

    Published beside the settings: anchors by vectors of DeBERTa-v3-large, similarity by BGE-small on the first 512 tokens
    of a history, learning rates on a cosine, and prompts with one retrieved item. Chosen here: one vector for both, the
    mean over items, by default of the model's own token embeddings (no other model, no forward pass, the same in any
    batch); linear rates; plain prompts, as for ``user-lora``; no warm-up of a user's few steps. The released code swaps
    the two weights, as ``swapped=yes`` does.

    ``parameters`` counts one anchor's LoRA for the shared stage, since each is trained alone.
    """

    Config = LoraBankConfig
    config: Any
    paper = "Li et al., MTA, ACL 2026; anchors as in Tan et al., PER-PCS, EMNLP 2024"

    def setup(self) -> None:
        """Start with an empty bank."""
        super().setup()
        self._bank: list[Anchor] = []
        self._mixtures: dict[str, Mixture] = {}
        self._merged: PerUser | None = None
        self._encoder: TextEncoder = _Embeddings(self.backbone)
        if self.config.encoder is not None:
            source = find_model(self.config.encoder, self.config.encoder_revision)
            self._encoder = DenseEncoder(source, self.backbone.device)

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None from the preset, name the backbone's own modules, and the encoder's revision."""
        config, shape = super().resolve(config, task, context), context.shape
        if config.encoder is not None:
            config = replace(config, encoder_revision=find_model(config.encoder, config.encoder_revision).revision)
        if config.targets is None and shape is not None and shape.linear_maps:
            own = (name for name in shape.linear_maps if name not in shape.shared_maps)
            config = replace(config, targets=tuple(own))
        return config if config.targets is None else config.on(context)

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """How many anchors there are and are merged, and the rank of the user's own LoRA."""
        return {"anchors": (10, 25, 50), "top": (1, 2, 3), "rank": RANKS_TO_TRY}

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Choose the anchors, and train a LoRA on each anchor's history."""
        people = [shared.user for shared in users if shared.user.history]
        if not people:
            raise InputError(
                "lora-bank: anchors are shared users with a history, but the data has none; use a protocol with a "
                "train split"
            )
        vectors = {user.id: user_vector(self.task, user, self._encoder) for user in people}
        anchors = self._anchors(people, np.stack(list(vectors.values())))
        spec, jobs = self._bank_spec(), []
        for user in anchors:
            seed = derive_seed(self.seed, "anchor", user.id)
            jobs.append(TrainingJob(user.id, seed, self.examples(user), [spec.fresh(self.backbone, seed)]))
        states = dict(self.train_each(jobs, spec, self.config.bank_recipe()))
        self._bank = [Anchor(user.id, len(user.history), vectors[user.id], states[user.id]) for user in anchors]

    def adapter(self) -> LoraSpec:
        """The user's own LoRA."""
        spec: LoraSpec = self.config.lora(self.config.rank)
        return spec

    def recipe(self) -> Recipe:
        """How it is trained."""
        recipe: Recipe = self.config.recipe(self.config.epochs)
        return recipe

    def beneath(self) -> Sequence[PerUser]:
        """Each user's merged LoRA."""
        if self._merged is None and self._mixtures:
            states = {user: self._mixed(mixture) for user, mixture in self._mixtures.items()}
            self._merged = self._bank_spec().per_user(self.backbone, states)
        return [] if self._merged is None else [self._merged]

    def unadapted(self) -> Sequence[PerUser]:
        """Nothing: without a history no anchor is near."""
        return ()

    def adapt(self, users: Sequence[User]) -> None:
        """Merge the LoRAs of each user's nearest anchors, and train the user's own on top."""
        for user in users:
            self._mix(user.id, self._nearest(user))
        super().adapt(users)

    def forget(self, user_id: str) -> None:
        """Drop the user's LoRA, the mixture beneath it, and the history."""
        super().forget(user_id)
        self._mixtures.pop(user_id, None)
        self._merged = None

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write the user's own LoRA as a PEFT folder, and which anchors were merged, with their weights."""
        super().save_user(user_id, folder)
        (folder / _MIXTURE).write_text(json.dumps(self._mixtures[user_id]), encoding="utf-8")

    def load_user(self, user: User, folder: Path) -> None:
        """Read them; raises InputError for anchors that the bank does not have."""
        super().load_user(user, folder)
        found = _read(folder / _MIXTURE, "a mixture of anchors")
        try:
            mixture = tuple((int(number), float(weight)) for number, weight in found)
        except (TypeError, ValueError) as error:
            raise InputError(f"{folder / _MIXTURE}: not a mixture of anchors: {error}") from error
        for number, weight in mixture:
            if not 0 <= number < len(self._bank) or not math.isfinite(weight):
                raise InputError(
                    f"{folder / _MIXTURE}: expected anchors from 0 to {len(self._bank) - 1} with finite weights, "
                    f"found {number} with {weight}"
                )
        self._mix(user.id, mixture)

    def save_shared(self, folder: Path) -> None:
        """Write ``bank.json``, the anchors; ``vectors.safetensors``, theirs; and a PEFT folder for each."""
        from safetensors.torch import save_file

        index = [{"user": anchor.user, "items": anchor.items} for anchor in self._bank]
        (folder / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
        vectors = np.stack([anchor.vector for anchor in self._bank])
        save_file({"vectors": torch.from_numpy(vectors)}, folder / _VECTORS)
        for number, anchor in enumerate(self._bank):
            own = folder / str(number)
            own.mkdir()
            self._bank_spec().save(anchor.state, own, self.backbone)

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        """Read them; raises InputError for other files."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        index = _read(folder / _INDEX, "an index of anchors")
        try:
            vectors = load_file(folder / _VECTORS)["vectors"].double().numpy()
            named = [(str(entry["user"]), int(entry["items"])) for entry in index]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder}: not a bank ({_INDEX}, {_VECTORS}): {error!r}") from error
        if vectors.ndim != 2 or len(vectors) != len(named):
            raise InputError(f"{folder}: expected one vector per anchor ({len(named)}), found {vectors.shape}")
        spec = self._bank_spec()
        self._bank = [
            Anchor(user, items, vectors[number], spec.load(folder / str(number), self.backbone))
            for number, (user, items) in enumerate(named)
        ]

    def parameters(self) -> Parameters:
        """One anchor's LoRA, and one user's."""
        shared, own = (spec.parameter_count(self.backbone) for spec in (self._bank_spec(), self.adapter()))
        return Parameters(shared, own)

    def _bank_spec(self) -> LoraSpec:
        spec: LoraSpec = self.config.lora(self.config.bank_rank)
        return spec

    def _anchors(self, users: Sequence[User], vectors: np.ndarray) -> list[User]:
        """Of each cluster, the user with the longest history; of equals, the first."""
        clustered = clusters(vectors, self.config.anchors, derive_seed(self.seed, "clusters"))
        longest: dict[int, User] = {}
        for label, user in zip(clustered.tolist(), users, strict=True):
            if label not in longest or len(user.history) > len(longest[label].history):
                longest[label] = user
        found, least = list(longest.values()), self.config.least_items
        enough = [user for user in found if len(user.history) > least]
        if not enough:
            self.say(f"lora-bank: no shared user has more than {least} history items; anchors may have fewer")
        chosen = enough or found
        self.say(f"lora-bank: {len(chosen)} anchors from {len(found)} clusters of {len(users)} shared users")
        return chosen

    def _nearest(self, user: User) -> Mixture:
        """The nearest anchors, and the weights by which their LoRAs are averaged."""
        own, vectors = user_vector(self.task, user, self._encoder), np.stack([anchor.vector for anchor in self._bank])
        return mixture(_cosines(vectors, own), self.config.top, swapped=self.config.swapped)

    def _mix(self, user_id: str, chosen: Mixture) -> None:
        self._mixtures[user_id] = chosen
        self._merged = None

    def _mixed(self, chosen: Mixture) -> State:
        """The average of anchors' LoRAs, of A and of B apart."""
        parts = [(self._bank[number].state, weight) for number, weight in chosen]
        return {name: torch.stack([weight * state[name] for state, weight in parts]).sum(0) for name in parts[0][0]}


class _Embeddings:
    """The mean of a model's own token embeddings as a text's vector."""

    def __init__(self, backbone: TransformersBackbone) -> None:
        self._backbone = backbone

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of shape (texts, width), float64; zero for a text without tokens."""
        weights = self._backbone.model.get_input_embeddings().weight
        rows = []
        for text in texts:
            ids = self._backbone.tokenizer(text, add_special_tokens=False).input_ids
            total = weights[torch.tensor(ids, dtype=torch.long, device=weights.device)].double().sum(0)
            rows.append((total / max(1, len(ids))).cpu().numpy())
        return np.stack(rows)


def mixture(similarities: np.ndarray, top: int, *, swapped: bool = False) -> Mixture:
    """The ``top`` largest similarities by number, each with its share of their sum; of equals, the first.

    Similarities below 0 count as 0; if all do, the shares are equal.

    Args:
        similarities: One per anchor.
        top: How many; all if there are fewer.
        swapped: Give the shares in reverse, the smallest to the most similar.
    """
    numbers = np.argsort(-similarities, kind="stable")[:top]
    shares = similarities[numbers].clip(min=0)
    shares = shares / shares.sum() if shares.any() else np.full(len(numbers), 1 / len(numbers))
    if swapped:
        shares = shares[::-1]
    return tuple(zip(numbers.tolist(), shares.tolist(), strict=True))


def _cosines(vectors: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The cosine of each of ``vectors`` with ``own``; 0 for a vector of length 0."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(own)
    products: np.ndarray = (vectors * own).sum(axis=1)
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def _read(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not {what}: {error}") from error
