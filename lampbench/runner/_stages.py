"""Shared stages that a run trained, stored for other runs that need the very same one.

::

    <out>/.shared-stages/<key>/
        stage.json      which run trained it, what that cost, and the SHA-256 of each of its files
        state/          the state, as in the run's folder

A stage is written under a temporary name and moved into place. One that does not match its hashes is not used.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

import lampbench
from lampbench.core import InputError, Method, config_to_json, digest, file_sha256, new_folder
from lampbench.rows import TakenStage
from lampbench.runner._environment import environment, source_commit
from lampbench.runner._failures import storing
from lampbench.runner._folder import CARD, RunFolder
from lampbench.runner._plan import Plan
from lampbench.runner._plugins import shared_identity
from lampbench.runner._units import has_shared_stage

# No protocol, whose folder would lie beside it, has a name like this.
_PLACE = ".shared-stages"
# What makes stages of one method different, besides its settings.
_SAME = ("task", "task_version", "backbone", "prompt_hash", "decoding")


@dataclass(frozen=True)
class TakenState:
    """A stage that was taken.

    Attributes:
        origin: Where it comes from.
        events: Journal events of the run that trained it, marked as taken.
    """

    origin: TakenStage
    events: Sequence[dict[str, Any]]

    @property
    def seconds(self) -> float:
        """What training it took."""
        return float(sum(event["seconds"] for event in self.events))


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """``stage.json``; ``sha256`` is over everything else in it."""

    run_id: str
    task: str
    method: str
    files: dict[str, str]
    events: list[dict[str, Any]]
    sha256: str = ""

    def hashed(self) -> str:
        return digest({name: value for name, value in msgspec.structs.asdict(self).items() if name != "sha256"})


class SharedStages:
    """The store, as one executor uses it.

    Attributes:
        trained: Places of the stages that were stored here.
    """

    def __init__(self) -> None:
        self.trained: set[Path] = set()

    def of(self, plan: Plan, where: Mapping[str, Any] | None = None, *, fresh: bool = False) -> StoredStage | None:
        """The place of a run's shared stage; None if the run has none, or none that can be taken.

        Args:
            plan: The run.
            where: The environment of the workers that do it; None for this process.
            fresh: Take only what was stored here.
        """
        kind = plan.method_type
        saves = kind.save_shared is not Method.save_shared and kind.load_shared is not Method.load_shared
        return StoredStage(plan, where, self.trained, fresh) if saves and has_shared_stage(plan) else None


@dataclass(frozen=True)
class StoredStage:
    """The place of one run's shared stage in the store, whether there is one or not."""

    plan: Plan
    where: Mapping[str, Any] | None
    trained: set[Path]
    fresh: bool

    @cached_property
    def folder(self) -> Path:
        """The same for all runs that have this stage in common."""
        key = digest([_identity(self.plan), _made_by(self.plan, self.where)])
        return self.plan.settings.out / _PLACE / key[:32]

    def take(self, into: Path) -> TakenState | None:
        """Copy the state to the folder ``into``; None if there is none to take.

        Raises:
            InputError: It is damaged.
            StorageError: ``into`` cannot be written.
        """
        if self.fresh and self.folder not in self.trained:
            return None
        try:
            return self._take(into) if self._file.exists() else None
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise InputError(f"the shared stage stored in {self.folder} is damaged, and not used: {error}") from error

    def _take(self, into: Path) -> TakenState:
        known = msgspec.json.decode(self._file.read_bytes(), type=_File)
        files = {name: file_sha256(path) for name, path in _files(self._state).items()}
        if known.hashed() != known.sha256 or files != known.files:
            raise ValueError("its files do not match their hashes")
        with storing(into):
            shutil.rmtree(into, ignore_errors=True)
            _copy(self._state, into)
        origin = TakenStage(run_id=known.run_id, sha256=digest(files))
        taken = {"taken": origin.to_json()}
        # The time was spent in another run.
        return TakenState(origin, [{**event, "charged": event["seconds"], **taken} for event in known.events])

    def store(self, folder: RunFolder) -> None:
        """Store the shared stage that a run has just trained, in place of an earlier one.

        Raises:
            OSError: The file system refuses.
        """
        files = {name: file_sha256(path) for name, path in _files(folder.shared_state).items()}
        if not files:
            return
        file = _File(self.plan.run_id, self.plan.task.name, self.plan.method, files, _last_fit(folder.journal()))
        file.sha256 = file.hashed()
        try:
            with new_folder(self.folder, replace=True) as new:
                _copy(folder.shared_state, new / self._state.name)
                (new / self._file.name).write_bytes(msgspec.json.encode(file))
        except OSError as error:
            # Another process may have stored the same stage in this moment.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not self._file.exists():
                raise
        self.trained.add(self.folder)

    @property
    def _file(self) -> Path:
        return self.folder / "stage.json"

    @property
    def _state(self) -> Path:
        return self.folder / "state"


def _identity(plan: Plan) -> dict[str, Any]:
    """What the shared stage of a run depends on."""
    kind, settings = plan.method_type, plan.settings
    own = shared_identity(plan.method, kind, plan.config)
    config = config_to_json(plan.config, identity_only=True)
    stage = [plan.method, plan.plugin.value, kind.version, config]
    if own is not None:
        stage = [own.name, own.version, dict(own.settings)]
    return {
        # Code of other distributions, or of a file of other content, is not trusted to be the same.
        "stage": [plan.plugin.distribution, *stage],
        "data": plan.dataset.hash,
        # Joint training reads the evaluated users.
        "users": [user.id for user in plan.dataset.users] if plan.joint else None,
        **{name: plan.identity[name] for name in _SAME},
        "engine": settings.engine if kind.engines else None,
        "seed": settings.seed,
    }


def _made_by(plan: Plan, where: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the times of a stage, and the last bits of its state, depend on."""
    if where is None:
        if plan.backbone is not None and plan.method_type.needs_weights:
            # Only then is it known how many threads it computes with.
            import torch  # noqa: F401
        where = environment(plan.backbone.device if plan.backbone else "cpu")
    threads = where["threads"] if plan.backbone else None
    return {**where, "threads": threads, "lampbench": lampbench.__version__, "commit": source_commit()[0]}


def _files(state: Path) -> dict[str, Path]:
    """Name -> path of every file of a state but its README, which names the run; links are not followed."""
    found = sorted(path for path in state.rglob("*") if path.is_file() and not path.is_symlink())
    found = [path for path in found if path != state / CARD]
    return {path.relative_to(state).as_posix(): path for path in found}


def _copy(state: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for name, path in _files(state).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)


def _last_fit(journal: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The events of the last shared stage: its end, and the parts before."""
    last: list[dict[str, Any]] = []
    for event in reversed([event for event in journal if event["event"] == "fit_shared"]):
        if last and not event.get("part"):
            break
        last.insert(0, dict(event))
    return last
