"""The prompt alone, on the raw backbone."""

from __future__ import annotations

from lampbench import PromptMethod, Query, User


class ZeroShot(PromptMethod):
    """The prompt alone: no history, no training. Every other method is measured against it."""

    def context(self, user: User, query: Query) -> str:
        """Nothing."""
        return ""
