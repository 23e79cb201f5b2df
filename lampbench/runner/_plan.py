"""What a run is going to be: everything resolved, nothing loaded but the data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from lampbench.bases import PUBLISHED, TrainingConfig, presets_of
from lampbench.core import (
    AskedUser,
    InputError,
    LampBenchError,
    Method,
    Plugin,
    RunContext,
    SharedIdentity,
    Task,
    config_from,
    config_to_json,
    digest,
    file_plugin,
    methods,
    protocols,
    tasks,
)
from lampbench.data import Dataset, Protocol, findings
from lampbench.metrics import metrics_of
from lampbench.runner._folder import RunFolder
from lampbench.runner._settings import Settings

if TYPE_CHECKING:
    from lampbench.backbone import BackboneInfo, Decoding, ServedInfo, TransformersBackbone

_RUN_ID_LENGTH = 12
# Fewer steps than this hardly train a user.
_FEW_STEPS = 10
# Settings that mean something only to a model that runs here.
_OF_WEIGHTS = (
    "revision", "dtype", "device", "tokenizer", "quantize", "trust_remote_code", "max_length", "repetition_penalty",
    "no_repeat_ngram",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One run, resolved.

    Attributes:
        dataset: What the run is about: all of the protocol's data, or its first users.
        identity: Everything that can change a score. Its hash is ``run_id``.
        folder: Where the run's files are; the same identity always has the same folder.
        data_seconds: How long reading the data took.
        backbone: None for a method that uses no language model.
        decoding: How the backbone is asked; None without one.
        joint: Whether the shared stage reads the histories of all evaluated users.
    """

    method: str
    plugin: Plugin
    method_type: type[Method]
    task: Task
    dataset: Dataset
    config: Any
    backbone: BackboneInfo | ServedInfo | None
    decoding: Decoding | None
    settings: Settings
    identity: Mapping[str, Any]
    run_id: str
    folder: Path
    data_seconds: float
    joint: bool = False


@dataclass(frozen=True)
class Steps:
    """How many optimizer steps evaluated users get."""

    median: float
    fewest: int
    most: int

    @classmethod
    def of(cls, config: Any, users: Sequence[AskedUser]) -> Steps | None:
        """Those of users under a resolved config; None if nothing is trained per user."""
        if not isinstance(config, TrainingConfig):
            return None
        given = (config.user_steps(len(own.user.history)) for own in users)
        known = [steps for steps in given if steps is not None]
        return cls(median(known), min(known), max(known)) if known else None

    def __str__(self) -> str:
        return f"{self.median:g} (median; {self.fewest} to {self.most})"


@dataclass(frozen=True)
class Skip:
    """A method that does not support a task, and why."""

    method: str
    task: str
    reason: str


class Planner:
    """Resolves runs; reads each task's data and describes the backbone once.

    Args:
        settings: What the user asked for.
        say: Gets a line when reading the data takes long.
        protocol: Is taken, under the name in ``settings``, in place of the one that is registered under it.
        force: Finished runs will start over, so that their model is checked like that of a new one.
    """

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None] = lambda text: None,
        protocol: Protocol | None = None,
        force: bool = False,
    ) -> None:
        self._force = force
        self._protocol, name = load_protocol(settings.protocol) if protocol is None else (protocol, settings.protocol)
        self._protocol.say = say
        self._protocol.tolerate = settings.tolerate
        # A note on the whole command, given once.
        self._note = cache(say)
        self.settings = replace(settings, protocol=name)
        self._dataset = cache(self._load_dataset)
        self._backbone = cache(self._describe_backbone)
        self._tokenizer = cache(self._load_tokenizer)
        self._checked = cache(self._check_backbone)

    def plan(self, method: str, task: str, overrides: Mapping[str, Any]) -> Plan | Skip:
        """The run of ``method`` on ``task``, or why there is none.

        Raises:
            InputError: A name, setting, file or model is wrong.
        """
        plugin = methods().plugin(method)
        method = plugin.name
        method_type = load_method(method)
        the_task = load_task(task)
        if self.settings.prompts is not None:
            the_task = the_task.worded(self.settings.prompts)
        the_task = self.labelled(the_task)
        try:
            return self._plan(method, plugin, method_type, the_task, overrides)
        except LampBenchError:
            raise
        except (Exception, SystemExit) as error:  # a third party's supports, resolve or Config
            raise InputError(
                f"plug-in {method!r} of {plugin.distribution} fails before it runs: {type(error).__name__}: {error}"
            ) from error

    def _plan(
        self, method: str, plugin: Plugin, method_type: type[Method], task: Task, overrides: Mapping[str, Any]
    ) -> Plan | Skip:
        supported, reason = method_type.supports(task)
        if not supported:
            return Skip(method, task.name, reason)
        decoding = self._decoding() if method_type.needs_backbone else None
        if decoding is not None and decoding.mode == "labels" and not task.labels:
            return Skip(method, task.name, f"{task.name} has no labels to score; use greedy or sampled decoding")
        if method_type.needs_backbone and self._served():
            if method_type.needs_weights:
                return Skip(method, task.name, f"it needs the model's weights, and {self._model()} is served")
            if self.settings.decoding == "labels":
                return Skip(
                    method, task.name, "label scoring needs log-probabilities that a served model does not give"
                )
        if method_type.engines and self.settings.engine not in method_type.engines:
            return Skip(method, task.name, f"it does not support --engine {self.settings.engine}")
        if method_type.needs_backbone and self._model() is None:
            raise InputError(f"{method} needs a language model: --model PATH_OR_HUB_ID")
        dataset, seconds = self._dataset(task)
        if self.settings.users is not None:
            dataset = dataset.first_users(self.settings.users)
        backbone = self._backbone() if method_type.needs_backbone else None
        config = config_from(method_type.Config, overrides, method)
        origin = self._protocol.origin or self.settings.protocol
        shape = backbone.shape if backbone else None
        recommended = self._recommended(method, backbone is not None)
        context = RunContext(origin, shape, method, recommended.get(method, {}), recommended)
        config = method_type.resolve(config, task, context)
        joint = _is_joint(method, method_type, config)
        shared_identity(method, method_type, config)
        self._note_few_steps(method, task, config, dataset)
        identity = self._identity(method, method_type, task, dataset, config, backbone, decoding)
        if joint:
            # Which users these are, the hash of the protocol and the limit say.
            identity["joint"] = True
        run_id = digest(identity)[:_RUN_ID_LENGTH]
        # A protocol's settings may be any text.
        protocol = quote(self.settings.protocol, safe=",=")
        folder = self.settings.out / protocol / task.name / method / run_id
        # What is finished has passed these checks, which take seconds.
        if backbone is not None and decoding is not None and not (self._served() or self._is_kept(folder)):
            self._note_lengths_and_template(backbone, decoding)
            self._checked().check_task(task)
        return Plan(
            method, plugin, method_type, task, dataset, config, backbone, decoding, self.settings, identity, run_id,
            folder, seconds, joint,
        )  # fmt: skip

    def _is_kept(self, folder: Path) -> bool:
        try:
            row = None if self._force else RunFolder(folder).row()
        except InputError:  # a damaged row; that is reported when the run begins
            return False
        return row is not None and row.status == "success"

    def weights(self) -> int:
        """How many weights the model has; none of them is loaded."""
        return sum(parameter.numel() for parameter in self._checked().model.parameters())

    def dataset(self, task: Task) -> Dataset:
        """All of ``task``'s data; raises InputError if it is missing or wrong."""
        return self._dataset(task)[0]

    def labelled(self, task: Task) -> Task:
        """The task; if its file leaves the labels to the data, with these, and found so by its name from now on."""
        definition = task.definition
        if definition is None or not definition.needs_labels:
            return task
        data = self.dataset(task)
        known = {target.strip() for target in data.golds.values()}
        for users in (data.users, (entry.user for entry in data.shared)):
            known.update(item.target.strip() for user in users for item in user.history)
        known.update(query.target.strip() for entry in data.shared for query in entry.queries)
        resolved = definition.with_labels(sorted(known))
        tasks().add(file_plugin(task.name, resolved, Path(tasks().plugin(task.name).value)))
        return resolved

    def _load_dataset(self, task: Task) -> tuple[Dataset, float]:
        start = time.perf_counter()
        dataset = self._protocol.load(task, self.settings.data)
        found = findings(dataset.leaks)
        refused = dataset.reading.refused
        if refused:
            found.append(f"{len(refused)} records cannot be read, the first is {refused[0]}")
        if found and self.settings.strict:
            raise InputError(f"--strict: {task.name}: {'; '.join(found)}")
        return dataset, time.perf_counter() - start

    def _recommended(self, method: str, uses_model: bool) -> Mapping[str, Mapping[str, Any]]:
        """What the protocol recommends, by method: settings for its own model, if it has one."""
        found, own, chosen = self._protocol.recommended, self._protocol.default_model, self._model()
        if not uses_model or own is None or Path(str(chosen)).resolve() == Path(own).resolve():
            return found
        if not found.get(method):
            return {}
        name = self._protocol.origin or self.settings.protocol
        self._note(
            f"the settings that {name} recommends are for its model {Path(own).name}; "
            f"{Path(str(chosen)).name} uses the published ones"
        )
        return {}

    def _note_few_steps(self, method: str, task: Task, config: Any, dataset: Dataset) -> None:
        """Report if published settings hardly train a user."""
        if not isinstance(config, TrainingConfig) or config.preset != PUBLISHED:
            return
        steps = Steps.of(config, dataset.evaluated)
        if steps is None or steps.median >= _FEW_STEPS:
            return
        start = ", and a start that is not the identity has no time to become useful" if config.starts_elsewhere else ""
        others = "".join(f", or take those of --set preset={name}" for name in presets_of(method))
        self._note(
            f"{task.name} {method}: users get {steps} optimizer steps; the published settings are for long "
            f"histories{start}: find others by lampbench tune {method}, which asks shared users alone{others}"
        )

    def _model(self) -> str | None:
        return self.settings.model or self._protocol.default_model

    def _served(self) -> bool:
        """Whether the model is a served one; raises InputError if an option does not fit that."""
        from lampbench.backbone import is_served

        settings, served = self.settings, is_served(self._model())
        if not served and settings.endpoint is not None:
            raise InputError("--endpoint is for a served model: --model openai:NAME")
        if served and settings.executor == "ray":
            raise InputError(f"--executor ray: {self._model()} is served, and needs no workers; leave it out")
        for name in _OF_WEIGHTS if served else ():
            if getattr(settings, name) != getattr(Settings, name):
                key = name.replace("_", "-")
                raise InputError(f"--{key} is for models that run here, and {self._model()} is served; leave it out")
        return served

    def _describe_backbone(self) -> BackboneInfo | ServedInfo:
        from lampbench.backbone import describe_backbone, describe_served

        settings = self.settings
        if self._served():
            return describe_served(str(self._model()), settings.endpoint, self._decoding())
        return describe_backbone(
            str(self._model()),
            revision=settings.revision,
            dtype=settings.dtype,
            device=settings.device,
            trust_remote_code=settings.trust_remote_code,
            tokenizer=settings.tokenizer,
            quantize=settings.quantize,
            # Workers have the device; this process need not.
            elsewhere=settings.executor == "ray" and settings.device == "cuda",
        )

    def _check_backbone(self) -> TransformersBackbone:
        """The backbone without weights, after every check of its files."""
        from lampbench.backbone import TransformersBackbone

        settings = self.settings
        backbone = cast("BackboneInfo", self._backbone())
        return TransformersBackbone.checked(
            backbone, decoding=self._decoding(), batch_size=settings.batch_size, seed=settings.seed
        )

    def _decoding(self) -> Decoding:
        from lampbench.backbone import Chat, Decoding, Penalties

        settings = self.settings
        return Decoding(
            settings.decoding,
            Chat(settings.system, settings.thinking or 0) if settings.chat == "on" else None,
            settings.max_length,
            Penalties(settings.repetition_penalty, settings.no_repeat_ngram),
        )

    def _load_tokenizer(self) -> Any:
        from lampbench.backbone import ServedInfo, load_tokenizer

        backbone = self._backbone()
        return None if isinstance(backbone, ServedInfo) else load_tokenizer(backbone)

    def _note_lengths_and_template(self, backbone: BackboneInfo | ServedInfo, decoding: Decoding) -> None:
        """Report what the user may not know about the model."""
        from lampbench.backbone import ServedInfo, has_template

        if isinstance(backbone, ServedInfo):
            return
        wanted, context, name = decoding.max_length, backbone.shape.context, backbone.source.id
        if isinstance(wanted, int) and wanted > context:
            self._note(f"--max-length {wanted}: {name} reads at most {context} tokens, which is the limit")
        if decoding.chat is None:
            try:
                template = has_template(self._tokenizer())
            except InputError:  # if there is none, or it cannot be read, loading the model says what is wrong
                return
            if template:
                self._note(f"{name}: its tokenizer has a chat template; --chat on uses it")

    def _identity(
        self,
        method: str,
        method_type: type[Method],
        task: Task,
        dataset: Dataset,
        config: Any,
        backbone: BackboneInfo | ServedInfo | None,
        decoding: Decoding | None,
    ) -> dict[str, Any]:
        settings = self.settings
        identity: dict[str, Any] = {
            "task": task.name,
            "task_version": task.version,
            "protocol": settings.protocol,
            "protocol_hash": dataset.hash,
            "limit": settings.users,
            "method": method,
            "method_version": method_type.version,
            "config": config_to_json(config, identity_only=True),
            "backbone": None,
            "prompt_hash": task.prompt_hash(),
            "decoding": decoding.to_json(task) if decoding else None,
            "engine": settings.engine if method_type.engines else None,
            "seed": settings.seed,
        }
        if backbone and decoding is not None:
            identity["backbone"] = {
                "id": backbone.id,
                "revision": backbone.revision,
                "dtype": backbone.dtype,
                # Kernels differ, and with them the last bits; a run never mixes two kinds.
                "device": backbone.device.split(":")[0],
            }
            if backbone.quantization is not None:
                identity["backbone"]["quantization"] = backbone.quantization
            if backbone.tokenizer is not None:
                named = {"id": backbone.tokenizer.id, "revision": backbone.tokenizer.revision}
                identity["backbone"]["tokenizer"] = named
            identity["decoding"] |= self._of_model(backbone, decoding)
        return identity

    def _of_model(self, backbone: BackboneInfo | ServedInfo, decoding: Decoding) -> dict[str, Any]:
        """The part of the decoding that depends on the model."""
        from lampbench.backbone import MAX_SEQUENCE, ServedInfo, chat_identity

        details: dict[str, Any] = {}
        if isinstance(backbone, ServedInfo):
            return details if decoding.chat is None else {"chat": backbone.chat_identity(decoding.chat)}
        # In float32 predictions do not depend on the batch size; below it, rounding may.
        if backbone.dtype != "float32":
            details["batch_size"] = self.settings.batch_size
        length = decoding.length(backbone.shape.context)
        if length is not None:
            details["max_length"] = length
        # Earlier, test prompts were cut as training sequences are.
        elif backbone.shape.context > MAX_SEQUENCE:
            details["context"] = backbone.shape.context
        if decoding.chat is not None:
            details["chat"] = chat_identity(decoding.chat, self._tokenizer(), backbone)
        return details


def _is_joint(method: str, method_type: type[Method], config: Any) -> bool:
    """Whether the method declares joint training under this config; raises InputError if it says neither."""
    joint = method_type.joint(config)
    if not isinstance(joint, bool):
        raise InputError(f"the method plug-in {method!r}: joint returned {joint!r}; expected True or False")
    return joint


def shared_identity(method: str, method_type: type[Method], config: Any) -> SharedIdentity | None:
    """What the method's own class says that its shared stage depends on; None: all of the config.

    What a class inherits says nothing of it: it may train in another way.

    Raises:
        InputError: It is no SharedIdentity, or its settings are no JSON values.
    """
    if "shared_identity" not in vars(method_type):
        return None
    identity = method_type.shared_identity(config)
    try:
        if identity is None or (isinstance(identity, SharedIdentity) and digest(dict(identity.settings))):
            return identity
    except (TypeError, ValueError) as error:  # a value that JSON does not have
        raise InputError(f"the method plug-in {method!r}: the settings of its shared_identity: {error}") from error
    raise InputError(
        f"the method plug-in {method!r}: shared_identity returned {identity!r}; expected a "
        "lampbench.core.SharedIdentity, or None"
    )


def load_task(name: str) -> Task:
    """The task called ``name``; raises InputError if there is none, or if it is not a task that can be scored."""
    task = tasks().load(name)
    if not isinstance(task, Task):
        raise InputError(f"the task plug-in {name!r} is a {type(task).__name__}; expected an instance of Task")
    metrics_of(task)
    return task


def load_protocol(text: str) -> tuple[Protocol, str]:
    """The protocol that ``text`` (``NAME`` or ``NAME,KEY=VALUE``) asks for, and its canonical form.

    Raises:
        InputError: There is none of that name, it is no protocol, or a setting is wrong.
    """
    given, *parts = text.split(",")
    name = protocols().plugin(given).name
    kind = protocols().load(name)
    if not (isinstance(kind, type) and issubclass(kind, Protocol)):
        raise InputError(f"the protocol plug-in {name!r} is {kind!r}; expected a class derived from Protocol")
    for part in parts:
        if "=" not in part:
            raise InputError(f"--protocol {text}: expected NAME,KEY=VALUE, found {part!r}")
    settings = dict(part.split("=", 1) for part in parts)
    if len(settings) < len(parts):
        raise InputError(f"--protocol {text}: a setting is given twice")
    protocol: Protocol = kind(config_from(kind.Config, settings, f"the protocol {name!r}"))
    return protocol, protocol.canonical(name)


def load_method(name: str) -> type[Method]:
    """The method called ``name``; raises InputError if there is none, or if it cannot be configured."""
    method = load_method_class(name)
    if not is_dataclass(method.Config):
        where = methods().plugin(name).distribution
        raise InputError(f"the method plug-in {name!r} of {where}: its Config must be a frozen dataclass")
    missing = [hook for hook in ("fit_joint", "load_shared") if getattr(method, hook) is getattr(Method, hook)]
    if missing and method.joint.__func__ is not Method.joint.__func__:  # type: ignore[attr-defined]
        raise InputError(
            f"the method plug-in {name!r} declares joint training and does not override {' and '.join(missing)}; "
            "expected a fit_joint, and a load_shared that restores what it learned"
        )
    return method


def load_method_class(name: str) -> type[Method]:
    """The class called ``name``, whatever its config; raises InputError if there is none or it is not a method."""
    plugin = methods().plugin(name)
    method = plugin.load()
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise InputError(
            f"the method plug-in {name!r} of {plugin.distribution} is {method!r}; "
            "expected a class derived from lampbench.Method"
        )
    return method
