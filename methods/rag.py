"""The user's most relevant history items before the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lampbench import PromptMethod, Query, Task, User, setting
from lampbench.core import Context, RunContext
from lampbench.hub import find_model
from lampbench.retrieval import (
    ASKED_FOR_HELP,
    AskedFor,
    DenseEncoder,
    Retriever,
    RetrieverFactory,
    RetrieverName,
)


@dataclass(frozen=True)
class RagConfig:
    """Settings of ``rag``."""

    retriever: RetrieverName = setting("bm25", "which history items: bm25, recency, random, dense")
    k: int | Literal["all"] = setting(1, "history items in the prompt, or all that fit")
    query: AskedFor = setting("template", ASKED_FOR_HELP)
    encoder: str | None = setting(None, "dense: path or hub id of an encoder", in_identity=False)
    encoder_revision: str | None = setting(None, "dense: the encoder's revision; found automatically")

    def __post_init__(self) -> None:
        if self.k != "all" and self.k < 1:
            raise ValueError(f"k must be at least 1 or 'all', found {self.k}")
        if self.retriever == "dense" and self.encoder is None:
            raise ValueError("the dense retriever needs an encoder, such as encoder=facebook/contriever")


class Rag(PromptMethod):
    """Retrieval-augmented prompting: the user's k most relevant history items before the query."""

    Config = RagConfig
    paper = "Salemi et al., LaMP, ACL 2024; prompts as in Tan et al., OPPU, EMNLP 2024"

    def setup(self) -> None:
        """Prepare the retriever; a user's index is built when the user is adapted."""
        super().setup()
        config, encoder = self.config, None
        if config.retriever == "dense":
            encoder = DenseEncoder(find_model(config.encoder, config.encoder_revision), self.backbone.device)
        self._make = RetrieverFactory(config.retriever, self.task, self.seed, query=config.query, encoder=encoder)
        self._retrievers: dict[str, Retriever] = {}

    @classmethod
    def resolve(cls, config: Any, task: Task, context: RunContext) -> Any:
        """Name the encoder's revision."""
        if config.retriever != "dense":
            return config
        return replace(config, encoder_revision=find_model(config.encoder, config.encoder_revision).revision)

    def adapt(self, users: Sequence[User]) -> None:
        """Index each user's history."""
        super().adapt(users)
        self._retrievers.update({user.id: self._make(user) for user in users})

    def context(self, user: User, query: Query) -> Context:
        """The best items, best first."""
        k = len(user.history) if self.config.k == "all" else self.config.k
        return self.task.context(self._retrievers[user.id].rank(query, k))

    def forget(self, user_id: str) -> None:
        """Drop the user's history and index."""
        super().forget(user_id)
        self._retrievers.pop(user_id, None)
