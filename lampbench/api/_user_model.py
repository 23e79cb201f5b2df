"""One user's model of a finished run, loaded again from the run's folder."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lampbench.api._find import ID_DIGITS
from lampbench.api._functions import settings_from
from lampbench.api._look import wording_of
from lampbench.api._results import finished_run
from lampbench.core import AskedUser, InputError, Method, Query, find_kept_task
from lampbench.rows import Row
from lampbench.runner import (
    Plan,
    Planner,
    RunFolder,
    Skip,
    adapts_users,
    has_shared_stage,
    load_protocol,
    load_task,
)

if TYPE_CHECKING:
    from lampbench.backbone import TransformersBackbone


@dataclass(frozen=True)
class UserModel:
    """A method with one user's state, as it was when the run answered.

    Attributes:
        row: The run.
        folder: Where the run's files are.
        plan: The run, planned again.
        asked: The user, and the queries of the run.
        backbone: As it comes, before the method changed anything; None if the run used no model.
        method: With the shared stage's state and the user's.
    """

    row: Row
    folder: Path
    plan: Plan
    asked: AskedUser
    backbone: TransformersBackbone | None
    method: Method

    @property
    def state(self) -> Path:
        """The folder of the user's state."""
        return RunFolder(self.folder).user_state(self.asked.user.id)

    def answer(self, texts: Sequence[str]) -> list[str]:
        """The user's answers to new texts, worded and decoded as in the run.

        Args:
            texts: What the task asks about, without an instruction.
        """
        user = self.asked.user.id
        return list(self.method.predict([Query(f"new-{place}", user, text) for place, text in enumerate(texts)]))


def load_user(run: str | Path, user: str, *, out: str | Path = "runs", **given: Any) -> UserModel:
    """Load what a finished run made for one user: ``load_user("lamp5/perfit", ID).answer(texts)``.

    Args:
        run: A run folder, the beginning of a run's id, or ``"TASK/METHOD"``.
        user: The user's id.
        out: The folder in which runs are looked for.
        given: Options of ``lampbench run`` that the row cannot tell: ``model`` and ``tokenizer`` if they are folders or
            files, ``data`` if the protocol needs a folder, ``system``, of which the row holds a hash, and ``device``.

    Raises:
        InputError: There is no such run or user, or the model or data are not those of the run.
    """
    row, folder = finished_run(run, Path(out))
    find_kept_task(folder, row.identity.task, with_others=False)
    plan = _planned_again(row, folder, given)
    asked = _asked(plan, user)
    state = RunFolder(folder).user_state(user)
    adapted = bool(asked.user.history) and adapts_users(plan.method_type)
    if adapted and not state.is_dir():
        raise InputError(
            f"{state}: no such folder; a result that was added to a leaderboard has no states: name the run"
        )
    backbone = None
    if plan.backbone is not None and plan.decoding is not None:
        from lampbench.backbone import ServedInfo, TransformersBackbone

        if isinstance(plan.backbone, ServedInfo):
            raise InputError(f"run {row.run_id}: its model was served; nothing of it is on this machine")
        backbone = TransformersBackbone.load(
            plan.backbone, decoding=plan.decoding, batch_size=plan.settings.batch_size, seed=plan.settings.seed
        )
    method = plan.method_type(task=plan.task, config=plan.config, seed=plan.settings.seed, backbone=backbone)
    if method.engines:
        method.engine = plan.settings.engine
    if has_shared_stage(plan):
        method.load_shared(RunFolder(folder).shared_state, plan.dataset.shared)
    if adapted:
        method.load_user(asked.user, state)
    return UserModel(row, folder, plan, asked, backbone, method)


def _planned_again(row: Row, folder: Path, given: Mapping[str, Any]) -> Plan:
    """The plan of a finished run, made from its row.

    Raises:
        InputError: The model, the data or anything else is not what the run had.
    """
    own = row.identity
    # The share of records that the run tolerated is not kept; the hash tells whether it is the run's data.
    known: dict[str, Any] = {
        "protocol": own.protocol, "users": own.limit, "seed": own.seed, "prompts": wording_of(load_task(own.task), row),
        "tolerate": 1.0, "engine": own.engine, **_of_model(row, "model" in given), **_of_decoding(own.decoding or {}),
    }  # fmt: skip
    settings = settings_from({**{name: value for name, value in known.items() if value is not None}, **given})
    overrides = {name: value for name, value in own.config.items() if value is not None}
    plan = Planner(settings).plan(own.method, own.task, overrides)
    if isinstance(plan, Skip):
        raise InputError(f"run {row.run_id}: {plan.reason}")
    _check_same(own.to_json(), plan.identity, row.run_id)
    return plan


def _of_model(row: Row, named: bool) -> dict[str, Any]:
    """Settings of the model; ``named``: the user says which it is."""
    own = row.identity.backbone
    if own is None:
        return {}
    found: dict[str, Any] = {"dtype": own.dtype}
    # Of a GGUF file the file itself says it.
    if own.quantization in ("nf4", "int8"):
        found["quantize"] = own.quantization
    default = load_protocol(row.identity.protocol)[0].default_model
    if named or (default is not None and Path(default).name == own.id):
        return found
    # Only a hub's revision is a commit.
    if own.revision.startswith("sha256:"):
        raise InputError(
            f"run {row.run_id}: its model was a local folder or file called {own.id!r}; name it: --model PATH"
        )
    return {**found, "model": own.id, "revision": own.revision}


def _of_decoding(decoding: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of how answers are made."""
    names = ("max_length", "repetition_penalty", "no_repeat_ngram", "batch_size")
    found: dict[str, Any] = {"decoding": decoding.get("mode"), **{name: decoding.get(name) for name in names}}
    if "chat" in decoding:
        found |= {"chat": "on", "thinking": decoding["chat"].get("thinking") or None}
    return found


def _check_same(expected: Mapping[str, Any], found: Mapping[str, Any], run_id: str) -> None:
    """Raise InputError for the first part of the identity that is another one; where the run ran does not matter."""
    for name, value in expected.items():
        here = found.get(name, False if name == "joint" else None)
        if name == "backbone" and value is not None and here is not None:
            value, here = {**value, "device": None}, {**here, "device": None}
        if value != here and _plain(value) != _plain(here):
            hint = {
                "protocol_hash": "name the data folder that the run read: --data",
                "backbone": "name the model that the run used: --model",
                "decoding": "if the run had --system, give it again",
                "method_version": "this version of LampBench gives other answers",
            }.get(name, "this version of LampBench, or a plug-in, is not that of the run")
            raise InputError(f"run {run_id}: {name} was {value!r}, and is {here!r} here; {hint}")


def _plain(value: Any) -> Any:
    """As JSON has it: lists in place of tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _asked(plan: Plan, user: str) -> AskedUser:
    """The evaluated user; raises InputError, with the nearest name, if there is none."""
    names = []
    for asked in plan.dataset.evaluated:
        if asked.user.id == user:
            return asked
        names.append(asked.user.id)
    near = difflib.get_close_matches(user, names, n=1)
    known = f"did you mean {near[0]!r}?" if near else f"one that it has is {names[0]!r}"
    raise InputError(f"run {plan.run_id[:ID_DIGITS]} has no user {user!r}; {known}")
