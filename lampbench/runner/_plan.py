"""What a run is going to be: everything resolved, nothing loaded but the data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lampbench.bases import PUBLISHED, TrainingConfig, presets_of
from lampbench.core import (
    AskedUser,
    InputError,
    LampBenchError,
    Method,
    Plugin,
    RunContext,
    Task,
    config_from,
    config_to_json,
    digest,
    file_plugin,
    methods,
    tasks,
)
from lampbench.data import Dataset, Protocol, findings
from lampbench.runner._folder import RunFolder
from lampbench.runner._model import ChosenModel
from lampbench.runner._plugins import is_joint, load_method, load_protocol, load_task, shared_identity
from lampbench.runner._settings import Settings
from lampbench.trackers import check_trackers

if TYPE_CHECKING:
    from lampbench.backbone import BackboneInfo, Decoding, ServedInfo

_RUN_ID_LENGTH = 12
# Fewer steps than this hardly train a user.
_FEW_STEPS = 10


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
        check_trackers(settings.track)
        self._force = force
        self._protocol, name = load_protocol(settings.protocol) if protocol is None else (protocol, settings.protocol)
        self._protocol.say = say
        self._protocol.tolerate = settings.tolerate
        # A note on the whole command, given once.
        self._note = cache(say)
        self.settings = replace(settings, protocol=name)
        self._task = cache(self._load_task)
        self._dataset = cache(self._load_dataset)
        self._model = ChosenModel(self.settings, self._protocol.default_model, self._note)

    def plan(self, method: str, task: str, overrides: Mapping[str, Any]) -> Plan | Skip:
        """The run of ``method`` on ``task``, or why there is none.

        Raises:
            InputError: A name, setting, file or model is wrong.
        """
        plugin = methods().plugin(method)
        method = plugin.name
        method_type = load_method(method)
        the_task = self._task(task)
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
        decoding = self._model.decoding if method_type.needs_backbone else None
        if decoding is not None and decoding.mode == "labels" and not task.labels:
            return Skip(method, task.name, f"{task.name} has no labels to score; use greedy or sampled decoding")
        if method_type.needs_backbone and self._model.served:
            if method_type.needs_weights:
                return Skip(method, task.name, f"it needs the model's weights, and {self._model.name} is served")
            if self.settings.decoding == "labels":
                return Skip(
                    method, task.name, "label scoring needs log-probabilities that a served model does not give"
                )
        if method_type.engines and self.settings.engine not in method_type.engines:
            return Skip(method, task.name, f"it does not support --engine {self.settings.engine}")
        if method_type.needs_backbone and self._model.name is None:
            raise InputError(f"{method} needs a language model: --model PATH_OR_HUB_ID")
        # First, because reading data and describing the model may take long.
        config = config_from(method_type.Config, overrides, method)
        dataset, seconds = self._dataset(task)
        if self.settings.users is not None:
            dataset = dataset.first_users(self.settings.users)
        backbone = self._model.info if method_type.needs_backbone else None
        origin = self._protocol.origin or self.settings.protocol
        shape = backbone.shape if backbone else None
        recommended = self._recommended(method, backbone is not None)
        context = RunContext(origin, shape, method, recommended.get(method, {}), recommended)
        config = method_type.resolve(config, task, context)
        joint = is_joint(method, method_type, config)
        shared_identity(method, method_type, config)
        self._note_few_steps(method, task, config, dataset)
        identity = self._identity(method, method_type, task, dataset, config, backbone)
        if joint:
            # Which users these are, the hash of the protocol and the limit say.
            identity["joint"] = True
        run_id = digest(identity)[:_RUN_ID_LENGTH]
        # A protocol's settings may be any text.
        protocol = quote(self.settings.protocol, safe=",=")
        folder = self.settings.out / protocol / task.name / method / run_id
        # What is finished has passed these checks, which take seconds.
        if backbone is not None and not (self._model.served or self._is_kept(folder)):
            self._model.check(task)
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
        return sum(parameter.numel() for parameter in self._model.skeleton.model.parameters())

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

    def _load_task(self, name: str) -> Task:
        # Labels that an earlier command of this process found may be those of other data.
        value = tasks().plugin(name).value
        task = load_task(value if value.lower().endswith(".toml") else name)
        if self.settings.prompts is not None:
            task = task.worded(self.settings.prompts)
        return self.labelled(task)

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
        found, own, chosen = self._protocol.recommended, self._protocol.default_model, self._model.name
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

    def _identity(
        self,
        method: str,
        method_type: type[Method],
        task: Task,
        dataset: Dataset,
        config: Any,
        backbone: BackboneInfo | ServedInfo | None,
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
            "decoding": self._model.decoding_identity(task) if backbone else None,
            "engine": settings.engine if method_type.engines else None,
            "seed": settings.seed,
        }
        if backbone:
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
        return identity
