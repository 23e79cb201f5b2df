"""Several runs of one command, sharing data and the loaded backbone."""

from __future__ import annotations

import time
from typing import Any

from lampbench.runner._execute import execute
from lampbench.runner._plan import Plan, Planner
from lampbench.runner._work import Reporter


class Session:
    """Executes plans in turn; the backbone is loaded by the first run that needs it."""

    def __init__(self, planner: Planner, reporter: Reporter) -> None:
        self._planner = planner
        self._reporter = reporter
        self._backbone: Any = None
        self._load_seconds = 0.0

    def run(self, plan: Plan, *, force: bool = False) -> dict[str, Any]:
        """The row of ``plan``; with ``force`` earlier work of the same identity is deleted first."""
        data = self._planner.evaluated(plan)
        return execute(plan, data, self._load_backbone, self._reporter, force=force)

    def _load_backbone(self, plan: Plan) -> tuple[Any, float]:
        from lampbench.backbone import Decoding, TransformersBackbone

        if self._backbone is not None:
            return self._backbone, self._load_seconds
        if plan.backbone is not None:
            settings = plan.settings
            start = time.perf_counter()
            self._backbone = TransformersBackbone.load(
                plan.backbone,
                decoding=Decoding(settings.decoding),
                batch_size=settings.batch_size,
                seed=settings.seed,
            )
            self._load_seconds = time.perf_counter() - start
        return self._backbone, 0.0
