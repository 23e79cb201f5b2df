"""Methods driven part by part, as a run drives them, but without its folder and checks: what each part costs.

Costs are seconds of the processor and not of the clock, so that a machine that does other work at the same time gives
nearly the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lampbench.backbone import Decoding, TransformersBackbone
from lampbench.core import Method
from lampbench.data import Dataset
from lampbench.runner import Plan, Planner, Settings


@dataclass(frozen=True)
class Part:
    """What adapting and asking users gave.

    Attributes:
        adapt, predict: Seconds of the processor.
        answers: In the order of the queries.
    """

    adapt: float
    predict: float
    answers: tuple[str, ...]


class Driver:
    """Makes plans and methods; a backbone is loaded once.

    Args:
        settings: Of every run; the protocol can be another one for a plan.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._planners: dict[str, Planner] = {}
        self._backbones: dict[str, TransformersBackbone] = {}

    def plan(self, method: str, task: str, set: Mapping[str, Any], protocol: str | None = None) -> Plan:
        """The run; exits with a message if the method does not support the task."""
        name = protocol or self._settings.protocol
        if name not in self._planners:
            self._planners[name] = Planner(replace(self._settings, protocol=name))
        plan = self._planners[name].plan(method, task, set)
        if not isinstance(plan, Plan):
            raise SystemExit(f"{method} on {task}: {plan.reason}")
        return plan

    def method(self, plan: Plan, engine: str | None = None) -> Method:
        """The method of a plan, nothing trained; ``engine`` as ``--engine``, None for the method's own."""
        made = plan.method_type(
            task=plan.task, config=plan.config, seed=plan.settings.seed, backbone=self._backbone(plan)
        )
        made.engine = engine or made.engine
        return made

    def _backbone(self, plan: Plan) -> TransformersBackbone | None:
        if plan.backbone is None or plan.decoding is None:
            return None
        key = repr(plan.decoding)
        if key not in self._backbones:
            self._backbones[key] = loaded(plan, plan.decoding)
        return self._backbones[key]


def loaded(plan: Plan, decoding: Decoding) -> TransformersBackbone:
    """A plan's local backbone, warmed up."""
    from lampbench.backbone import BackboneInfo

    assert isinstance(plan.backbone, BackboneInfo)
    settings = plan.settings
    backbone = TransformersBackbone.load(
        plan.backbone, decoding=decoding, batch_size=settings.batch_size, seed=settings.seed
    )
    backbone.warm_up()
    return backbone


def shared_seconds(method: Method, data: Dataset) -> float:
    """Seconds of the processor for the shared stage, which is then trained."""
    return _timed(lambda: method.fit_shared(data.shared))[0]


def asked(method: Method, data: Dataset) -> Part:
    """Adapt all evaluated users, ask their queries, and forget the users."""
    adapt, _ = _timed(lambda: method.adapt(data.users))
    predict, answers = _timed(lambda: tuple(method.predict(data.queries)))
    for user in data.users:
        method.forget(user.id)
    return Part(adapt, predict, answers)


def adapt_seconds(method: Method, data: Dataset) -> float:
    """Seconds of the processor for adapting all evaluated users, who are then forgotten."""
    seconds, _ = _timed(lambda: method.adapt(data.users))
    for user in data.users:
        method.forget(user.id)
    return seconds


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    given = work()
    return time.process_time() - start, given
