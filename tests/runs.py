"""Runs on the tiny data and model of this repository, in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from support import TINY_DATA, TINY_MODEL, Silence

from lampbench.core import Method, Plugin
from lampbench.runner import Plan, Planner, Session, Settings

FAST = {"learning_rate": 1e-2, "shared_epochs": 3, "user_epochs": 1}


def planner(tmp_path: Path, **settings: Any) -> Planner:
    """A planner of runs on the tiny data and model."""
    given = {"protocol": "folder", "data": TINY_DATA, "model": str(TINY_MODEL), "device": "cpu", "out": tmp_path}
    return Planner(Settings(**{**given, **settings}))


def plan(
    tmp_path: Path,
    method: str = "perfit",
    task_name: str = "lamp5",
    overrides: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Plan:
    """A run on the tiny data and model."""
    given = overrides if overrides is not None else FAST if method == "perfit" else {}
    made = planner(tmp_path, **settings).plan(method, task_name, given)
    assert isinstance(made, Plan)
    return made


def with_method(made: Plan, kind: type[Method]) -> Plan:
    """The same plan with another method class, as a plug-in would bring it."""
    point = metadata.EntryPoint(kind.__name__, "somewhere:X", "lampbench.methods")
    plugin = Plugin(kind.__name__, "stranger 1.0", "somewhere:X", point)
    return dataclasses.replace(made, method_type=kind, plugin=plugin, config=kind.Config(), folder=made.folder / "x")


def run(made: Plan, tmp_path: Path, reporter: Silence | None = None, **options: Any) -> Any:
    """The row of a run."""
    kept = ("users", "batch_size", "decoding", "seed")
    given = {name: getattr(made.settings, name) for name in kept}
    return Session(planner(tmp_path, **given), reporter or Silence()).run(made, **options)
