from dataclasses import dataclass

from lampbench import PromptMethod, Query, User


class Latest(PromptMethod):
    """Puts the user's k latest items before the query."""

    @dataclass(frozen=True)
    class Config:
        k: int = 4

    def context(self, user: User, query: Query) -> str:
        return "".join(self.task.render(item) for item in user.history[-self.config.k :])
