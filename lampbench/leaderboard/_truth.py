"""What rows are checked against: the golds of their queries, and trainable parameters counted again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from lampbench.core import InputError, Method, Parameters, canonical_json, config_from, tasks
from lampbench.data import Dataset, read_outputs
from lampbench.rows import BackboneIdentity, Identity, Row
from lampbench.runner import load_method, load_protocol

_MINI = "mini"


class KnownGolds:
    """Finds golds by a row's protocol or in files of LaMP's outputs format.

    Raises:
        InputError: A file is wrong; or, when called, a row claims to be of mini and is not.
    """

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self._given = {query: gold for path in files for query, gold in read_outputs(path, None).by_id.items()}
        self._mini = cache(_mini_data)

    def __call__(self, row: Row) -> Mapping[str, str] | None:
        """Query id -> gold of all the row's queries; None if they are not at hand."""
        protocol, _ = load_protocol(row.identity.protocol)
        if _MINI in (row.identity.protocol, protocol.origin):
            return self._of_mini(row.identity)
        return self._given or None

    def _of_mini(self, identity: Identity) -> Mapping[str, str]:
        data = self._mini(identity.protocol, identity.task)
        if data.hash != identity.protocol_hash:
            raise InputError(
                f"protocol_hash {identity.protocol_hash[:12]}…, but {identity.protocol} of this LampBench has "
                f"{data.hash[:12]}…"
            )
        return data.golds if identity.limit is None else data.first_users(identity.limit).golds


def _mini_data(protocol: str, task: str) -> Dataset:
    return load_protocol(protocol)[0].load(tasks().load(task), None)


class Recount:
    """Builds a row's method on its backbone without loading weights, and asks it for its count.

    Args:
        models: Model folders, beside the protocols' own, that rows may name.
    """

    def __init__(self, models: Iterable[Path] = ()) -> None:
        self._models = [str(model) for model in models]
        self._describe = cache(_describe)
        self._load = cache(_skeleton)
        self._counts: dict[str, Parameters] = {}

    def __call__(self, identity: Identity) -> Parameters | None:
        """What ``identity``'s method trains; None if its backbone's files, or others that it needs, are not at hand.

        Raises:
            InputError: The method does not take the config.
        """
        plain = identity.to_json()
        key = canonical_json([plain[name] for name in ("task", "method", "config", "backbone")])
        if key not in self._counts:
            counted = self._count(identity)
            if counted is None:
                return None
            self._counts[key] = counted
        return self._counts[key]

    def _count(self, identity: Identity) -> Parameters | None:
        kind = load_method(identity.method)
        owner = f"config: {identity.method}"
        # The place of a file is not part of an identity: no row can name a file to be opened.
        places = {field.name for field in fields(kind.Config) if not field.metadata.get("in_identity", True)}
        for name in places & set(identity.config):
            raise InputError(f"{owner}: {name} is the place of a file, which no identity holds")
        backbone = None
        if kind.needs_backbone:
            if identity.backbone is None:
                raise InputError(f"{owner} needs a backbone, and the identity names none")
            backbone = self._backbone(identity.protocol, identity.backbone)
            if backbone is None:
                return None
        config = _config(kind, identity.config, places, owner)
        if config is None:
            return None
        try:
            method: Method = kind(
                task=tasks().load(identity.task), config=config, seed=identity.seed, backbone=backbone
            )
            return method.parameters()
        except Exception as error:  # whatever a third party's method raises is this row's fault alone
            raise InputError(f"{owner} does not run with it: {type(error).__name__}: {error}") from error

    def _backbone(self, protocol: str, wanted: BackboneIdentity) -> Any:
        own = load_protocol(protocol)[0].default_model
        for model in [*([own] if own else []), *self._models]:
            info = self._describe(model)
            if info.source.revision == wanted.revision:
                return self._load(replace(info, dtype=wanted.dtype))
        return None


def _config(kind: type[Method], values: Mapping[str, Any], places: Iterable[str], owner: str) -> Any:
    """The config; None if it lacks only places, such as that of a retriever's encoder, which no identity holds."""
    try:
        return config_from(kind.Config, values, owner)
    except InputError:
        config_from(kind.Config, {**values, **dict.fromkeys(places, "somewhere")}, owner)
        return None


def _describe(model: str) -> Any:
    from lampbench.backbone import describe_backbone

    return describe_backbone(model, device="cpu")


def _skeleton(info: Any) -> Any:
    from lampbench.backbone import Decoding, TransformersBackbone

    return TransformersBackbone.skeleton(info, decoding=Decoding(), batch_size=1, seed=0)
