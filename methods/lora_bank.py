"""LoRA bank: a user's LoRA is made of the LoRAs of shared users who are alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lampbench_methods.anchors import (
    Anchor,
    BankSnapshots,
    Mixture,
    TokenEmbeddings,
    choose_anchors,
    cosines,
    load_anchors,
    mixture,
    read_mixture,
    save_anchors,
)
from lampbench_methods.lora import RANKS_TO_TRY, LoraTrainingConfig
from lampbench_methods.user_lora import USER_EPOCHS, UserLoraConfig

from lampbench import AdapterMethod, InputError, LabelledUser, Parameters, Task, User, setting
from lampbench.adapters import AdapterSpec, GateSpec, LoraSpec, PerUser, Recipe, State, TrainingJob, mean_inputs
from lampbench.core import RunContext, derive_seed
from lampbench.hub import find_model
from lampbench.retrieval import DenseEncoder, TextEncoder, user_vector

_MIXTURE = "mixture.json"

# As in the released code of MTA and PER-PCS, but for the clip of LoRAs, which MTA's does not name and is OPPU's.
PUBLISHED: Mapping[str, Any] = {
    "anchors": 50,
    "least_items": 10,
    "bank_rank": 8,
    "bank_learning_rate": 1e-4,
    "gate_learning_rate": 2e-5,
    "gate_steps": 200,
    "rank": 4,
    "epochs": 1,
    "learning_rate": 5e-5,
    "batch_size": 8,
    "clip": 0.3,
}
# What differs: of MTA, and of PER-PCS, whose anchors are trained as OPPU's users.
PUBLISHED_OF_MODE: Mapping[str, Mapping[str, Any]] = {
    "merge": {"top": 2, "bank_epochs": 3, "bank_batch_size": 2},
    "pieces": {"top": 3, "bank_epochs": USER_EPOCHS, "bank_batch_size": 16},
}


@dataclass(frozen=True)
class LoraBankConfig(LoraTrainingConfig):
    """Settings of ``lora-bank``."""

    published = PUBLISHED
    user_epochs_in = "epochs"
    mode: Literal["merge", "pieces"] = setting(
        "merge", "merge (MTA): the nearest anchors' LoRAs, and one of the user's own on top; pieces (PER-PCS): each "
        "module's LoRA from the anchors whose gates fit the user's texts",
    )  # fmt: skip
    targets: tuple[str, ...] | None = setting(
        None, "modules that get a LoRA (default: all linear maps of the layers; pieces: q_proj, v_proj)"
    )
    anchors: int | None = setting(None, "how many clusters of shared users; each gives one anchor at most")
    least_items: int | None = setting(None, "an anchor has more history items than this, if any shared user has")
    encoder: str | None = setting(
        None, "path or hub id of an encoder for user vectors (default: the model's own token embeddings)",
        in_identity=False,
    )  # fmt: skip
    encoder_revision: str | None = setting(None, "the encoder's revision; found automatically")
    bank_rank: int | None = setting(None, "rank of an anchor's LoRA")
    bank_epochs: int | None = setting(None, "epochs over an anchor's history (published: merge 3; pieces as oppu: 2)")
    bank_learning_rate: float | None = setting(None, "AdamW learning rate of an anchor's LoRA")
    bank_batch_size: int | None = setting(
        None, "training examples per step of an anchor (published: merge 2; pieces as oppu: 16)"
    )
    bank_warmup_ratio: float = setting(0.1, "part of an anchor's steps in which the learning rate rises")
    top: int | None = setting(None, "how many anchors a user's LoRA is made of (published: merge 2, pieces 3)")
    swapped: bool = setting(False, "merge: gives the nearest anchor the smallest weight, as MTA's released code does")
    gate_learning_rate: float | None = setting(None, "pieces: AdamW learning rate of gates")
    gate_steps: int | None = setting(None, "pieces: training steps of gates")
    rank: int | None = setting(None, "merge: rank of the user's own LoRA")
    epochs: int | None = setting(None, "merge: epochs over the user's history")
    learning_rate: float | None = setting(None, "merge: AdamW learning rate of the user's own LoRA")
    batch_size: int | None = setting(None, "merge: training examples per step of the user's own LoRA")
    warmup_ratio: float = setting(0.0, "merge: part of the user's steps in which the learning rate rises")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "anchors", "least_items", "top", "gate_steps")
        self.above_zero("bank_learning_rate", "gate_learning_rate")
        if not 0 <= self.bank_warmup_ratio <= 1:
            raise ValueError(f"bank_warmup_ratio must be from 0 to 1, found {self.bank_warmup_ratio}")

    def user_steps(self, items: int) -> int | None:
        """Optimizer steps of a user; None if nothing is trained per user."""
        return super().user_steps(items) if self.mode == "merge" else None


class LoraBank(AdapterMethod):
    """A bank of shared users' LoRAs, of which each user's is made: merged (MTA), or module by module (PER-PCS).

    Shared users are clustered by user vectors, and the one with the longest history in each cluster is an anchor. A
    LoRA is trained on each anchor's history alone.

    ``mode=merge``: the LoRAs of the anchors nearest to the user (by the cosine of user vectors) are merged: A and B are
    averaged apart, with the similarities as weights. The result is frozen beneath a small LoRA that is trained on the
    user's history. All users share the base model. MTA's released code swaps the two weights, as ``swapped=yes`` does.

    ``mode=pieces``: a gate per module is trained for each anchor, after its LoRA. Each module then gets the average of
    the LoRAs of those anchors whose gates are most like what the module reads of the user's texts. Nothing is trained
    for the user.

    Published beside the settings: anchors by vectors of DeBERTa-v3-large; for MTA similarity by BGE-small on the first
    512 tokens of a history, learning rates on a cosine, and prompts with one retrieved item; for PER-PCS a model that
    knows the task, and pieces that are chosen for each batch of texts and then averaged. Chosen here: one user vector,
    the mean over items, by default of the model's own token embeddings (no other model, no forward pass, the same in
    any batch); linear rates; plain prompts and the plain model, as for ``user-lora``; no warm-up of a user's few steps;
    one choice of pieces from all texts.

    ``parameters`` counts one anchor's LoRA for the shared stage, since each is trained alone.
    """

    Config = LoraBankConfig
    config: Any
    paper = "Li et al., MTA, ACL 2026 (mode=merge); Tan et al., PER-PCS, EMNLP 2024 (mode=pieces)"

    def setup(self) -> None:
        """Start with an empty bank."""
        super().setup()
        self._anchors: list[Anchor] = []
        self._mixtures: dict[str, Mixture] = {}
        self._merged: PerUser | None = None
        self._encoder: TextEncoder = TokenEmbeddings(self.backbone)
        if self.config.encoder is not None:
            source = find_model(self.config.encoder, self.config.encoder_revision)
            self._encoder = DenseEncoder(source, self.backbone.device)

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Fill fields that are None from the preset, name the backbone's own modules, and the encoder's revision."""
        config, shape = super().resolve(config, task, context), context.shape
        of_mode = PUBLISHED_OF_MODE[config.mode].items()
        config = replace(config, **{name: value for name, value in of_mode if getattr(config, name) is None})
        if config.encoder is not None:
            config = replace(config, encoder_revision=find_model(config.encoder, config.encoder_revision).revision)
        if config.targets is not None:
            return config.on(context)
        if shape is None:
            return config
        if config.mode == "pieces":
            return replace(config, targets=UserLoraConfig().on(context).targets)
        own = tuple(name for name in shape.linear_maps if name not in shape.shared_maps)
        if shape.linear_maps and not own:
            raise InputError("lora-bank: all linear maps of the model are shared by several layers; use another method")
        return replace(config, targets=own or None)

    @classmethod
    def search_space(cls, task: Task, context: RunContext) -> Mapping[str, Sequence[Any]]:
        """How many anchors there are, of how many a LoRA is made, and the rank of the user's own."""
        return {"anchors": (10, 25, 50), "top": (1, 2, 3), "rank": RANKS_TO_TRY}

    def fit_shared(self, users: Sequence[LabelledUser]) -> None:
        """Choose the anchors, and train a LoRA, and perhaps gates, on each anchor's history."""
        people = [shared.user for shared in users if shared.user.history]
        if not people:
            raise InputError(
                "lora-bank: anchors are shared users with a history, but the data has none; use a protocol with a "
                "train split"
            )
        vectors = {user.id: user_vector(self.task, user, self._encoder) for user in people}
        count, least, seed = self.config.anchors, self.config.least_items, derive_seed(self.seed, "clusters")
        chosen = choose_anchors(people, vectors, count, least, seed, self.say)
        snapshots = BankSnapshots(self.kept, self.keep, self._bank_lora(), self.backbone)
        anchors = self._with_loras(chosen, vectors, snapshots)
        self._anchors = anchors if self._merges else self._with_gates(chosen, anchors, snapshots)

    def adapter(self) -> LoraSpec:
        """The user's own LoRA, or the one that is made of pieces."""
        return self._lora(self.config.rank) if self._merges else self._bank_lora()

    def recipe(self) -> Recipe:
        """How the user's own LoRA is trained."""
        recipe: Recipe = self.config.recipe(self.config.epochs)
        return recipe

    def beneath(self) -> Sequence[PerUser]:
        """Each user's merged LoRA."""
        if self._merged is None and self._mixtures:
            states = {user: self._mixed(mixture) for user, mixture in self._mixtures.items()}
            self._merged = self._bank_lora().per_user(self.backbone, states)
        return [] if self._merged is None else [self._merged]

    def acting_for(self, user_id: str) -> Sequence[tuple[AdapterSpec, State]]:
        """The merged LoRA of the anchors, if there is one, and the user's own."""
        mixed = [self._mixed(self._mixtures[user_id])] if user_id in self._mixtures else []
        return [*((self._bank_lora(), state) for state in mixed), (self.adapter(), self._states[user_id])]

    def unadapted(self) -> Sequence[PerUser]:
        """Nothing: without a history no anchor is near."""
        return ()

    def adapt(self, users: Sequence[User]) -> None:
        """Merge the nearest anchors' LoRAs and train the user's own on top, or assemble it of pieces."""
        if self._merges:
            for user in users:
                similarities = cosines(self._anchors, user_vector(self.task, user, self._encoder))
                self._mix(user.id, mixture(similarities, self.config.top, swapped=self.config.swapped))
            super().adapt(users)
            return
        for done, user in enumerate(users, start=1):
            inputs = mean_inputs(self.backbone, self._bank_lora(), self.examples(user))
            self._states[user.id] = assembled(inputs, [anchor.state for anchor in self._anchors], self.config.top)
            self._users[user.id] = user
            self.keep_user(user.id)
            self.progress(done, len(users))

    def forget(self, user_id: str) -> None:
        """Drop the user's LoRA, what lies beneath it, and the history."""
        super().forget(user_id)
        self._mixtures.pop(user_id, None)
        self._merged = None

    def moved(self, user_id: str) -> bool | None:
        """Whether the user's own LoRA was moved by training; None if nothing is trained."""
        return super().moved(user_id) if self._merges else None

    def save_user(self, user_id: str, folder: Path) -> None:
        """Write the user's LoRA as a PEFT folder, and which anchors lie beneath it, with their weights."""
        super().save_user(user_id, folder)
        if self._merges:
            (folder / _MIXTURE).write_text(json.dumps(self._mixtures[user_id]), encoding="utf-8")

    def load_user(self, user: User, folder: Path) -> None:
        """Read them; raises InputError for anchors that the bank does not have."""
        super().load_user(user, folder)
        if self._merges:
            self._mix(user.id, read_mixture(folder / _MIXTURE, len(self._anchors)))

    def save_shared(self, folder: Path) -> None:
        """Write the anchors: ``bank.json``, ``vectors.safetensors``, and a PEFT folder for each, perhaps with gates."""
        save_anchors(self._anchors, self._bank_spec(), folder, self.backbone)

    def load_shared(self, folder: Path, users: Sequence[LabelledUser]) -> None:
        """Read them."""
        self._anchors = load_anchors(self._bank_spec(), folder, self.backbone)

    def parameters(self) -> Parameters:
        """One anchor's LoRA, and what is trained for one user."""
        own = self.adapter().parameter_count(self.backbone) if self._merges else 0
        return Parameters(self._bank_lora().parameter_count(self.backbone), own)

    @property
    def _merges(self) -> bool:
        return bool(self.config.mode == "merge")

    def _lora(self, rank: int) -> LoraSpec:
        spec: LoraSpec = replace(self.config, rank=rank).spec(self.config.targets)
        return spec

    def _bank_lora(self) -> LoraSpec:
        return self._lora(self.config.bank_rank)

    def _bank_spec(self) -> LoraSpec | GateSpec:
        """What an anchor's state is of."""
        return self._bank_lora() if self._merges else GateSpec(self._bank_lora())

    def _with_loras(
        self, users: Sequence[User], vectors: Mapping[str, np.ndarray], snapshots: BankSnapshots
    ) -> list[Anchor]:
        """A LoRA trained on each anchor's history."""
        config, spec = self.config, self._bank_lora()
        found = {**snapshots.with_loras(), **snapshots.with_gates()}
        waiting = {user.id: user for user in users if user.id not in found}
        starts = {user: spec.fresh(self.backbone, self._seed_of(user)) for user in waiting}
        recipe = replace(
            config.recipe(config.bank_epochs),
            learning_rate=config.bank_learning_rate,
            batch_size=config.bank_batch_size,
            warmup_ratio=config.bank_warmup_ratio,
        )
        for user, state in self.train_each(self._jobs(list(waiting.values()), starts), spec, recipe):
            found[user] = Anchor(user, len(waiting[user].history), vectors[user], state)
            gates_next = len(found) == len(users) and not self._merges
            snapshots.offer(found.values(), now=gates_next)
        return [found[user.id] for user in users]

    def _with_gates(self, users: Sequence[User], anchors: Sequence[Anchor], snapshots: BankSnapshots) -> list[Anchor]:
        """The anchors with gates, trained before their LoRAs."""
        config, spec = self.config, GateSpec(self._bank_lora())
        found, loras = snapshots.with_gates(), {anchor.user: anchor for anchor in anchors}
        waiting = [user for user in users if user.id not in found]
        starts = {user.id: spec.before(self.backbone, loras[user.id].state) for user in waiting}
        steps: int = config.gate_steps
        # Every epoch has a step at least.
        recipe = Recipe(
            steps, config.gate_learning_rate, 0.0, 0.0, config.clip, config.bank_batch_size, most_steps=steps
        )
        for user, state in self.train_each(self._jobs(waiting, starts), spec, recipe):
            found[user] = replace(loras[user], state=state)
            snapshots.offer([anchor for anchor in anchors if anchor.user not in found], found.values())
        return [found[user.id] for user in users]

    def _jobs(self, users: Sequence[User], starts: Mapping[str, State]) -> list[TrainingJob]:
        return [TrainingJob(user.id, self._seed_of(user.id), self.examples(user), [starts[user.id]]) for user in users]

    def _seed_of(self, anchor: str) -> int:
        return derive_seed(self.seed, "anchor", anchor)

    def _mix(self, user_id: str, chosen: Mixture) -> None:
        self._mixtures[user_id] = chosen
        self._merged = None

    def _mixed(self, chosen: Mixture) -> State:
        """The average of anchors' LoRAs, of A and of B apart."""
        parts = [(self._anchors[number].state, weight) for number, weight in chosen]
        return {name: _average([(state[name], weight) for state, weight in parts]) for name in parts[0][0]}


def assembled(inputs: Mapping[str, torch.Tensor], anchors: Sequence[State], top: int) -> State:
    """A LoRA of which each module is the average of the anchors' whose gates are most like the module's inputs.

    An anchor's score is the product of the mean normalized input and the normalized gate over the root of their width.
    The weights of the ``top`` anchors are the softmax of their scores; A and B are averaged apart.

    Args:
        inputs: The mean normalized inputs, by the modules' names.
        anchors: LoRA and gates of each.
        top: Anchors per module; all if there are fewer.
    """
    state: dict[str, torch.Tensor] = {}
    for name, mean in inputs.items():
        gates = torch.stack([anchor[f"{name}.lora_gate"].double() for anchor in anchors])
        scores = torch.nn.functional.layer_norm(gates, mean.shape) @ mean / math.sqrt(len(mean))
        best = scores.argsort(descending=True, stable=True)[:top]
        weights = scores[best].softmax(0).tolist()
        for part in (f"{name}.lora_A.weight", f"{name}.lora_B.weight"):
            chosen = [anchors[number][part] for number in best.tolist()]
            state[part] = _average(list(zip(chosen, weights, strict=True)))
    return state


def _average(parts: Sequence[tuple[torch.Tensor, float]]) -> torch.Tensor:
    return torch.stack([weight * tensor for tensor, weight in parts]).sum(0)
