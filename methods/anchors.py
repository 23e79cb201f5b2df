"""Anchors: shared users who stand for others, chosen by clusters of user vectors, and their files."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lampbench import InputError, User
from lampbench.adapters import AdapterSpec, GateSpec, LoraSpec, State
from lampbench.backbone import TransformersBackbone
from lampbench.retrieval import clusters

_INDEX, _VECTORS = "bank.json", "vectors.safetensors"
# Between two snapshots of a bank; writing them, each with the whole bank, takes at most such a share of the time.
_SECONDS, _SHARE = 60.0, 0.05

# Number of an anchor, and its weight.
Mixture = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Anchor:
    """A shared user whose adapter others use.

    Attributes:
        user: The user's id.
        items: Of the history.
        vector: Of the user, float64.
        state: The user's adapter.
    """

    user: str
    items: int
    vector: np.ndarray
    state: State


class TokenEmbeddings:
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


def choose_anchors(
    users: Sequence[User],
    vectors: Mapping[str, np.ndarray],
    count: int,
    least_items: int,
    seed: int,
    say: Callable[[str], None],
) -> list[User]:
    """Of each cluster the user with the longest history; of equals, the first.

    Args:
        users: Shared users with a history.
        vectors: Of each, by id.
        count: How many clusters.
        least_items: Anchors have more history items than this, unless none of the clusters' longest has.
        seed: Of the clusters.
        say: Told how many anchors there are.
    """
    labels = clusters(np.stack([vectors[user.id] for user in users]), count, seed)
    longest: dict[int, User] = {}
    for label, user in zip(labels.tolist(), users, strict=True):
        if label not in longest or len(user.history) > len(longest[label].history):
            longest[label] = user
    found = list(longest.values())
    chosen = [user for user in found if len(user.history) > least_items]
    if not chosen:
        say(f"no shared user has more than {least_items} history items; anchors may have fewer")
        chosen = found
    say(f"{len(chosen)} anchors from {len(found)} clusters of {len(users)} shared users")
    return chosen


def cosines(anchors: Sequence[Anchor], vector: np.ndarray) -> np.ndarray:
    """The cosine of each anchor's vector with ``vector``; 0 for a vector of length 0."""
    vectors = np.stack([anchor.vector for anchor in anchors])
    products: np.ndarray = (vectors * vector).sum(axis=1)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    found = np.zeros_like(products)
    np.divide(products, lengths, out=found, where=lengths > 0)
    return found


def save_anchors(anchors: Sequence[Anchor], spec: AdapterSpec, folder: Path, backbone: TransformersBackbone) -> None:
    """Write ``bank.json``, who they are; ``vectors.safetensors``; and a folder for each one's adapter, by number."""
    from safetensors.torch import save_file

    index = [{"user": anchor.user, "items": anchor.items} for anchor in anchors]
    (folder / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    vectors = np.stack([anchor.vector for anchor in anchors])
    save_file({"vectors": torch.from_numpy(vectors)}, folder / _VECTORS)
    for number, anchor in enumerate(anchors):
        own = folder / str(number)
        own.mkdir()
        spec.save(anchor.state, own, backbone)


def load_anchors(spec: AdapterSpec, folder: Path, backbone: TransformersBackbone) -> list[Anchor]:
    """Read what ``save_anchors`` wrote; raises InputError for other files."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = _read(folder / _INDEX, "an index of anchors")
    try:
        vectors = load_file(folder / _VECTORS)["vectors"].double().numpy()
        named = [(str(entry["user"]), int(entry["items"])) for entry in index]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder}: not a bank of anchors ({_INDEX}, {_VECTORS}): {error!r}") from error
    if vectors.ndim != 2 or len(vectors) != len(named):
        raise InputError(f"{folder}: expected one vector per anchor ({len(named)}), found {vectors.shape}")
    return [
        Anchor(user, items, vectors[number], spec.load(folder / str(number), backbone))
        for number, (user, items) in enumerate(named)
    ]


class BankSnapshots:
    """Keeps the anchors of a bank that are finished; one whose gates are trained lies apart from those without.

    Args:
        found: The folder of an earlier snapshot, or None.
        keep: Called with a function that writes a snapshot into an empty folder.
        lora: Of every anchor.
        backbone: What they are for.
    """

    def __init__(
        self,
        found: Path | None,
        keep: Callable[[Callable[[Path], None]], None],
        lora: LoraSpec,
        backbone: TransformersBackbone,
    ) -> None:
        self._found = found
        self._keep = keep
        self._specs: Mapping[str, AdapterSpec] = {"loras": lora, "gated": GateSpec(lora)}
        self._backbone = backbone
        self._next = time.monotonic() + _SECONDS

    def with_loras(self) -> dict[str, Anchor]:
        """Anchors of the earlier snapshot without gates, by user."""
        return self._read("loras")

    def with_gates(self) -> dict[str, Anchor]:
        """Anchors of the earlier snapshot with gates, by user."""
        return self._read("gated")

    def offer(self, loras: Collection[Anchor], gated: Collection[Anchor] = (), *, now: bool = False) -> None:
        """Keep a snapshot of all finished anchors: ``now``, or if the last one is old enough."""
        begun = time.monotonic()
        if not now and begun < self._next:
            return

        def write(folder: Path) -> None:
            for (part, spec), anchors in zip(self._specs.items(), (loras, gated), strict=True):
                if anchors:
                    (folder / part).mkdir()
                    save_anchors(list(anchors), spec, folder / part, self._backbone)

        self._keep(write)
        self._next = begun + max(_SECONDS, (time.monotonic() - begun) / _SHARE)

    def _read(self, part: str) -> dict[str, Anchor]:
        if self._found is None or not (self._found / part).is_dir():
            return {}
        return {own.user: own for own in load_anchors(self._specs[part], self._found / part, self._backbone)}


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


def read_mixture(path: Path, anchors: int) -> Mixture:
    """The mixture that a JSON file holds; raises InputError if it is none of so many ``anchors``."""
    found = _read(path, "a mixture of anchors")
    try:
        chosen = tuple((int(number), float(weight)) for number, weight in found)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not a mixture of anchors: {error}") from error
    if not chosen:
        raise InputError(f"{path}: a mixture without anchors")
    for number, weight in chosen:
        if not 0 <= number < anchors or not math.isfinite(weight):
            raise InputError(
                f"{path}: expected anchors from 0 to {anchors - 1} with finite weights, found {number} with {weight}"
            )
    return chosen


def _read(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not {what}: {error}") from error
