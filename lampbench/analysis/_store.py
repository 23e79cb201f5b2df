"""Delta vectors on disk: a folder an identity, a file a chunk of users, each whole or absent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lampbench.core import InputError, canonical_json, digest, write_json

Array = NDArray[np.float64]
_IDENTITY = "identity.json"


@dataclass(frozen=True)
class LayerDeltas:
    """One layer's delta vectors; all of shape (users, width).

    Attributes:
        whole: Each user's mean over all queries.
        halves: The means over the user's odd- and even-numbered queries; NaN where a user has none.
    """

    whole: Array
    halves: tuple[Array, Array]


@dataclass(frozen=True)
class Part:
    """What a chunk of users gave.

    Attributes:
        users: Their ids.
        halves: Mean difference over each half of a user's queries, shape (users, 2, layers, width), float32;
            0 where there is no query.
        counts: How many queries each mean is of, shape (users, 2).
        cut: Prompts in which some context or text gave way to the length limit.
        bare: Queries whose personalized prompt is the plain one.
    """

    users: Sequence[str]
    halves: NDArray[np.float32]
    counts: NDArray[np.int64]
    cut: int
    bare: int


class DeltaStore:
    """The folder of one identity.

    Args:
        folder: Where it is.
        identity: What the vectors are of; a folder of another identity is refused.

    Raises:
        InputError: The folder holds something else.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.identity = identity
        self._digest = digest(identity)
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / _IDENTITY
        if not known.exists():
            write_json(known, identity)
        elif _read_identity(known) != canonical_json(identity):
            raise InputError(f"{known}: names other delta vectors than asked for; delete the folder, or give another")

    def has(self, number: int, users: Sequence[str]) -> bool:
        """Whether the chunk is there, whole and of these users; what is not is to be made again."""
        try:
            with safe_open(self._path(number), framework="numpy") as file:
                return (file.metadata() or {}).get("of") == self._head(users)
        except (OSError, SafetensorError):
            return False

    def write(self, number: int, part: Part) -> None:
        """Keep a chunk, whole or not at all."""
        facts = np.array([part.cut, part.bare])
        tensors: dict[str, NDArray[Any]] = {"halves": part.halves, "counts": part.counts, "cut_bare": facts}
        content = save(tensors, {"of": self._head(part.users)})
        path = self._path(number)
        temporary = path.with_suffix(f".{os.getpid()}.partial")
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def counts(self, parts: int) -> tuple[NDArray[np.int64], int, int]:
        """Queries in each half of each user, shape (users, 2); cut prompts; bare queries; over ``parts`` chunks."""
        counts, facts = [], np.zeros(2, np.int64)
        for number in range(parts):
            with safe_open(self._path(number), framework="numpy") as file:
                counts.append(file.get_tensor("counts"))
                facts += file.get_tensor("cut_bare")
        return np.concatenate(counts), int(facts[0]), int(facts[1])

    def layer(self, place: int, parts: int) -> LayerDeltas:
        """Delta vectors of the users who were asked something; only this layer is read.

        Args:
            place: Of the layer among those collected.
            parts: How many chunks there are.
        """
        read = [self._read(number, place) for number in range(parts)]
        halves = np.concatenate([values for values, _ in read]).astype(np.float64)
        counts = np.concatenate([own for _, own in read])
        asked = counts.sum(1) > 0
        halves, counts = halves[asked], counts[asked]
        whole = (halves * counts[:, :, None]).sum(1) / counts.sum(1)[:, None]
        halves[counts == 0] = np.nan
        return LayerDeltas(whole, (halves[:, 0], halves[:, 1]))

    def _read(self, number: int, place: int) -> tuple[Any, Any]:
        with safe_open(self._path(number), framework="numpy") as file:
            return file.get_slice("halves")[:, :, place], file.get_tensor("counts")

    def _head(self, users: Sequence[str]) -> str:
        # One entry: safetensors writes several in any order, and the same work gives the same bytes.
        return canonical_json([self._digest, list(users)])

    def _path(self, number: int) -> Path:
        return self.folder / f"users-{number:05}.safetensors"


def _read_identity(path: Path) -> str:
    try:
        return canonical_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete the folder and measure again") from None
