"""The phase in which backbone and method come into memory."""

from __future__ import annotations

import time
from typing import Any, Protocol

from lampbench.core import Method
from lampbench.runner._plan import Plan
from lampbench.runner._work import Work


class BackboneLoader(Protocol):
    """Gives the loaded backbone of a plan; the same one for runs that share it."""

    def __call__(self, plan: Plan) -> tuple[Any, float]:
        """The backbone, and the seconds that loading it took in an earlier run of this process."""


class OneBackbone:
    """Loads the backbone for the first run that needs one, and gives it to all others of one command."""

    def __init__(self) -> None:
        self._backbone: Any = None
        self._seconds = 0.0

    def __call__(self, plan: Plan) -> tuple[Any, float]:
        """The backbone, and the seconds that loading it took in an earlier run of this process."""
        from lampbench.backbone import Decoding, TransformersBackbone

        if self._backbone is not None:
            return self._backbone, self._seconds
        if plan.backbone is not None:
            settings = plan.settings
            start = time.perf_counter()
            self._backbone = TransformersBackbone.load(
                plan.backbone,
                decoding=Decoding(settings.decoding),
                batch_size=settings.batch_size,
                seed=settings.seed,
            )
            self._seconds = time.perf_counter() - start
        return self._backbone, 0.0


def load(work: Work, load_backbone: BackboneLoader) -> Method:
    """The method of the run, on the backbone, where nobody is adapted yet."""
    plan = work.plan
    with work.enter("load", 1) as bar:
        with work.measured("load") as event:
            event["seconds"] += plan.data_seconds
            if plan.backbone:
                work.backbone, seconds = load_backbone(plan)
                event["seconds"] += seconds
            method = plan.method_type(
                task=plan.task, config=plan.config, seed=plan.settings.seed, backbone=work.backbone
            )
        bar.move(1, 1)
    if method.engines:
        method.engine = plan.settings.engine
    method.say = work.reporter.say
    if work.backbone is not None:
        work.backbone.warm_up()
    return method
