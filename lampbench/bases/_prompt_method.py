"""Base of methods that only change the prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from lampbench.core import Backbone, Context, Method, Prompt, Query, User


class PromptMethod(Method):
    """Put something before the query; override ``context``.

    The backbone answers ``context``, a newline (or what a ``Context`` ends in), and the task's prompt.
    If all that is too long, the context is cut first: of a list, the last pieces go; a string, or a
    first piece that is still too long, keeps its end. A user who was never adapted, or was forgotten,
    has no context.
    """

    needs_weights = False
    backbone: Backbone

    def setup(self) -> None:
        """Start with no user known."""
        self._users: dict[str, User] = {}

    @abstractmethod
    def context(self, user: User, query: Query) -> str | Sequence[str] | Context:
        """What goes before the query: one string, pieces with the most important first, or ``task.context(items)``."""

    def adapt(self, users: Sequence[User]) -> None:
        """Remember the users' histories."""
        self._users.update({user.id: user for user in users})

    def predict(self, queries: Sequence[Query]) -> Sequence[str]:
        """Answer each query after its context."""
        return self.backbone.answer(self.task, [self.prompt(query) for query in queries])

    def prompt(self, query: Query) -> Prompt:
        """What the backbone is asked: the task's prompt, after the context of a user who is known."""
        prompt, user = self.task.prompt(query.text, query.id), self._users.get(query.user_id)
        return prompt if user is None else prompt.with_context(self.context(user, query))

    def forget(self, user_id: str) -> None:
        """Drop the user's history."""
        self._users.pop(user_id, None)
