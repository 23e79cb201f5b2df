"""The prompt alone, on the raw backbone."""

from __future__ import annotations

from collections.abc import Sequence

from lampbench import Method, Query
from lampbench.core import Backbone


class ZeroShot(Method):
    """The prompt alone: no history, no training. Every other method is measured against it."""

    needs_weights = False
    backbone: Backbone

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        """Answer each query by its prompt."""
        return self.backbone.answer(self.task, [self.task.prompt(query.text, query.id) for query in queries])
